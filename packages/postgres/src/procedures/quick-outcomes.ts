/**
 * Ends of attempts by one statement, for any number of them. Its WHERE carries the fence: what no longer is as the holder
 * knows it, for whatever reason, is passed over, and the slow path, which decides under the row's lock, says why. So is
 * a row that someone else has locked: only whoever wants that one waits for it, not those who share a statement with him.
 * The clock is read behind all locks.
 */
import {
  BLOCKING_REASONS,
  HOME,
  packState,
  parseExecutionId,
  PRIORITY_STEP_MS,
  retryAtMs,
  TERMINAL_HOME,
  type HandlePayload,
  type OutcomeResult,
} from "@flowfabric/core";
import {
  archivedAttempt,
  attemptStateCode,
  forgetPlans,
  forgetRevocation,
  OWN_RETENTION_OFFSET,
  reasonCode,
  type WithDetails,
} from "@flowfabric/core/sql";

import { few } from "../dialect.js";
import type { SqlValue } from "../session.js";
import { noteFailure, noteRetry, type Failure } from "./failure.js";
import type { HeldLease, HeldLeases } from "./held-leases.js";
import { actorCode, eventCode } from "./log.js";
import { Packed, unpacked } from "./packed.js";
import { toPolicy } from "./policy.js";

export interface Ending {
  readonly own: HandlePayload;
  readonly payload?: Uint8Array | undefined;
  readonly failure?: Failure | undefined;
}

const OUTCOME = { complete: 0, retry: 1, fail: 2 } as const;

export interface EndingRecord extends FenceRecord {
  readonly outcome: (typeof OUTCOME)[keyof typeof OUTCOME];
  /** What the details must be for this to be true, and what they become. */
  readonly was: string | undefined;
  readonly details: string | undefined;
  readonly delay: number | undefined;
  /** The attempt's record but for its end. */
  readonly record: string | undefined;
  readonly reason: string | undefined;
}

/** An ending with what the statement is told about it. */
export interface PlainEnding {
  readonly ending: Ending;
  readonly record: EndingRecord;
}

/**
 * Nothing in the places of those that cannot be decided by what this process remembers of their leases, and of second
 * ends of one execution: the server would keep the first of two changes of one row, and say nothing.
 */
export function plainEndings(
  endings: readonly Ending[],
  remembered: HeldLeases,
): (PlainEnding | undefined)[] {
  const seen = new Set<string>();
  return endings.map((ending) => {
    const { own } = ending;
    if (seen.has(own.executionId)) return undefined;
    seen.add(own.executionId);
    const record = recordOf(ending, remembered.find(own));
    return record && { ending, record };
  });
}

/** For {@link HELD} and, behind it, for {@link ENDED}. */
export function endingValues(
  plain: readonly PlainEnding[],
): [records: SqlValue, payloads: SqlValue] {
  const payloads = new Packed();
  const records = plain.map(({ ending: { payload }, record }) => ({
    ...record,
    ...payloads.add(payload),
  }));
  return [JSON.stringify(records), payloads.bytes()];
}

/** Whose lease it is, for {@link FENCED}. */
export interface FenceRecord {
  readonly id: string;
  readonly partition: number;
  readonly attempt: number;
  readonly epoch: number;
  readonly lease: string;
  readonly attempt_id: string;
}

export function fenceRecord(own: HandlePayload): FenceRecord {
  const { partition, uuid } = parseExecutionId(own.executionId)!;
  return {
    id: uuid,
    partition,
    attempt: own.attemptIndex,
    epoch: own.leaseEpoch,
    lease: own.leaseId,
    attempt_id: own.attemptId,
  };
}

