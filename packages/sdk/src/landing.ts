/** What an answer means for the task it is about: has its ending landed, is its lease lost, was it ourselves? */
import type {
  ClaimedExecution,
  EngineError,
  ErrorKind,
  TaskEndedNotice,
} from "@flowfabric/core";
import { isEngineError, stopsRenewal } from "@flowfabric/core";

import {
  findEngineError,
  LeaseLostError,
  TaskCancelledError,
  type TerminalOperation,
} from "./errors.js";

const JUDGED: ReadonlySet<ErrorKind> = new Set<ErrorKind>([
  "NotFound",
  "Validation",
  "Contention",
  "Conflict",
  "State",
  "Bug",
]);

/**
 * Whether a failed ending was judged by the engine. Not where its arrival is unknown, where it was refused before
 * the lease was looked at, or where the store never got round to it. Nor where a suspension was refused for what is
 * wrong with its waitpoints: the lease goes on, and so may its holder.
 */
export function hasLanded(
  error: unknown,
  operation?: TerminalOperation,
): boolean {
  const engine = findEngineError(error);
  if (engine === undefined || !JUDGED.has(engine.kind)) return false;
  if (operation === "suspend") return stopsRenewal(engine);
  // Arguments are checked first; of all answers of this family only those about the handle judge the lease.
  if (engine.kind === "Validation") return stopsRenewal(engine);
  return engine.code !== "retry_exhausted";
}

interface End {
  readonly leaseEpoch: number;
  readonly lifecyclePhase?: string;
  readonly terminalOutcome?: string;
  readonly outcome?: string;
  readonly attemptId?: string;
}

const OUTCOMES: { readonly [Operation in TerminalOperation]?: string } = {
  complete: "success",
  fail: "failed",
  cancel: "cancelled",
};
/** What leaves the execution alive. */
const PAUSES: ReadonlySet<TerminalOperation> = new Set<TerminalOperation>([
  "delay",
  "suspend",
  "fail",
]);

/** Whether this end of the lease is what our own ending, of unknown fate, would have brought about. */
export function isOwnEnd(
  attempted: TerminalOperation,
  end: End,
  own?: Pick<ClaimedExecution, "leaseEpoch" | "attemptId">,
): boolean {
  if (own !== undefined) {
    if (end.leaseEpoch !== own.leaseEpoch) return false;
    // A scheduled retry has cleared it.
    if (end.attemptId !== own.attemptId && end.attemptId !== "") return false;
  }
  const outcome = end.terminalOutcome ?? end.outcome ?? "none";
  return outcome === "none"
    ? PAUSES.has(attempted)
    : outcome === OUTCOMES[attempted];
}

/** What a holder is told when the engine answers that the lease is gone. */
export function lossOf(
  error: EngineError,
  { leaseEpoch }: Pick<ClaimedExecution, "leaseEpoch">,
): TaskCancelledError | LeaseLostError {
  if (!isEngineError(error, "execution_not_active"))
    return new LeaseLostError({ leaseEpoch, reason: error.code }, error);
  const { terminalOutcome } = error.detail;
  if (terminalOutcome === "cancelled") return new TaskCancelledError({}, error);
  return new LeaseLostError(
    {
      leaseEpoch,
      reason: error.code,
      ...(terminalOutcome === "" || terminalOutcome === "none"
        ? {}
        : { terminalOutcome }),
    },
    error,
  );
}

/** The same, from a notice. */
export function noticedLossOf(
  { code, outcome, reason, source }: TaskEndedNotice,
  { leaseEpoch }: Pick<ClaimedExecution, "leaseEpoch">,
): TaskCancelledError | LeaseLostError {
  if (outcome === "cancelled")
    return new TaskCancelledError({
      ...(reason === undefined ? {} : { reason }),
      ...(source === undefined ? {} : { source }),
    });
  return new LeaseLostError({
    leaseEpoch,
    reason: code,
    ...(outcome === undefined ? {} : { terminalOutcome: outcome }),
  });
}
