/** The record of an execution's last suspension, and the receipts that repeated calls are answered from. */
import type { LeafProgress, ResumeTrigger } from "@flowfabric/core";
import {
  isReceiptOf,
  readReceipt,
  replayValues,
  SUSPENSION_COLUMNS,
  suspensionValues,
  type BufferedSignalRow,
  type ExecutionRow,
  type Suspending,
  type SuspendReceipt,
  type SuspensionRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import { closeActiveWaitpoints } from "./waitpoints.js";

/** Open or closed. */
export function readSuspension(
  tx: Session,
  row: ExecutionRow,
): SuspensionRow | undefined {
  if (row.waitpoints === null) return undefined;
  return tx.get<SuspensionRow>(READ_SUSPENSION, row.seq);
}

export function readOpenSuspension(
  tx: Session,
  row: ExecutionRow,
): SuspensionRow | undefined {
  const suspension = readSuspension(tx, row);
  return suspension?.closed_at === null ? suspension : undefined;
}

/** Takes the place of the one before. */
export function writeSuspension(
  tx: Session,
  row: ExecutionRow,
  suspending: Suspending<BufferedSignalRow>,
): void {
  tx.run(WRITE_SUSPENSION, ...suspensionValues(row, suspending));
}

export function saveProgress(
  tx: Session,
  row: ExecutionRow,
  progress: readonly LeafProgress[],
): void {
  tx.run(SAVE_PROGRESS, JSON.stringify(progress), row.seq);
}

export interface SuspensionEnd {
  readonly closeReason: string;
  readonly trigger?: ResumeTrigger;
  readonly closer?: Uint8Array;
}

/** With its waitpoints, and what it needed to know of sources. */
export function closeSuspension(
  tx: Session,
  row: ExecutionRow,
  { closeReason, trigger, closer }: SuspensionEnd,
  nowMs: number,
): void {
  tx.run(
    CLOSE_SUSPENSION,
    nowMs,
    closeReason,
    trigger ?? null,
    closer ?? null,
    row.seq,
  );
  closeActiveWaitpoints(tx, row.seq, closeReason, nowMs);
  tx.run(DELETE_SOURCES, row.seq);
}

/** An escalated suspension waits on, without a timeout. */
export function clearTimeoutOf(tx: Session, row: ExecutionRow): void {
  tx.run(CLEAR_TIMEOUT, row.seq);
}

/** Of an earlier call with this key, or of the last suspension where the id is its own; by the same lease only. */
export function findReceipt(
  tx: Session,
  row: ExecutionRow,
  repeat: {
    readonly suspensionId: string;
    readonly idempotencyKey?: string | undefined;
  },
  fence: Parameters<typeof isReceiptOf>[1],
  nowMs: number,
): SuspendReceipt | undefined {
  if (row.waitpoints === null) return undefined;
  const key = repeat.idempotencyKey ?? "";
  const keyed =
    key === ""
      ? undefined
      : tx.get<{ receipt: string }>(FIND_REPLAY, row.seq, key, nowMs);
  if (keyed !== undefined) {
    const receipt = readReceipt(keyed.receipt);
    if (isReceiptOf(receipt, fence)) return receipt;
  }
  const last = readSuspension(tx, row);
  if (last === undefined) return undefined;
  const receipt = readReceipt(last.receipt);
  return receipt.suspensionId === repeat.suspensionId &&
    isReceiptOf(receipt, fence)
    ? receipt
    : undefined;
}

export function rememberReceipt(
  tx: Session,
  row: ExecutionRow,
  suspending: Suspending<BufferedSignalRow>,
): void {
  const values = replayValues(row, suspending);
  if (values !== undefined) tx.run(REMEMBER_REPLAY, ...values);
}

/** Whether the lease of this epoch ended by suspending. */
export function suspendedUnder(
  tx: Session,
  row: ExecutionRow,
  leaseEpoch: number,
): boolean {
  const last = readSuspension(tx, row);
  if (last === undefined) return false;
  const receipt = readReceipt(last.receipt);
  return receipt.outcome === "suspended" && receipt.leaseEpoch === leaseEpoch;
}

export const READ_SUSPENSION = `
  SELECT seq, id, attempt, receipt, reason, created_at, timeout_at, timeout_behavior, condition, policy, progress,
    closed_at, resume_trigger
  FROM suspensions
  WHERE seq = ?`;

const WRITE_SUSPENSION = `
  INSERT OR REPLACE INTO suspensions (${SUSPENSION_COLUMNS.join(", ")})
  VALUES (${SUSPENSION_COLUMNS.map(() => "?").join(", ")})`;

const SAVE_PROGRESS = `
  UPDATE suspensions
  SET progress = ?
  WHERE seq = ?`;

const CLOSE_SUSPENSION = `
  UPDATE suspensions
  SET closed_at = ?, close_reason = ?, resume_trigger = ?, closer = ?
  WHERE seq = ?`;

const CLEAR_TIMEOUT = `
  UPDATE suspensions
  SET timeout_at = NULL, reason = 'waiting_for_operator_review'
  WHERE seq = ?`;

const DELETE_SOURCES = `
  DELETE FROM signal_sources
  WHERE seq = ?`;

const FIND_REPLAY = `
  SELECT receipt
  FROM suspend_replays
  WHERE seq = ? AND replay_key = ? AND expires_at > ?`;

/** Takes the place of one whose time is over, or that another lease left. */
const REMEMBER_REPLAY = `
  INSERT INTO suspend_replays (seq, replay_key, receipt, expires_at)
  VALUES (?, ?, ?, ?)
  ON CONFLICT (seq, replay_key) DO UPDATE
  SET receipt = excluded.receipt, expires_at = excluded.expires_at`;
