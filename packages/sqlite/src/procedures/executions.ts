/** Reading and writing the record. */
import {
  engineError,
  isTerminalHome,
  parseExecutionId,
  refuse,
  type ExecutionId,
  type Refusal,
} from "@flowfabric/core";
import {
  EXECUTION_COLUMNS,
  MUTABLE_COLUMNS,
  uuidToBytes,
  type ExecutionRow,
  toExecutionRow,
} from "@flowfabric/core/sql";

import { toSavedValues } from "../rows.js";
import type { Session, SqlValue } from "../session.js";
import type { Store } from "../store.js";

export interface ExecutionRefArgs {
  readonly executionId: ExecutionId;
  readonly namespace?: string | undefined;
  readonly laneId?: string | undefined;
}

/** The record, or nothing where it is missing or of another namespace. */
export function findExecution(
  store: Store,
  tx: Session,
  ref: ExecutionRefArgs,
): ExecutionRow | undefined {
  const { partition, uuid } = parseExecutionId(ref.executionId)!;
  const row = selectExecution(tx, FIND_EXECUTION, uuidToBytes(uuid), partition);
  if (row === undefined || ref.namespace === undefined) return row;
  return store.routes.require(tx, row.route).namespace === ref.namespace
    ? row
    : undefined;
}

/**
 * The record, for an operation that needs one.
 * @returns the refusal `execution_not_found`, or `invalid_input` where the caller named another lane
 */
export function lockExecution(
  store: Store,
  tx: Session,
  ref: ExecutionRefArgs,
): ExecutionRow | Refusal {
  const row = findExecution(store, tx, ref);
  if (row === undefined) return notFound(ref.executionId);
  if (ref.laneId !== undefined) {
    const { lane } = store.routes.require(tx, row.route);
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

/** Rows of a statement that selects {@link EXECUTION_COLUMNS}. */
export function selectExecutions(
  tx: Session,
  sql: string,
  ...values: SqlValue[]
): ExecutionRow[] {
  return tx.rows(sql, ...values).map(toExecutionRow);
}

export function selectExecution(
  tx: Session,
  sql: string,
  ...values: SqlValue[]
): ExecutionRow | undefined {
  const [found] = tx.rows(sql, ...values);
  return found === undefined ? undefined : toExecutionRow(found);
}

export function readBySeq(tx: Session, seq: number): ExecutionRow | undefined {
  return selectExecution(tx, READ_BY_SEQ, seq);
}

/** Writes back every column that may change; one row, two index entries at most. */
export function saveExecution(tx: Session, row: ExecutionRow): void {
  row.timer_at = isTerminalHome(row.home)
    ? null
    : earlier(row.deadline_at, row.timeout_at);
  if (tx.run(SAVE_EXECUTION, ...toSavedValues(row)) !== 1) {
    throw engineError("invariant_violation", {
      what: `execution ${row.seq} vanished inside its own transaction`,
    });
  }
}

function earlier(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.min(a, b);
}

export const FIND_EXECUTION = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE id = ? AND partition = ?`;

export const READ_BY_SEQ = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE seq = ?`;

export const SAVE_EXECUTION = `
  UPDATE executions
  SET ${MUTABLE_COLUMNS.map((column) => `${column} = ?`).join(", ")}
  WHERE seq = ?`;
