/**
 * The shared steps of every transition: taking and releasing a lease, finding a home, ending. Each changes the row
 * in memory and appends its event; the operation saves the row once, at its end. Source: specification 04 §2.
 */
import {
  ATTEMPT_STATES,
  atReclaimCap,
  BLOCKING_REASONS,
  enterRunnable,
  HOME,
  isTerminalHome,
  reclaimBackoffMs,
  sortKey,
  TERMINAL_HOME,
  type AttemptType,
  type BlockingReason,
  type EventActor,
  type EventType,
  type JsonValue,
  type TerminalOutcome,
} from "@flowfabric/core";
import {
  ATTEMPT_TYPES,
  attemptLifecycleOf,
  attemptStateCode,
  attemptTypeCode,
  bytesToUuid,
  changeDetails,
  HOLD,
  readDetails,
  reasonCode,
  type ArchivedAttempt,
  type ExecutionRow,
  type WithDetails,
} from "@flowfabric/core/sql";

import type { Session } from "../db.js";
import type { Store } from "../store.js";
import { appendEvent } from "./log.js";

/** Score of finished executions whose policy sets its own retention: behind all others, ordered by purge time. */
export const OWN_RETENTION_OFFSET = 4_000_000_000_000_000;

const RUNNING = attemptStateCode("running_attempt");
const INTERRUPTED = attemptStateCode("attempt_interrupted");
const ATTEMPT_NONE = attemptStateCode("none");
const ATTEMPT_TERMINAL = attemptStateCode("attempt_terminal");

export function isInterrupted(row: ExecutionRow): boolean {
  return row.attempt_state === INTERRUPTED;
}

/** P7: the one way into every runnable home. Attempt state is kept. */
export function placeRunnable(
  row: ExecutionRow,
  nowMs: number,
  delayReason?: BlockingReason,
): void {
  const placement = enterRunnable(
    {
      createdAtMs: row.created_at,
      priority: row.priority,
      operatorHold: (row.holds & HOLD.operator) !== 0,
      laneHold: (row.holds & HOLD.lane) !== 0,
      dependenciesOpen: false,
      delayUntilMs: row.delay_until ?? undefined,
    },
    delayReason ?? reasonOfDelay(row),
    nowMs,
  );
  const reason = reasonCode(placement.reason);
  // A second hold under a first one changes nothing that shows.
  if (row.home !== placement.home || row.reason !== reason)
    row.transitioned_at = nowMs;
  row.home = placement.home;
  row.score = placement.score;
  row.reason = reason;
  if (placement.home === HOME.eligible) row.delay_until = null;
  row.mutated_at = nowMs;
}

/** Why a delay underneath a hold is there: retries wait for their back-off, everything else was asked for. */
function reasonOfDelay(row: ExecutionRow): BlockingReason {
  const stored = BLOCKING_REASONS[row.reason];
  if (
    stored === "waiting_for_delay" ||
    stored === "waiting_for_resume_delay" ||
    stored === "waiting_for_retry_backoff"
  )
    return stored;
  return ATTEMPT_STATES[row.attempt_state] === "pending_retry_attempt"
    ? "waiting_for_retry_backoff"
    : "waiting_for_delay";
}

/** A delay that is over, written down by whoever first changes the execution (00 D34). */
export function promoteIfDue(
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
): boolean {
  if (row.home !== HOME.delayed || row.score > nowMs) return false;
  row.delay_until = null;
  placeRunnable(row, nowMs);
  appendEvent(tx, row, "promoted", nowMs, "engine");
  return true;
}

/** P3: a lease that has lapsed, written down. The lease stays visible; the next offer waits for its back-off. */
export function markLapsed(
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
  reason?: string,
): void {
  const lostAtMs = Math.min(row.lease_expires_at!, nowMs);
  row.home = HOME.lapsed;
  row.score = lostAtMs + reclaimBackoffMs(row.reclaims);
  row.reason = reasonCode("waiting_for_worker");
  row.attempt_state = INTERRUPTED;
  row.lost_at = nowMs;
  row.transitioned_at = nowMs;
  row.mutated_at = nowMs;
  appendEvent(tx, row, "lease_expired", nowMs, "engine", {
    lease: row.lease,
    holder: row.holder,
    reason,
  });
}

export function markLapsedIfDue(
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
): boolean {
  if (row.home !== HOME.active || row.lease_expires_at! > nowMs) return false;
  markLapsed(tx, row, nowMs);
  return true;
}

export interface Acquisition {
  readonly leaseId: Uint8Array;
  readonly leaseTtlMs: number;
  readonly renewByMs: number;
  readonly holder: number;
  readonly request: string | null;
}

