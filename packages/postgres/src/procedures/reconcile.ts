/**
 * Holds every index entry against its record. On Postgres an index cannot miss a row, but a score, a timer or a tag row
 * can be wrong where something other than this library wrote to the tables.
 */
import { HOME, HOMES, isTerminalHome } from "@flowfabric/core";
import {
  eligibleScore,
  EXECUTION_COLUMNS,
  type ExecutionRow,
  OWN_RETENTION_OFFSET,
  readTags,
  type SuspensionRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution, selectExecutions } from "./executions.js";
import { readOpenSuspensions } from "./suspensions.js";

export interface ReconcileResult {
  readonly processed: number;
  readonly errors: number;
  readonly more: boolean;
}

/** One page from the cursor on, which moves behind it and begins anew at the end. */
export async function reconcilePage(
  _store: Store,
  tx: Session,
  cursor: { seq: number },
  limit: number,
  partition?: number,
): Promise<ReconcileResult> {
  let processed = 0;
  let errors = 0;
  const rows = await selectExecutions(
    tx,
    PAGE,
    cursor.seq,
    partition ?? null,
    limit,
  );
  const suspensions = await readOpenSuspensions(tx, rows);
  for (const row of rows) {
    try {
      processed += await repair(tx, row, suspensions.get(row.seq));
    } catch {
      errors++;
    }
  }
  const more = rows.length === limit;
  cursor.seq = more ? rows.at(-1)!.seq : 0;
  return { processed, errors, more };
}

async function repair(
  tx: Session,
  row: ExecutionRow,
  suspension: SuspensionRow | undefined,
): Promise<number> {
  if (!(row.home in HOMES)) throw new Error(`unknown home ${row.home}`);
  let repairs = 0;
  const score = suspension?.created_at ?? expectedScore(row);
  const timeoutAt =
    suspension === undefined ? row.timeout_at : suspension.timeout_at;
  const timerAt = isTerminalHome(row.home)
    ? null
    : earliest(row.deadline_at, timeoutAt);
  if (
    (score !== undefined && score !== row.score) ||
    timerAt !== row.timer_at
  ) {
    row.score = score ?? row.score;
    row.timeout_at = timeoutAt;
    saveExecution(tx, row);
    repairs++;
  }
  for (const [key, value] of Object.entries(readTags(row.tags)))
    repairs += await tx.change(
      ENSURE_TAG,
      key,
      value,
      row.created_at,
      row.id,
      row.seq,
    );
  return repairs;
}

/** Where the record alone decides the score; blocked and lost homes keep the time they were entered at. */
function expectedScore(row: ExecutionRow): number | undefined {
  switch (row.home) {
    case HOME.eligible:
      return eligibleScore(row);
    case HOME.delayed:
      return row.delay_until ?? 0;
    case HOME.active:
      return row.lease_expires_at ?? 0;
    default:
      if (!isTerminalHome(row.home)) return undefined;
      return row.keep_ms === null
        ? row.completed_at!
        : OWN_RETENTION_OFFSET + row.completed_at! + row.keep_ms;
  }
}

function earliest(a: number | null, b: number | null): number | null {
  if (a === null || b === null) return a ?? b;
  return Math.min(a, b);
}

const PAGE = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE seq > ? AND partition = coalesce(?, partition)
  ORDER BY seq
  LIMIT ?`;

const ENSURE_TAG = `
  INSERT INTO tags (tag_key, tag_value, created_at, id, seq)
  VALUES (?, ?, ?, ?, ?)
  ON CONFLICT DO NOTHING`;
