/** Reading, locking and writing the record. */
import {
  isTerminalHome,
  parseExecutionId,
  refuse,
  type ExecutionId,
  type Refusal,
} from "@flowfabric/core";
import {
  EXECUTION_COLUMNS,
  executionIdOf,
  uuidToBytes,
  type ExecutionRow,
  toExecutionRow,
} from "@flowfabric/core/sql";

import type { Session, SqlValue } from "../session.js";
import type { Store } from "../store.js";

export interface ExecutionRefArgs {
  readonly executionId: ExecutionId;
  readonly namespace?: string | undefined;
  readonly laneId?: string | undefined;
}

/** The record, or nothing where it is missing or of another namespace. */
export async function findExecution(
  store: Store,
  tx: Session,
  ref: ExecutionRefArgs,
): Promise<ExecutionRow | undefined> {
  const { partition, uuid } = parseExecutionId(ref.executionId)!;
  const row =
    tx.locked(ref.executionId) ??
    (await selectExecution(tx, FIND_EXECUTION, uuidToBytes(uuid), partition));
  if (row === undefined || ref.namespace === undefined) return row;
  return store.routes.require(row.route).namespace === ref.namespace
    ? row
    : undefined;
}

/**
 * The record, for an operation that needs one; locked in a transaction that writes.
 * @returns the refusal `execution_not_found`, or `invalid_input` where the caller named another lane
 */
export async function lockExecution(
  store: Store,
  tx: Session,
  ref: ExecutionRefArgs,
): Promise<ExecutionRow | Refusal> {
  const row = await findExecution(store, tx, ref);
  if (row === undefined) return notFound(ref.executionId);
  if (ref.laneId !== undefined) {
    const { lane } = store.routes.require(row.route);
    if (lane !== ref.laneId) {
      return refuse("invalid_input", {
        reason: `lane_mismatch: the execution is on lane '${lane}', not '${ref.laneId}'`,
        field: "laneId",
      });
    }
  }
  return row;
}

function notFound(executionId: string): Refusal {
  return refuse("execution_not_found", { entity: "execution", executionId });
}

/** Locks many by one statement, in the order of their numbers, so that no two batches wait for each other. */
export async function lockAhead(
  tx: Session,
  ids: readonly ExecutionId[],
): Promise<void> {
  if (ids.length < 2) return;
  const uuids = [...new Set(ids.map((id) => parseExecutionId(id)!.uuid))];
  for (const row of await lockedRows(tx, FIND_MANY, LOCK, [uuids]))
    tx.keepLocked(executionIdOf(row), row);
}

/** Where a statement says so, its lock stands inside it. */
export const LOCK_HERE = "/* lock */";
const LOCK = "FOR UPDATE";
const LOCK_FREE_ONES = "FOR UPDATE SKIP LOCKED";

/**
 * Rows of a statement that selects {@link EXECUTION_COLUMNS}. A transaction that writes locks them and passes over those
 * that another one holds: whoever holds them sees to them.
 */
export async function selectExecutions(
  tx: Session,
  sql: string,
  ...values: SqlValue[]
): Promise<ExecutionRow[]> {
  return await lockedRows(tx, sql, LOCK_FREE_ONES, values);
}

/** As {@link selectExecutions}, but waits for rows that others hold. */
export async function awaitExecutions(
  tx: Session,
  sql: string,
  ...values: SqlValue[]
): Promise<ExecutionRow[]> {
  return await lockedRows(tx, sql, LOCK, values);
}

export async function selectExecution(
  tx: Session,
  sql: string,
  ...values: SqlValue[]
): Promise<ExecutionRow | undefined> {
  return (await lockedRows(tx, sql, LOCK, values))[0];
}

async function lockedRows(
  tx: Session,
  sql: string,
  lock: string,
  values: SqlValue[],
): Promise<ExecutionRow[]> {
  if (!tx.locks) {
    const found = await tx.rows(sql.replaceAll(LOCK_HERE, ""), ...values);
    return found.map(toExecutionRow);
  }
  const locking = sql.includes(LOCK_HERE)
    ? sql.replaceAll(LOCK_HERE, lock)
    : `${sql}\n  ${lock}`;
  const found = await tx.rows(withClock(locking), ...values);
  for (const row of found) tx.noteTime(row.at(-1) as number);
  return found.map(toExecutionRow);
}

/** The clock is read when a row comes out, which is after its lock was waited for. */
const withClock = (locking: string) => `
  WITH locked AS MATERIALIZED (${locking}
  )
  SELECT ${EXECUTION_COLUMNS}, now_ms() AS now
  FROM locked`;

/** For statements that ask by id and partition. */
export function namedBy(executionId: ExecutionId): [string, number] {
  const { partition, uuid } = parseExecutionId(executionId)!;
  return [uuid, partition];
}

export async function readBySeq(
  tx: Session,
  seq: number,
): Promise<ExecutionRow | undefined> {
  return await selectExecution(tx, READ_BY_SEQ, seq);
}

/** Writes back every column that may change, with the others of this transaction. */
export function saveExecution(tx: Session, row: ExecutionRow): void {
  row.timer_at = isTerminalHome(row.home)
    ? null
    : earlier(row.deadline_at, row.timeout_at);
  tx.save(row);
}

function earlier(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.min(a, b);
}

export const FIND_EXECUTION = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE id = ? AND partition = ?`;

/** By the uuid alone: a copy of it in another partition is no copy of the id, and does no harm here. */
const FIND_MANY = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE id = ANY(?::UUID[])
  ORDER BY seq`;

const READ_BY_SEQ = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE seq = ?`;
