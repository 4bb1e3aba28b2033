/**
 * A lost reply is not a lost write: from the refusal `execution_not_active` a repeat recognises its own
 * earlier success. Source: specification 03 §6.
 */
import type { AttemptState } from "../state.js";
import type { ExecutionNotActiveDetail } from "../errors.js";

export interface OwnIdentity {
  readonly leaseEpoch: number;
  readonly attemptId: string;
}

/** Did this very lease and attempt end the execution with this outcome? */
export function endedByUs(
  detail: ExecutionNotActiveDetail,
  own: OwnIdentity,
  outcome: "success" | "failed" | "cancelled",
): boolean {
  return (
    detail.lifecyclePhase === "terminal" &&
    detail.terminalOutcome === outcome &&
    detail.leaseEpoch === own.leaseEpoch &&
    detail.attemptId === own.attemptId
  );
}

/** Did our `fail` schedule a retry that nobody has claimed yet? The attempt id is cleared by then. */
export function retryScheduledByUs(
  detail: ExecutionNotActiveDetail,
  own: OwnIdentity,
  attemptState: AttemptState,
): boolean {
  return (
    detail.lifecyclePhase === "runnable" &&
    detail.leaseEpoch === own.leaseEpoch &&
    detail.attemptId === "" &&
    attemptState === "pending_retry_attempt"
  );
}

/** Did our `delay` park the attempt, and has nobody resumed it yet? */
export function parkedByUs(
  detail: ExecutionNotActiveDetail,
  own: OwnIdentity,
): boolean {
  return (
    detail.lifecyclePhase === "runnable" &&
    detail.leaseEpoch === own.leaseEpoch &&
    detail.attemptId === own.attemptId
  );
}
