/** A failed or timed-out attempt: another try, or the end. */
import {
  retryAtMs,
  type EventActor,
  type FailResult,
  type FailureClass,
  type StreamCloseReason,
} from "@flowfabric/core";
import {
  attemptStateCode,
  changeDetails,
  type ExecutionRow,
  placeRunnable,
  releaseLease,
  type WithDetails,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution } from "./executions.js";
import { archiveAttempt, enterTerminal, ringAfterCommit } from "./lifecycle.js";
import { appendEvent } from "./log.js";
import { readPolicy } from "./policy.js";

export interface Failure {
  readonly message: string;
  readonly category: string;
  readonly classification: FailureClass;
  readonly actor: EventActor;
  /** What closes the attempt's stream where a retry follows; default `attempt_failure`. */
  readonly closes?: StreamCloseReason;
}

/** Ends the running attempt as failed; the fence was checked. Saves the row. */
export async function failAttempt(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  failure: Failure,
  nowMs: number,
): Promise<FailResult> {
  const delayUntilMs = await retryTime(tx, row, failure, nowMs);
  if (delayUntilMs === undefined) {
    noteFailure(row, failure);
    enterTerminal(tx, row, "failed", nowMs, {
      actor: failure.actor,
      reason: failure.category,
    });
    saveExecution(tx, row);
    ringAfterCommit(store, tx, row);
    return { kind: "terminalFailed" };
  }
  scheduleRetry(store, tx, row, failure, delayUntilMs, nowMs);
  return { kind: "retryScheduled", delayUntilMs };
}

export function noteFailure(row: WithDetails, failure: Failure): void {
  changeDetails(row, {
    failureReason: failure.message,
    failureCategory: failure.category,
  });
}

/** Lineage of the attempt that comes next. */
export function noteRetry(
  row: WithDetails,
  failure: Failure,
  attempt: number,
): void {
  noteFailure(row, failure);
  changeDetails(row, { nextReason: failure.message, nextPrevious: attempt });
}

export async function retryTime(
  tx: Session,
  row: ExecutionRow,
  failure: Failure,
  nowMs: number,
): Promise<number | undefined> {
  return retryAtMs(await readPolicy(tx, row), {
    classification: failure.classification,
    category: failure.category,
    retryCount: row.retries,
    nowMs,
    deadlineAtMs: row.deadline_at ?? undefined,
  });
}

/** The attempt is over, its successor begins with the next claim. Saves the row. */
export function scheduleRetry(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  failure: Failure,
  delayUntilMs: number,
  nowMs: number,
  tellHolder = false,
): void {
  const told = tellHolder ? { lease: row.lease, holder: row.holder } : {};
  archiveAttempt(tx, row, nowMs, {
    state: "ended_failure",
    failureReason: failure.message,
    failureCategory: failure.category,
    closes: failure.closes ?? "attempt_failure",
  });
  noteRetry(row, failure, row.attempt);
  releaseLease(row);
  row.attempt_id = null;
  row.attempt_state = attemptStateCode("pending_retry_attempt");
  row.retries++;
  row.delay_until = delayUntilMs;
  placeRunnable(row, nowMs, "waiting_for_retry_backoff");
  appendEvent(tx, row, "retry_scheduled", nowMs, failure.actor, {
    ...told,
    reason: failure.category,
    data: { delayUntilMs },
  });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);
}