function recordOf(
  { own, failure }: Ending,
  held: HeldLease | undefined,
): EndingRecord | undefined {
  const after: WithDetails = { details: held?.details ?? null };
  const common = {
    ...fenceRecord(own),
    was: after.details ?? undefined,
    delay: undefined,
    record: undefined,
    reason: undefined,
  };
  forgetRevocation(after);
  if (failure === undefined) {
    forgetPlans(after);
    return {
      ...common,
      outcome: OUTCOME.complete,
      details: after.details ?? undefined,
    };
  }
  if (held === undefined) return undefined;
  const delay = retryAtMs(toPolicy(held.policy), {
    classification: failure.classification,
    category: failure.category,
    retryCount: held.retries,
    nowMs: 0,
    // The statement looks at the deadline, for it has the clock.
    deadlineAtMs: undefined,
  });
  if (delay === undefined) {
    noteFailure(after, failure);
    forgetPlans(after);
    return {
      ...common,
      outcome: OUTCOME.fail,
      details: after.details ?? undefined,
      reason: failure.category,
    };
  }
  noteRetry(after, failure, own.attemptIndex);
  const { endedAtMs: _later, ...record } = archivedAttempt(
    held,
    "ended_failure",
    0,
    { failureReason: failure.message, failureCategory: failure.category },
  );
  return {
    ...common,
    outcome: OUTCOME.retry,
    details: after.details ?? undefined,
    delay,
    record: JSON.stringify(record),
    reason: failure.category,
  };
}

/** @param atMs the instant that the statement answered */
export function resultOf(
  { outcome, delay }: EndingRecord,
  atMs: number,
): Exclude<OutcomeResult, { kind: "rejected" }> {
  if (outcome === OUTCOME.complete) return { kind: "completed" };
  return outcome === OUTCOME.retry
    ? { kind: "retryScheduled", delayUntilMs: atMs + delay! }
    : { kind: "terminalFailed" };
}

const RETRY_DELAYED = packState(
  HOME.delayed,
  "waiting_for_retry_backoff",
  "pending_retry_attempt",
);
const RETRY_AT_ONCE = packState(
  HOME.eligible,
  "waiting_for_worker",
  "pending_retry_attempt",
);
const SUCCEEDED = packState(
  TERMINAL_HOME.success,
  BLOCKING_REASONS[0],
  "attempt_terminal",
);
const FAILED = packState(
  TERMINAL_HOME.failed,
  BLOCKING_REASONS[0],
  "attempt_terminal",
);

const byOutcome = (complete: unknown, retry: unknown, fail: unknown) =>
  `CASE outcome WHEN ${OUTCOME.complete} THEN ${String(complete)} WHEN ${OUTCOME.retry} THEN ${String(retry)} ELSE ${String(fail)} END`;

/** The fence, for rows that are locked: \`clock\` was read behind the locks. */
export const FENCED = `home = ${HOME.active} AND attempt = own_attempt AND epoch = own_epoch AND lease = own_lease
      AND attempt_id = own_attempt_id AND lease_expires_at > greatest(clock.now, mutated_at)`;

/** The rows that these endings are for, under lock, and of them those that the fence lets through. */
export const HELD = `
  ending AS MATERIALIZED (
    SELECT *
    FROM ROWS FROM (
      json_to_recordset(?::JSON) AS (
        id UUID, partition INTEGER, attempt INTEGER, epoch BIGINT, lease UUID, attempt_id UUID, outcome SMALLINT, was TEXT,
        details TEXT, delay BIGINT, record TEXT, reason TEXT, from_byte INTEGER, size INTEGER
      )
    ) WITH ORDINALITY AS r (
      id, partition, attempt, epoch, lease, attempt_id, outcome, was, details, delay, record, reason, from_byte, size, place
    )
    WHERE ${few("place")}
  ), locked AS MATERIALIZED (
    SELECT e.seq, e.home, e.attempt, e.epoch, e.lease, e.attempt_id, e.lease_expires_at, e.mutated_at, e.grant_until,
      e.holds, e.deadline_at, e.waitpoints, e.created_at, e.priority, e.events, e.details AS stored, e.tags, ending.attempt AS own_attempt,
      ending.epoch AS own_epoch, ending.lease AS own_lease, ending.attempt_id AS own_attempt_id, outcome, was,
      ending.details, delay, record, ending.reason, from_byte, size, place
    FROM ending
    JOIN executions AS e ON e.id = ending.id AND e.partition = ending.partition
    FOR UPDATE OF e SKIP LOCKED
  ), clock AS MATERIALIZED (
    SELECT now_ms() AS now
    FROM (SELECT count(*) FROM locked) AS all_of_them
  ), held AS MATERIALIZED (
    SELECT locked.*, greatest(clock.now, mutated_at) AS at, greatest(clock.now, mutated_at) + delay AS retry_at
    FROM locked, clock
    WHERE ${FENCED} AND grant_until IS NULL AND waitpoints IS NULL
      AND stored IS NOT DISTINCT FROM was AND (
        outcome <> ${OUTCOME.retry} OR holds = 0 AND (
          deadline_at IS NULL OR deadline_at > greatest(clock.now, mutated_at) + delay
        )
      )
  )`;

