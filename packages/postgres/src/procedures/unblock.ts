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
import { LOCK_HERE, saveExecution, selectExecutions } from "./executions.js";
import { dropGrant, ringAfterCommit } from "./lifecycle.js";
import { appendEvent } from "./log.js";
import type { Route } from "./routes.js";

/** @returns how many went back into the order */
export async function unblockRoutes(
  store: Store,
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
  limit: number,
): Promise<number> {
  if (routes.length === 0 || limit <= 0) return 0;
  const rows = await selectExecutions(
    tx,
    ROWS_OF_HOME,
    routes.map(({ id }) => id),
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
export async function blockUncovered(
  store: Store,
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
  limit: number,
): Promise<number> {
  if (routes.length === 0 || limit <= 0) return 0;
  const rows = await selectExecutions(
    tx,
    ROWS_OF_HOME,
    routes.map(({ id }) => id),
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
    const route = store.routes.require(row.route);
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

const ROWS_OF_HOME = `
  WITH given AS (
    SELECT ?::BIGINT[] AS routes, ?::SMALLINT AS home, ?::BIGINT AS most
  )
  SELECT waiting.*
  FROM given, unnest(given.routes) AS wanted (id), LATERAL (
    SELECT ${EXECUTION_COLUMNS}
    FROM executions
    WHERE route = wanted.id AND home = given.home
    ORDER BY score, id
    LIMIT (SELECT most FROM given)
    ${LOCK_HERE}
  ) AS waiting
  LIMIT (SELECT most FROM given)`;
