/** The record of an execution's last suspension, and the receipts that repeated calls are answered from. */
import { HOME, type ResumeTrigger } from "@flowfabric/core";
import {
  isReceiptOf,
  readReceipt,
  replayValues,
  SUSPENSION_COLUMNS,
  suspensionValues,
  waitpointStateCode,
  type BufferedSignalRow,
  type ExecutionRow,
  type Suspending,
  type SuspendReceipt,
  type SuspensionRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";

/** Open or closed. */
export async function readSuspension(
  tx: Session,
  row: ExecutionRow,
): Promise<SuspensionRow | undefined> {
  if (row.waitpoints === null) return undefined;
  return (await tx.all<SuspensionRow>(READ_SUSPENSIONS, [row.seq]))[0];
}

export async function readOpenSuspension(
  tx: Session,
  row: ExecutionRow,
): Promise<SuspensionRow | undefined> {
  return (await readOpenSuspensions(tx, [row])).get(row.seq);
}

/** Those of all suspended ones among these, by the number of the execution. */
export async function readOpenSuspensions(
  tx: Session,
  rows: readonly ExecutionRow[],
): Promise<Map<number, SuspensionRow>> {
  const suspended = rows.filter(({ home }) => home === HOME.suspended);
  if (suspended.length === 0) return new Map();
  const found = await tx.all<SuspensionRow>(
    READ_SUSPENSIONS,
    suspended.map(({ seq }) => seq),
  );
  return new Map(
    found
      .filter(({ closed_at: closedAt }) => closedAt === null)
      .map((suspension) => [suspension.seq, suspension]),
  );
}

/** Takes the place of the one before. */
export function writeSuspension(
  tx: Session,
  row: ExecutionRow,
  suspending: Suspending<BufferedSignalRow>,
): void {
  tx.run(WRITE_SUSPENSION, ...suspensionValues(row, suspending));
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
    row.seq,
    nowMs,
    closeReason,
    trigger ?? null,
    closer ?? null,
  );
}

/** An escalated suspension waits on, without a timeout. */
export function clearTimeoutOf(tx: Session, row: ExecutionRow): void {
  tx.run(CLEAR_TIMEOUT, row.seq);
}

/** Of an earlier call with this key, or of the last suspension where the id is its own; by the same lease only. */
export async function findReceipt(
  tx: Session,
  row: ExecutionRow,
  repeat: {
    readonly suspensionId: string;
    readonly idempotencyKey?: string | undefined;
  },
  fence: Parameters<typeof isReceiptOf>[1],
  nowMs: number,
): Promise<SuspendReceipt | undefined> {
  if (row.waitpoints === null) return undefined;
  const key = repeat.idempotencyKey ?? "";
  const [keyed, last] = await Promise.all([
    key === ""
      ? undefined
      : tx.get<{ receipt: string }>(FIND_REPLAY, row.seq, key, nowMs),
    readSuspension(tx, row),
  ]);
  if (keyed !== undefined) {
    const receipt = readReceipt(keyed.receipt);
    if (isReceiptOf(receipt, fence)) return receipt;
  }
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
export async function suspendedUnder(
  tx: Session,
  row: ExecutionRow,
  leaseEpoch: number,
): Promise<boolean> {
  const last = await readSuspension(tx, row);
  if (last === undefined) return false;
  const receipt = readReceipt(last.receipt);
  return receipt.outcome === "suspended" && receipt.leaseEpoch === leaseEpoch;
}

const COLUMNS =
  "seq, id, attempt, receipt, reason, created_at, timeout_at, timeout_behavior, condition, policy, progress, closed_at, resume_trigger";

const READ_SUSPENSIONS = `
  SELECT ${COLUMNS}
  FROM suspensions
  WHERE seq = ANY(?::BIGINT[])`;

const WRITE_SUSPENSION = `
  INSERT INTO suspensions (${SUSPENSION_COLUMNS.join(", ")})
  VALUES (${SUSPENSION_COLUMNS.map(() => "?").join(", ")})
  ON CONFLICT (seq) DO UPDATE
  SET ${SUSPENSION_COLUMNS.slice(1)
    .map((column) => `${column} = excluded.${column}`)
    .join(", ")}`;

/** Pending waitpoints stay, for their attempt goes on. */
const CLOSE_SUSPENSION = `
  WITH given AS (
    SELECT ?::BIGINT AS seq, ?::BIGINT AS at, ?::TEXT AS reason, ?::TEXT AS resume_trigger, ?::UUID AS closer
  ), closed AS (
    UPDATE suspensions AS s
    SET closed_at = given.at, close_reason = given.reason, resume_trigger = given.resume_trigger, closer = given.closer
    FROM given
    WHERE s.seq = given.seq
  ), forgotten AS (
    DELETE FROM signal_sources
    USING given
    WHERE signal_sources.seq = given.seq
  )
  UPDATE waitpoints AS w
  SET state = ${waitpointStateCode("closed")}, closed_at = given.at, close_reason = given.reason
  FROM given
  WHERE w.seq = given.seq AND w.state < 2 AND w.state = ${waitpointStateCode("active")}`;

const CLEAR_TIMEOUT = `
  UPDATE suspensions
  SET timeout_at = NULL, reason = 'waiting_for_operator_review'
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
