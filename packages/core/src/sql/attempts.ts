/** Attempts as SQL stores keep them: when and how they ended, and the archive of those that were superseded. */
import {
  attemptLifecycleOf,
  type ArchivedAttempt,
} from "../records/attempts.js";
import { effectiveNow, readDetails } from "../records/executions.js";
import { bytesToUuid, optional } from "../records/values.js";
import {
  archiveEnd,
  endAttempt,
  endOfAttempt,
  type AttemptEnd,
} from "../rules/stream-close.js";
import type { StreamCloseReason } from "../streams.js";
import type { ExecutionRow } from "./rows.js";

/** What an attempt's record is made of. */
export type AttemptFacts = Readonly<
  Pick<
    ExecutionRow,
    | "attempt_id"
    | "attempt_type"
    | "attempt_at"
    | "lease"
    | "epoch"
    | "holder"
    | "details"
  >
>;

/** What of its end the row does not say. */
export interface AttemptOver extends Partial<
  Pick<ArchivedAttempt, "state" | "failureReason" | "failureCategory">
> {
  /** What closes the attempt's stream, where its execution goes on. */
  readonly closes?: StreamCloseReason;
}

export function archivedAttempt(
  facts: AttemptFacts,
  state: ArchivedAttempt["state"],
  endedAtMs: number,
  over: Omit<AttemptOver, "closes">,
): ArchivedAttempt {
  const details = readDetails(facts.details);
  return {
    attemptId: bytesToUuid(facts.attempt_id!),
    type: facts.attempt_type!,
    state,
    leaseId: bytesToUuid(facts.lease ?? facts.attempt_id!),
    epoch: facts.epoch,
    holder: facts.holder ?? 0,
    startedAtMs: facts.attempt_at!,
    endedAtMs,
    ...optional("failureReason", details.failureReason),
    // The record's category is that of its end; a cancelled attempt has none, whatever cancelled it.
    ...(state === "ended_cancelled"
      ? {}
      : optional("failureCategory", details.failureCategory)),
    ...optional("reason", details.attemptReason),
    ...optional("requestedBy", details.attemptRequestedBy),
    ...optional("previous", details.attemptPrevious),
    ...over,
  };
}

/** The attempt that the row points at, for the archive. */
export function archiveOf(
  row: ExecutionRow,
  { closes, ...over }: AttemptOver,
  nowMs: number,
): ArchivedAttempt {
  const record = archivedAttempt(
    row,
    attemptLifecycleOf(row),
    row.completed_at ?? nowMs,
    over,
  );
  const end = closeAttempt(row, closes, nowMs);
  return end === undefined ? record : { ...record, ...archiveEnd(end, record) };
}

/** What an attempt's end is told from. */
export type AttemptEndFacts = Readonly<
  Pick<
    ExecutionRow,
    | "home"
    | "lease_expires_at"
    | "lost_at"
    | "completed_at"
    | "mutated_at"
    | "details"
  >
>;

/** How and when the attempt that the row points at ended, if it has. */
export function attemptEndOf(
  row: AttemptEndFacts,
  nowMs: number,
): AttemptEnd | undefined {
  const { closedAtMs, closedReason } = readDetails(row.details);
  return endOfAttempt(
    {
      home: row.home,
      leaseExpiresAtMs: row.lease_expires_at ?? undefined,
      lostAtMs: row.lost_at ?? undefined,
      completedAtMs: row.completed_at ?? undefined,
      ended:
        closedAtMs === undefined || closedReason === undefined
          ? undefined
          : { closedAtMs, closedReason },
    },
    effectiveNow(row, nowMs),
  );
}

/** How its stream is closed by what is about to happen; an end that came earlier stays. */
export function closeAttempt(
  row: ExecutionRow,
  closes: StreamCloseReason | undefined,
  nowMs: number,
): AttemptEnd | undefined {
  const earlier = attemptEndOf(row, nowMs);
  return closes === undefined ? earlier : endAttempt(earlier, closes, nowMs);
}
