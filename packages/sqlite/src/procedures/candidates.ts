/**
 * What a claim may take, best first. One index per route holds ready work, delayed work that is due, and lost work
 * whose back-off is over. Each look is bounded, however much waits behind it.
 */
import { HOME, sortKey } from "@flowfabric/core";

import { selectExecutions } from "./executions.js";
import type { Session } from "../db.js";
import { EXECUTION_COLUMNS, type ExecutionRow } from "../rows.js";
import type { Route } from "./routes.js";

/** The best `limit` over these routes, in claim order: priority, age, id. Lost work too, unless told otherwise. */
export function findCandidates(
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
  limit: number,
  { lost = true } = {},
): ExecutionRow[] {
  const found: ExecutionRow[] = [];
  for (const { id } of routes) {
    found.push(...selectExecutions(tx, READY_CANDIDATES, id, nowMs, limit));
    if (tx.get(ANY_DUE, id, nowMs) === undefined) continue;
    found.push(...selectExecutions(tx, DUE_CANDIDATES, id, nowMs, limit));
    if (!lost) continue;
    found.push(
      ...selectExecutions(tx, LOST_CANDIDATES, id, nowMs, nowMs, limit),
    );
    found.push(
      ...selectExecutions(tx, REVOKED_CANDIDATES, id, nowMs, nowMs, limit),
    );
    found.push(...selectExecutions(tx, LAPSING_CANDIDATES, id, nowMs, limit));
  }
  // The common case came in order from one index.
  const sorted =
    routes.length === 1 && found.every((row) => row.home === HOME.eligible);
  if (!sorted) found.sort(byClaimOrder);
  return found.length > limit ? found.slice(0, limit) : found;
}

function byClaimOrder(a: ExecutionRow, b: ExecutionRow): number {
  return (
    sortKey(a.created_at, a.priority) - sortKey(b.created_at, b.priority) ||
    Buffer.compare(a.id, b.id)
  );
}

/** When something in these routes next becomes claimable by itself. */
export function nextDueAtMs(
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
): number | undefined {
  let earliest: number | undefined;
  for (const { id } of routes) {
    for (const home of [HOME.delayed, HOME.active, HOME.lapsed, HOME.revoked]) {
      const due = tx.get<{ score: number }>(NEXT_DUE, id, home, nowMs)?.score;
      if (due !== undefined && (earliest === undefined || due < earliest))
        earliest = due;
    }
    const granted =
      tx.get<{ score: number | null }>(NEXT_GRANT_END, id, nowMs)?.score ??
      undefined;
    if (granted !== undefined && (earliest === undefined || granted < earliest))
      earliest = granted;
  }
  return earliest;
}

/** Whether anything runnable waits on these routes at all. */
export function hasWaiting(tx: Session, routes: readonly Route[]): boolean {
  return routes.some(({ id }) => tx.get(ANY_WAITING, id) !== undefined);
}

/** One look that says whether the four below are worth taking; usually they are not. */
export const ANY_DUE = `
  SELECT 1
  FROM executions
  WHERE route = ? AND home IN (${HOME.delayed}, ${HOME.active}, ${HOME.lapsed}, ${HOME.revoked}) AND score <= ?
  LIMIT 1`;

export const READY_CANDIDATES = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ${HOME.eligible} AND (grant_until IS NULL OR grant_until <= ?)
  ORDER BY score, id
  LIMIT ?`;

export const DUE_CANDIDATES = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ${HOME.delayed} AND score <= ?
  ORDER BY score
  LIMIT ?`;

const lostCandidates = (home: number) => `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ${home} AND score <= ? AND holds = 0 AND (grant_until IS NULL OR grant_until <= ?)
    AND reclaims < coalesce(max_reclaims, 100)
  ORDER BY score
  LIMIT ?`;

/** Lost leases that somebody has written down. Those at their cap are the driver's to end. */
export const LOST_CANDIDATES = lostCandidates(HOME.lapsed);
export const REVOKED_CANDIDATES = lostCandidates(HOME.revoked);

/** Lost leases that nobody has written down yet; the row's own back-off is checked when it is taken. */
export const LAPSING_CANDIDATES = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ${HOME.active} AND score <= ? AND reclaims < coalesce(max_reclaims, 100)
  ORDER BY score
  LIMIT ?`;

export const NEXT_DUE = `
  SELECT score
  FROM executions
  WHERE route = ? AND home = ? AND score > ?
  ORDER BY score
  LIMIT 1`;

/** Grants stand on ready work; a few at most, at the head of their route. */
export const NEXT_GRANT_END = `
  SELECT min(grant_until) AS score
  FROM (
    SELECT grant_until
    FROM executions
    WHERE route = ? AND home = ${HOME.eligible}
    ORDER BY score, id
    LIMIT 10
  )
  WHERE grant_until > ?`;

export const ANY_WAITING = `
  SELECT 1
  FROM executions
  WHERE route = ? AND home < ${HOME.active}
  LIMIT 1`;