/** P4: a lease begins. The caller has decided which attempt runs under it. */
export function acquireLease(
  row: ExecutionRow,
  lease: Acquisition,
  nowMs: number,
): void {
  row.home = HOME.active;
  row.score = nowMs + lease.leaseTtlMs;
  row.reason = 0;
  row.attempt_state = RUNNING;
  row.epoch++;
  row.lease = lease.leaseId;
  row.holder = lease.holder;
  row.request = lease.request;
  row.leased_at = nowMs;
  row.renewed_at = nowMs;
  row.lease_expires_at = nowMs + lease.leaseTtlMs;
  row.renew_by = lease.renewByMs;
  row.lost_at = null;
  row.started_at ??= nowMs;
  row.delay_until = null;
  row.transitioned_at = nowMs;
  row.mutated_at = nowMs;
}

/** A new attempt at the next index; earlier ones are history by now. */
export function beginAttempt(
  tx: Session,
  row: ExecutionRow,
  attemptId: Uint8Array,
  type: AttemptType,
  nowMs: number,
): void {
  row.attempt = row.attempts;
  row.attempts++;
  row.attempt_id = attemptId;
  row.attempt_type = attemptTypeCode(type);
  row.attempt_at = nowMs;
  row.timeout_left = null;
  row.timeout_at = row.timeout_ms === null ? null : nowMs + row.timeout_ms;
  if (type === "initial") return;
  const { nextReason, nextRequestedBy, nextPrevious } = readDetails(row);
  changeDetails(row, {
    nextReason: undefined,
    nextRequestedBy: undefined,
    nextPrevious: undefined,
    attemptReason: nextReason,
    attemptRequestedBy: nextRequestedBy,
    attemptPrevious: nextPrevious,
    // What an earlier attempt failed with stays with that attempt.
    failureReason: undefined,
    failureCategory: undefined,
  });
  if (row.progress_at !== null) {
    tx.run(DELETE_PROGRESS, row.seq);
    row.progress_at = null;
  }
}

/** The interrupted attempt goes on with what is left of its time. */
export function resumeAttempt(row: ExecutionRow, nowMs: number): void {
  row.timeout_at = row.timeout_left === null ? null : nowMs + row.timeout_left;
  row.timeout_left = null;
}

/** Which kind of attempt a fresh claim begins. */
export function nextAttemptType(row: ExecutionRow): AttemptType {
  switch (ATTEMPT_STATES[row.attempt_state]) {
    case "pending_retry_attempt":
      return "retry";
    case "pending_replay_attempt":
      return "replay";
    default:
      return "initial";
  }
}

/** What an attempt's record is made of. */
export type AttemptFacts = Readonly<WithDetails> &
  Readonly<
    Pick<
      ExecutionRow,
      | "attempt_id"
      | "attempt_type"
      | "attempt_at"
      | "lease"
      | "epoch"
      | "holder"
    >
  >;

export function archivedRecord(
  facts: AttemptFacts,
  state: ArchivedAttempt["state"],
  endedAtMs: number,
  end: Partial<
    Pick<ArchivedAttempt, "state" | "failureReason" | "failureCategory">
  >,
): ArchivedAttempt {
  const {
    attemptReason,
    attemptRequestedBy,
    attemptPrevious,
    failureReason,
    failureCategory,
  } = readDetails(facts);
  return {
    attemptId: bytesToUuid(facts.attempt_id!),
    type: facts.attempt_type!,
    state,
    leaseId: bytesToUuid(facts.lease ?? facts.attempt_id!),
    epoch: facts.epoch,
    holder: facts.holder ?? 0,
    startedAtMs: facts.attempt_at!,
    endedAtMs,
    ...(failureReason === undefined ? {} : { failureReason }),
    ...(failureCategory === undefined ? {} : { failureCategory }),
    ...(attemptReason === undefined ? {} : { reason: attemptReason }),
    ...(attemptRequestedBy === undefined
      ? {}
      : { requestedBy: attemptRequestedBy }),
    ...(attemptPrevious === undefined ? {} : { previous: attemptPrevious }),
    ...end,
  };
}

/** Moves the attempt that the row points at into history; nothing where there is none. */
export function archiveAttempt(
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
  end: Partial<
    Pick<ArchivedAttempt, "state" | "failureReason" | "failureCategory">
  > = {},
  result: Uint8Array | null = null,
): void {
  if (row.attempt_id === null) return;
  const record = archivedRecord(
    row,
    attemptLifecycleOf(row),
    row.completed_at ?? nowMs,
    end,
  );
  tx.run(ARCHIVE_ATTEMPT, row.seq, row.attempt, JSON.stringify(record), result);
}