/** Writes them, where \`go\` says so. The result goes in with the state: a reader sees both or neither. */
export const ENDED = `
  ended AS (
    UPDATE executions AS e
    SET home = ${byOutcome(TERMINAL_HOME.success, `CASE WHEN delay > 0 THEN ${HOME.delayed} ELSE ${HOME.eligible} END`, TERMINAL_HOME.failed)},
      score = ${byOutcome("coalesce(e.keep_ms + OFFSET_OF_KEPT, 0) + at", `CASE WHEN delay > 0 THEN retry_at ELSE e.created_at - e.priority * ${PRIORITY_STEP_MS} END`, "coalesce(e.keep_ms + OFFSET_OF_KEPT, 0) + at").replaceAll("OFFSET_OF_KEPT", String(OWN_RETENTION_OFFSET))},
      reason = ${byOutcome(0, `CASE WHEN delay > 0 THEN ${reasonCode("waiting_for_retry_backoff")} ELSE ${reasonCode("waiting_for_worker")} END`, 0)},
      attempt_state = ${byOutcome(attemptStateCode("attempt_terminal"), attemptStateCode("pending_retry_attempt"), attemptStateCode("attempt_terminal"))},
      events = e.events + 1, retries = e.retries + ${byOutcome(0, 1, 0)},
      attempt_id = ${byOutcome("e.attempt_id", "NULL", "e.attempt_id")}, completed_at = ${byOutcome("at", "e.completed_at", "at")},
      holds = ${byOutcome(0, "e.holds", 0)}, delay_until = ${byOutcome("NULL", "CASE WHEN delay > 0 THEN retry_at END", "NULL")},
      timeout_left = ${byOutcome("NULL", "e.timeout_left", "NULL")}, timer_at = ${byOutcome("NULL", "e.deadline_at", "NULL")},
      details = held.details, transitioned_at = at, mutated_at = at, request = NULL, leased_at = NULL, renewed_at = NULL,
      lease_expires_at = NULL, renew_by = NULL, lost_at = NULL, timeout_at = NULL
    FROM held, go
    WHERE go.ahead AND e.seq = held.seq
    RETURNING held.place
  ), kept AS (
    INSERT INTO results (seq, payload)
    SELECT seq, ${unpacked("held")}
    FROM held, go
    WHERE go.ahead AND size IS NOT NULL
    ON CONFLICT (seq) DO UPDATE
    SET payload = excluded.payload
  ), archived AS (
    INSERT INTO attempts (seq, attempt, record)
    SELECT seq, attempt, '{"endedAtMs":' || at || ',' || substr(record, 2)
    FROM held, go
    WHERE go.ahead AND outcome = ${OUTCOME.retry}
  ), told_of_ends AS (
    INSERT INTO events (execution, n, at, type, actor, state, attempt, epoch, reason, data, tags)
    SELECT seq, events + 1, at, ${byOutcome(eventCode("completed"), eventCode("retry_scheduled"), eventCode("failed"))},
      ${actorCode("worker")},
      ${byOutcome(SUCCEEDED, `CASE WHEN delay > 0 THEN ${RETRY_DELAYED} ELSE ${RETRY_AT_ONCE} END`, FAILED)}, attempt, epoch,
      reason, CASE WHEN outcome = ${OUTCOME.retry} THEN '{"delayUntilMs":' || retry_at || '}' END, tags
    FROM held, go
    WHERE go.ahead
    ORDER BY place
  )`;
