/**
 * What the steps of a transition change in the row of an execution: finding a home, taking and releasing a lease, parking.
 * The stores write the row, its event and what hangs on it. Source: specification 04 §2.
 */
import { HOLD, readDetails } from "../records/executions.js";
import { enterRunnable } from "../rules/home.js";
import { reclaimBackoffMs, sortKey } from "../rules/order.js";
import { atReclaimCap } from "../rules/reclaim.js";
import type { AttemptType } from "../snapshots.js";
import {
  ATTEMPT_STATES,
  BLOCKING_REASONS,
  HOME,
  TERMINAL_HOME,
  type BlockingReason,
  type TerminalOutcome,
} from "../state.js";
import type { StreamCloseReason } from "../streams.js";
import { closeAttempt } from "./attempts.js";
import {
  attemptStateCode,
  attemptTypeCode,
  changeDetails,
  reasonCode,
  type ExecutionRow,
  type WithDetails,
} from "./rows.js";

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

export function isAtReclaimCap(row: ExecutionRow, callCap?: number): boolean {
  return atReclaimCap(row.reclaims, row.max_reclaims ?? undefined, callCap);
}

export function eligibleScore(row: ExecutionRow): number {
  return sortKey(row.created_at, row.priority);
}

/** P3: the lease stays visible; the next offer waits for its back-off. */
export function lapse(row: ExecutionRow, nowMs: number): void {
  const lostAtMs = Math.min(row.lease_expires_at!, nowMs);
  row.home = HOME.lapsed;
  row.score = lostAtMs + reclaimBackoffMs(row.reclaims);
  row.reason = reasonCode("waiting_for_worker");
  row.attempt_state = INTERRUPTED;
  row.lost_at = nowMs;
  row.transitioned_at = nowMs;
  row.mutated_at = nowMs;
}

/** A new attempt at the next index; earlier ones are history by now. */
export function startAttempt(
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
  const { nextReason, nextRequestedBy, nextPrevious } = readDetails(
    row.details,
  );
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
}

/** P8: the way into every end. */
export function finish(
  row: ExecutionRow,
  outcome: Exclude<TerminalOutcome, "none">,
  closes: StreamCloseReason | undefined,
  nowMs: number,
): void {
  const closed = closeAttempt(row, closes, nowMs);
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
  if (closed !== undefined) changeDetails(row, { ...closed });
}
