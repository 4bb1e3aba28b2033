/** Records of waitpoints. One takes signals while it is pending or active; each way out of that is here. */
import type { ExecutionRow, WaitpointRow } from "@flowfabric/core/sql";
import { uuidToBytes, waitpointStateCode } from "@flowfabric/core/sql";

import type { Session } from "../session.js";

const PENDING = waitpointStateCode("pending");
const ACTIVE = waitpointStateCode("active");
const CLOSED = waitpointStateCode("closed");
const EXPIRED = waitpointStateCode("expired");

export async function findWaitpoint(
  tx: Session,
  row: ExecutionRow,
  waitpointId: string,
): Promise<WaitpointRow | undefined> {
  return (await findWaitpoints(tx, row, [waitpointId]))[0];
}

/** Those of these that there are, in no order. */
export async function findWaitpoints(
  tx: Session,
  row: ExecutionRow,
  waitpointIds: readonly string[],
): Promise<WaitpointRow[]> {
  if (row.waitpoints === null) return [];
  return await tx.all<WaitpointRow>(FIND_WAITPOINTS, row.seq, waitpointIds);
}

/** How many take signals at this instant. */
export async function countOpenWaitpoints(
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
): Promise<number> {
  if (row.waitpoints === null) return 0;
  return (await tx.get<{ open: number }>(COUNT_OPEN, row.seq, nowMs))!.open;
}

/** In the order of their ids. */
export async function listOpenWaitpoints(
  tx: Session,
  row: ExecutionRow,
  after: string | undefined,
  nowMs: number,
  limit: number,
): Promise<WaitpointRow[]> {
  return await tx.all<WaitpointRow>(
    LIST_OPEN,
    row.seq,
    after ?? BEFORE_ALL,
    nowMs,
    limit,
  );
}

/** No waitpoint has this id. */
const BEFORE_ALL = "00000000-0000-0000-0000-000000000000";

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
  { suspension, ...waitpoint }: NewWaitpoint,
  nowMs: number,
): WaitpointRow {
  row.waitpoints = (row.waitpoints ?? 0) + 1;
  const written: WaitpointRow = {
    seq: row.seq,
    id: uuidToBytes(waitpoint.waitpointId),
    attempt: row.attempt,
    state: suspension === undefined ? PENDING : ACTIVE,
    waitpoint_key: waitpoint.waitpointKey,
    kid: waitpoint.kid,
    created_at: nowMs,
    activated_at: suspension === undefined ? null : nowMs,
    expires_at: waitpoint.expiresAtMs,
    suspension: suspension ?? null,
    signals: 0,
    matched: 0,
    last_signal_at: null,
  };
  tx.run(
    INSERT_WAITPOINT,
    written.seq,
    written.id,
    written.attempt,
    written.state,
    written.waitpoint_key,
    written.kid,
    written.created_at,
    written.activated_at,
    written.expires_at,
    written.suspension,
  );
  return written;
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

/** Up to `limit` of any executions. @returns how many */
export async function expireDueWaitpoints(
  tx: Session,
  nowMs: number,
  limit: number,
): Promise<number> {
  return await tx.change(EXPIRE_DUE, nowMs, limit);
}

/** When the next pending one is over. */
export async function nextPendingExpiryAtMs(
  tx: Session,
): Promise<number | undefined> {
  return (await tx.get<{ due: number }>(NEXT_PENDING))?.due;
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

const COLUMNS =
  "seq, id, attempt, state, waitpoint_key, kid, created_at, activated_at, expires_at, suspension, signals, matched, last_signal_at";

const FIND_WAITPOINTS = `
  SELECT ${COLUMNS}
  FROM waitpoints
  WHERE seq = ? AND id = ANY(?::UUID[])`;

/** The first condition is that of the index. */
const STILL_OPEN = `state < 2 AND (state = ${ACTIVE} OR expires_at > ?)`;

const COUNT_OPEN = `
  SELECT count(*) AS open
  FROM waitpoints
  WHERE seq = ? AND ${STILL_OPEN}`;

const LIST_OPEN = `
  SELECT ${COLUMNS}
  FROM waitpoints
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

const CLOSE_PENDING = `
  UPDATE waitpoints
  SET state = ${CLOSED}, closed_at = ?, close_reason = 'attempt_ended'
  WHERE seq = ? AND state < 2 AND state = ${PENDING}`;

const UNLIMIT_ACTIVE = `
  UPDATE waitpoints
  SET expires_at = NULL
  WHERE seq = ? AND state < 2 AND state = ${ACTIVE}`;

/** One whose execution somebody else is changing is left for later. */
const EXPIRE_DUE = `
  WITH given AS (
    SELECT ?::BIGINT AS now, ?::INTEGER AS most
  ), due AS MATERIALIZED (
    SELECT seq, id
    FROM waitpoints
    WHERE state = ${PENDING} AND expires_at <= (SELECT now FROM given)
    ORDER BY expires_at
    LIMIT (SELECT most FROM given)
  ), owner AS MATERIALIZED (
    SELECT seq
    FROM executions
    WHERE seq IN (SELECT seq FROM due)
    FOR UPDATE SKIP LOCKED
  )
  UPDATE waitpoints AS w
  SET state = ${EXPIRED}, closed_at = given.now, close_reason = 'never_committed'
  FROM given, due
  JOIN owner USING (seq)
  WHERE w.seq = due.seq AND w.id = due.id AND w.state = ${PENDING} AND w.expires_at <= given.now`;

const NEXT_PENDING = `
  SELECT expires_at AS due
  FROM waitpoints
  WHERE state = ${PENDING}
  ORDER BY expires_at
  LIMIT 1`;
