/**
 * The steps of transitions that write more than the row: its event, and what hangs on it. Each changes the row in memory; the
 * operation saves it once, at its end. Source: specification 04 §2.
 */
import {
  HOME,
  isTerminalHome,
  type AttemptType,
  type EventActor,
  type EventType,
  type JsonValue,
  type StreamCloseReason,
  type TerminalOutcome,
} from "@flowfabric/core";
import {
  archiveOf,
  changeDetails,
  executionIdOf,
  finish,
  lapse,
  placeRunnable,
  startAttempt,
  type AttemptOver,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { appendEvent } from "./log.js";
import { closeSuspension } from "./suspensions.js";
import { closePendingWaitpoints } from "./waitpoints.js";

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
  lapse(row, nowMs);
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

/** A new attempt at the next index; earlier ones are history by now. */
export function beginAttempt(
  tx: Session,
  row: ExecutionRow,
  attemptId: Uint8Array,
  type: AttemptType,
  nowMs: number,
): void {
  startAttempt(row, attemptId, type, nowMs);
  if (type !== "initial" && row.progress_at !== null) {
    tx.run(DELETE_PROGRESS, row.seq);
    row.progress_at = null;
  }
}

/** Moves the attempt that the row points at into history; nothing where there is none. */
export function archiveAttempt(
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
  over: AttemptOver = {},
  result: Uint8Array | null = null,
): void {
  if (row.attempt_id === null) return;
  endSuspension(tx, row, "attempt_ended", nowMs);
  const record = archiveOf(row, over, nowMs);
  tx.run(ARCHIVE_ATTEMPT, row.seq, row.attempt, JSON.stringify(record), result);
}

/** The attempt is over, and with it all that waits for signals on its behalf. */
function endSuspension(
  tx: Session,
  row: ExecutionRow,
  closeReason: string,
  nowMs: number,
): void {
  if (row.waitpoints === null) return;
  if (row.home === HOME.suspended)
    closeSuspension(tx, row, { closeReason }, nowMs);
  closePendingWaitpoints(tx, row.seq, nowMs);
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
  /** Of the open suspension; default: the outcome. */
  readonly closeReason?: string;
  /** What closes the attempt's stream, where the outcome does not tell it. */
  readonly closes?: StreamCloseReason;
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
  endSuspension(tx, row, ending.closeReason ?? outcome, nowMs);
  finish(row, outcome, ending.closes, nowMs);
  dropGrant(tx, row);
  const type: EventType = outcome === "success" ? "completed" : outcome;
  appendEvent(tx, row, type, nowMs, ending.actor, {
    ...told,
    reason: ending.reason,
    data: ending.data,
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
    closes: "max_reclaims_exceeded",
  });
}

/** Wakes whoever waits for news of this execution, or for work of its lane, once the change is there to be seen. */
export function ringAfterCommit(
  store: Store,
  tx: Session,
  row: ExecutionRow,
): void {
  const { lane } = store.routes.require(row.route);
  if (row.home !== HOME.active) store.tails.ringEnded(tx, executionIdOf(row));
  if (isTerminalHome(row.home) || row.home === HOME.suspended)
    store.wakeups.ring(tx);
  // A held lease is no work for anyone, until it lapses.
  else if (row.home === HOME.active)
    store.wakeups.ring(tx, [lane], row.lease_expires_at! - row.mutated_at);
  else store.wakeups.ring(tx, [lane]);
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