/** P5: no lease any more. The epoch stays; so do the identities of the attempt's last lease where it may go on. */
export function releaseLease(row: ExecutionRow): void {
  row.request = null;
  row.leased_at = null;
  row.renewed_at = null;
  row.lease_expires_at = null;
  row.renew_by = null;
  row.lost_at = null;
  row.timeout_at = null;
  forgetRevocation(row);
}

export function forgetRevocation(row: WithDetails): void {
  if (row.details !== null) changeDetails(row, { revokeReason: undefined });
}

/** What is left of the attempt's time when it is parked. */
export function pauseTimeout(row: ExecutionRow, nowMs: number): void {
  row.timeout_left =
    row.timeout_at === null ? null : Math.max(1, row.timeout_at - nowMs);
  row.timeout_at = null;
}

export function dropGrant(tx: Session, row: ExecutionRow): void {
  if (row.grant_until === null) return;
  row.grant_until = null;
  tx.run(DELETE_GRANT, row.seq);
}

export interface Ending {
  readonly actor: EventActor;
  readonly reason?: string | undefined;
  /** A lease taken away by someone else's hand: its holder is told. */
  readonly tellHolder?: boolean;
  readonly data?: { readonly [key: string]: JsonValue } | undefined;
}

/** P8: the one way to every end. Its event is the completion record. */
export function enterTerminal(
  tx: Session,
  row: ExecutionRow,
  outcome: Exclude<TerminalOutcome, "none">,
  nowMs: number,
  ending: Ending,
): void {
  const told =
    ending.tellHolder === true && row.lease_expires_at !== null
      ? { lease: row.lease, holder: row.holder }
      : {};
  row.home = TERMINAL_HOME[outcome];
  row.score =
    row.keep_ms === null ? nowMs : OWN_RETENTION_OFFSET + nowMs + row.keep_ms;
  row.reason = 0;
  row.attempt_state = row.attempts > 0 ? ATTEMPT_TERMINAL : ATTEMPT_NONE;
  row.completed_at = nowMs;
  row.transitioned_at = nowMs;
  row.mutated_at = nowMs;
  row.delay_until = null;
  row.holds = 0;
  row.timeout_left = null;
  releaseLease(row);
  forgetPlans(row);
  dropGrant(tx, row);
  const type: EventType = outcome === "success" ? "completed" : outcome;
  appendEvent(tx, row, type, nowMs, ending.actor, {
    ...told,
    reason: ending.reason,
    data: ending.data,
  });
}

/** Why it waited, and what would have come next. */
export function forgetPlans(row: WithDetails): void {
  if (row.details === null) return;
  changeDetails(row, {
    blockingDetail: undefined,
    blockedAtMs: undefined,
    nextReason: undefined,
    nextRequestedBy: undefined,
    nextPrevious: undefined,
  });
}

/** Ends a lost execution that was taken over too often. */
export function failAtReclaimCap(
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
): void {
  changeDetails(row, {
    failureReason: "max_reclaims_exceeded",
    failureCategory: "infra_crash",
  });
  enterTerminal(tx, row, "failed", nowMs, {
    actor: "engine",
    reason: "max_reclaims_exceeded",
  });
}

export function isAtReclaimCap(row: ExecutionRow, callCap?: number): boolean {
  return atReclaimCap(row.reclaims, row.max_reclaims ?? undefined, callCap);
}

export function eligibleScore(row: ExecutionRow): number {
  return sortKey(row.created_at, row.priority);
}

/** Wakes whoever waits for news of this execution, or for work of its lane, once the change is there to be seen. */
export function ringAfterCommit(
  store: Store,
  tx: Session,
  row: ExecutionRow,
): void {
  const { lane } = store.routes.require(row.route);
  if (isTerminalHome(row.home)) store.wakeups.ring(tx);
  // A held lease is no work for anyone, until it lapses.
  else if (row.home === HOME.active)
    store.wakeups.ring(tx, [lane], row.lease_expires_at! - row.mutated_at);
  else store.wakeups.ring(tx, [lane]);
}

export function attemptTypeOf(
  row: Readonly<Pick<ExecutionRow, "attempt_type">>,
): AttemptType {
  return ATTEMPT_TYPES[row.attempt_type ?? 0]!;
}

const DELETE_PROGRESS = `
  DELETE FROM progress
  WHERE seq = ?`;

const ARCHIVE_ATTEMPT = `
  INSERT INTO attempts (seq, attempt, record, result)
  VALUES (?, ?, ?, ?)`;

const DELETE_GRANT = `
  DELETE FROM grants
  WHERE seq = ?`;
