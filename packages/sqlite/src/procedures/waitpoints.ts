/** Records of waitpoints. One takes signals while it is pending or active; each way out of that is here. */
import type { ExecutionRow, WaitpointRow } from "@flowfabric/core/sql";
import { uuidToBytes, waitpointStateCode } from "@flowfabric/core/sql";

import type { Session } from "../session.js";

const PENDING = waitpointStateCode("pending");
const ACTIVE = waitpointStateCode("active");
const CLOSED = waitpointStateCode("closed");
const EXPIRED = waitpointStateCode("expired");

export function findWaitpoint(
  tx: Session,
  row: ExecutionRow,
  waitpointId: string,
): WaitpointRow | undefined {
  if (row.waitpoints === null) return undefined;
  return tx.get<WaitpointRow>(
    FIND_WAITPOINT,
    row.seq,
    uuidToBytes(waitpointId),
  );
}

/** How many take signals at this instant. */
export function countOpenWaitpoints(
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
): number {
  if (row.waitpoints === null) return 0;
  return tx.get<{ open: number }>(COUNT_OPEN, row.seq, nowMs)!.open;
}

/** In the order of their ids. */
export function listOpenWaitpoints(
  tx: Session,
  row: ExecutionRow,
  after: string | undefined,
  nowMs: number,
  limit: number,
): WaitpointRow[] {
  return tx.all<WaitpointRow>(
    LIST_OPEN,
    row.seq,
    after === undefined ? NO_BYTES : uuidToBytes(after),
    nowMs,
    limit,
  );
}

const NO_BYTES = new Uint8Array();

export interface NewWaitpoint {
  readonly waitpointId: string;
  readonly waitpointKey: string;
  readonly kid: string;
  readonly expiresAtMs: number | null;
  /** Active from the start, under this suspension. */
  readonly suspension?: Uint8Array;
}

/** Counts it on the row; the caller saves the row. */
export function insertWaitpoint(
  tx: Session,
  row: ExecutionRow,
  waitpoint: NewWaitpoint,
  nowMs: number,
): void {
  const { suspension } = waitpoint;
  row.waitpoints = (row.waitpoints ?? 0) + 1;
  tx.run(
    INSERT_WAITPOINT,
    row.seq,
    uuidToBytes(waitpoint.waitpointId),
    row.attempt,
    suspension === undefined ? PENDING : ACTIVE,
    waitpoint.waitpointKey,
    waitpoint.kid,
    nowMs,
    suspension === undefined ? null : nowMs,
    waitpoint.expiresAtMs,
    suspension ?? null,
  );
}

/** A pending one becomes part of a suspension; token and creation time stay. */
export function activateWaitpoint(
  tx: Session,
  { seq, id }: WaitpointRow,
  suspension: Uint8Array,
  expiresAtMs: number | null,
  matched: number,
  nowMs: number,
): void {
  tx.run(ACTIVATE, nowMs, expiresAtMs, suspension, matched, seq, id);
}

export function closeWaitpoint(
  tx: Session,
  { seq, id }: WaitpointRow,
  reason: string,
  nowMs: number,
): void {
  tx.run(CLOSE_ONE, CLOSED, nowMs, reason, seq, id);
}

/** Nobody used it in its time. */
export function expireWaitpoint(
  tx: Session,
  { seq, id }: WaitpointRow,
  nowMs: number,
): void {
  tx.run(CLOSE_ONE, EXPIRED, nowMs, "never_committed", seq, id);
}

/** Those of the suspension that ends; pending ones stay, for their attempt goes on. */
export function closeActiveWaitpoints(
  tx: Session,
  seq: number,
  reason: string,
  nowMs: number,
): void {
  tx.run(CLOSE_ACTIVE, nowMs, reason, seq);
}

/** The attempt that they were made for is over. */
export function closePendingWaitpoints(
  tx: Session,
  seq: number,
  nowMs: number,
): void {
  tx.run(CLOSE_PENDING, nowMs, seq);
}

/** After an escalation they take signals without an end. */
export function unlimitActiveWaitpoints(tx: Session, seq: number): void {
  tx.run(UNLIMIT_ACTIVE, seq);
}

export function countSignal(
  tx: Session,
  { seq, id }: WaitpointRow,
  matched: boolean,
  nowMs: number,
): void {
  tx.run(COUNT_SIGNAL, matched ? 1 : 0, nowMs, seq, id);
}

const COLUMNS =
  "seq, id, attempt, state, waitpoint_key, kid, created_at, activated_at, expires_at, suspension, signals, matched, last_signal_at";
/** By name: the primary key finds them too, behind all that an execution has closed. */
const OPEN = "state < 2";

export const FIND_WAITPOINT = `
  SELECT ${COLUMNS}
  FROM waitpoints
  WHERE seq = ? AND id = ?`;

const STILL_OPEN = `${OPEN} AND (state = ${ACTIVE} OR expires_at > ?)`;

export const COUNT_OPEN = `
  SELECT count(*) AS open
  FROM waitpoints INDEXED BY waitpoints_open
  WHERE seq = ? AND ${STILL_OPEN}`;

export const LIST_OPEN = `
  SELECT ${COLUMNS}
  FROM waitpoints INDEXED BY waitpoints_open
  WHERE seq = ? AND id > ? AND ${STILL_OPEN}
  ORDER BY id
  LIMIT ?`;

const INSERT_WAITPOINT = `
  INSERT INTO waitpoints
    (seq, id, attempt, state, waitpoint_key, kid, created_at, activated_at, expires_at, suspension)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;

const ACTIVATE = `
  UPDATE waitpoints
  SET state = ${ACTIVE}, activated_at = ?, expires_at = ?, suspension = ?, matched = ?
  WHERE seq = ? AND id = ?`;

const CLOSE_ONE = `
  UPDATE waitpoints
  SET state = ?, closed_at = ?, close_reason = ?
  WHERE seq = ? AND id = ?`;

export const CLOSE_ACTIVE = `
  UPDATE waitpoints INDEXED BY waitpoints_open
  SET state = ${CLOSED}, closed_at = ?, close_reason = ?
  WHERE seq = ? AND ${OPEN} AND state = ${ACTIVE}`;

export const CLOSE_PENDING = `
  UPDATE waitpoints INDEXED BY waitpoints_open
  SET state = ${CLOSED}, closed_at = ?, close_reason = 'attempt_ended'
  WHERE seq = ? AND ${OPEN} AND state = ${PENDING}`;

const UNLIMIT_ACTIVE = `
  UPDATE waitpoints INDEXED BY waitpoints_open
  SET expires_at = NULL
  WHERE seq = ? AND ${OPEN} AND state = ${ACTIVE}`;

const COUNT_SIGNAL = `
  UPDATE waitpoints
  SET signals = signals + 1, matched = matched + ?, last_signal_at = ?
  WHERE seq = ? AND id = ?`;

export const DUE_PENDING = `
  SELECT ${COLUMNS}
  FROM waitpoints
  WHERE state = ${PENDING} AND expires_at <= ?
  ORDER BY expires_at
  LIMIT ?`;

export const NEXT_PENDING = `
  SELECT min(expires_at) AS due
  FROM waitpoints
  WHERE state = ${PENDING}`;
