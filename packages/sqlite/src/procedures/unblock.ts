/** Work that no live worker can take is set aside, and comes back with the first worker that can. */
import { HOME } from "@flowfabric/core";
import {
  changeDetails,
  effectiveNow,
  EXECUTION_COLUMNS,
  type ExecutionRow,
  placeRunnable,
  reasonCode,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution, selectExecutions } from "./executions.js";
import { dropGrant, ringAfterCommit } from "./lifecycle.js";
import { appendEvent } from "./log.js";
import type { Route } from "./routes.js";

/** @returns how many went back into the order */
export function unblockRoute(
  store: Store,
  tx: Session,
  route: Route,
  nowMs: number,
  limit: number,
): number {
  const rows = selectExecutions(
    tx,
    ROWS_OF_HOME,
    route.id,
    HOME.blockedRoute,
    limit,
  );
  for (const row of rows) unblock(store, tx, row, nowMs, "engine");
  return rows.length;
}

/** Leaves a block; the caller has checked that it may. Saves the row. */
export function unblock(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
  actor: "engine" | "operator",
): void {
  const now = effectiveNow(row, nowMs);
  changeDetails(row, { blockingDetail: undefined, blockedAtMs: undefined });
  placeRunnable(row, now);
  appendEvent(tx, row, "unblocked", now, actor);
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);
}

/** @returns how many were set aside */
export function blockUncovered(
  tx: Session,
  route: Route,
  nowMs: number,
  limit: number,
): number {
  const rows = selectExecutions(
    tx,
    ROWS_OF_HOME,
    route.id,
    HOME.eligible,
    limit,
  );
  for (const row of rows) {
    const now = effectiveNow(row, nowMs);
    dropGrant(tx, row);
    row.home = HOME.blockedRoute;
    row.score = now;
    row.reason = reasonCode("waiting_for_capable_worker");
    row.transitioned_at = now;
    row.mutated_at = now;
    changeDetails(row, {
      blockingDetail: `no live worker has: ${route.required.join(",")}`,
      blockedAtMs: now,
    });
    appendEvent(tx, row, "blocked", now, "engine", {
      reason: "waiting_for_capable_worker",
    });
    saveExecution(tx, row);
  }
  return rows.length;
}

export const ROWS_OF_HOME = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ?
  ORDER BY score, id
  LIMIT ?`;
