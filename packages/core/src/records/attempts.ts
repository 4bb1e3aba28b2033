/** The attempts of an execution: the one that its record points at, and those that it superseded. */
import type { AttemptId, LeaseId } from "../ids.js";
import type {
  AttemptLifecycle,
  AttemptRecord,
  AttemptType,
} from "../snapshots.js";
import { HOME, HOMES } from "../state.js";
import type { StreamCloseReason } from "../streams.js";
import { readDetails, type ExecutionRecord } from "./executions.js";
import { bytesToUuid, optional } from "./values.js";
import type { Holder } from "./workers.js";

export const ATTEMPT_TYPES = [
  "initial",
  "retry",
  "reclaim",
  "replay",
] as const satisfies readonly AttemptType[];

export function attemptTypeOf(
  row: Pick<ExecutionRecord, "attempt_type">,
): AttemptType {
  return ATTEMPT_TYPES[row.attempt_type ?? 0]!;
}

/** How the attempt that the row points at stands. */
export function attemptLifecycleOf(row: ExecutionRecord): AttemptLifecycle {
  switch (row.home) {
    case HOME.succeeded:
      return "ended_success";
    case HOME.cancelled:
    case HOME.skipped:
      return "ended_cancelled";
    case HOME.failed:
    case HOME.expired:
      return "ended_failure";
    default:
      return HOMES[row.home].phase === "active" ? "started" : "suspended";
  }
}

/** An attempt that was superseded, kept as JSON. */
export interface ArchivedAttempt {
  readonly attemptId: string;
  readonly type: number;
  readonly state: AttemptLifecycle;
  readonly leaseId: string;
  readonly epoch: number;
  readonly holder: number;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly failureReason?: string;
  readonly failureCategory?: string;
  readonly reason?: string;
  readonly requestedBy?: string;
  readonly previous?: number;
  /** How its stream was closed, where `state` and `endedAtMs` do not tell it. */
  readonly closedAtMs?: number;
  readonly closedReason?: StreamCloseReason;
}

export function toEarlierAttempt(
  attemptIndex: number,
  stored: ArchivedAttempt,
  holder: Holder,
): AttemptRecord {
  const attemptType = ATTEMPT_TYPES[stored.type]!;
  return {
    attemptIndex,
    attemptId: stored.attemptId as AttemptId,
    attemptType,
    attemptState: stored.state,
    leaseId: stored.leaseId as LeaseId,
    leaseEpoch: stored.epoch,
    ...holder,
    startedAtMs: stored.startedAtMs,
    endedAtMs: stored.endedAtMs,
    ...optional("failureReason", stored.failureReason),
    ...optional("failureCategory", stored.failureCategory),
    ...lineage(attemptType, stored),
  };
}

/** @param row one that points at an attempt */
export function toCurrentAttempt(
  row: ExecutionRecord,
  holder: Holder,
): AttemptRecord {
  const details = readDetails(row.details);
  const attemptType = attemptTypeOf(row);
  const attemptState = attemptLifecycleOf(row);
  return {
    attemptIndex: row.attempt,
    attemptId: bytesToUuid(row.attempt_id!) as AttemptId,
    attemptType,
    attemptState,
    leaseId: bytesToUuid(row.lease!) as LeaseId,
    leaseEpoch: row.epoch,
    ...holder,
    startedAtMs: row.attempt_at!,
    ...optional("endedAtMs", row.completed_at),
    ...(attemptState === "ended_failure"
      ? {
          ...optional("failureReason", details.failureReason),
          ...optional("failureCategory", details.failureCategory),
        }
      : {}),
    ...(attemptState === "ended_cancelled"
      ? { failureReason: `cancelled: ${details.cancellationReason ?? ""}` }
      : {}),
    ...lineage(attemptType, {
      reason: details.attemptReason,
      requestedBy: details.attemptRequestedBy,
      previous: details.attemptPrevious,
    }),
  };
}

/** Lineage fields by attempt type. */
function lineage(
  type: AttemptType,
  from: {
    readonly reason?: string | undefined;
    readonly requestedBy?: string | undefined;
    readonly previous?: number | undefined;
  },
): Partial<AttemptRecord> {
  if (type === "initial") return {};
  return {
    ...optional("previousAttemptIndex", from.previous),
    ...(type === "reclaim"
      ? optional("reclaimReason", from.reason as AttemptRecord["reclaimReason"])
      : {}),
    ...(type === "replay"
      ? {
          ...optional("replayReason", from.reason),
          ...optional("replayRequestedBy", from.requestedBy),
        }
      : {}),
  };
}
