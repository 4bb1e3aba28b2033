/**
 * What a claim may take, best first. One index per route holds ready work, delayed work that is due, and lost work
 * whose back-off is over. Each look is bounded, however much waits behind it.
 */
import { HOME, PRIORITY_STEP_MS, sortKey } from "@flowfabric/core";
import {
  EXECUTION_COLUMNS,
  executionIdOf,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import type { Session, SqlValue } from "../session.js";
import { selectExecutions } from "./executions.js";
import type { Route } from "./routes.js";

/** The best `limit` over these routes, in claim order: priority, age, id. */
export function findCandidates(
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
  limit: number,
): ExecutionRow[] {
  const found: ExecutionRow[] = [];
  for (const { id } of routes) {
    const take = (sql: string, ...values: SqlValue[]) =>
      found.push(...selectExecutions(tx, sql, id, nowMs, ...values, limit));
    take(READY_CANDIDATES, nowMs);
    if (tx.get(ANY_DUE, id, nowMs) === undefined) continue;
    take(DUE_CANDIDATES, nowMs);
    take(LOST_CANDIDATES, nowMs, nowMs);
    take(REVOKED_CANDIDATES, nowMs, nowMs);
    take(LAPSING_CANDIDATES, nowMs);
  }
  return inOrder(found, routes.length, limit);
}

/**
 * Of each lane the best, as many as a claim of `wanted` may take that serves these lanes in turn. Lanes are asked for one
 * first, and deeper only where those with work do not suffice: a hundred lanes cost a look each, not all of them all that
 * is wanted.
 */
export function findByLane(
  tx: Session,
  lanes: readonly (readonly Route[])[],
  nowMs: number,
  wanted: number,
  passedOver: ReadonlySet<string>,
): ExecutionRow[][] {
  const look = (routes: readonly Route[], limit: number) =>
    findCandidates(tx, routes, nowMs, limit + passedOver.size).filter(
      (row) => passedOver.size === 0 || !passedOver.has(executionIdOf(row)),
    );
  if (lanes.length === 1) return [look(lanes[0]!, wanted)];
  const busy: (readonly Route[])[] = [];
  const best: ExecutionRow[][] = [];
  for (const routes of lanes) {
    const [first] = look(routes, 1);
    if (first === undefined) continue;
    busy.push(routes);
    best.push([first]);
    if (best.length === wanted) return best;
  }
  // Each of the others gives one at least.
  const depth = wanted - busy.length + 1;
  return busy.map((routes) => look(routes, depth));
}

/** What a claim could take as ready work, lost work left out; of one partition where that is named. */
export function findEligible(
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
  limit: number,
  partition: number | undefined,
): ExecutionRow[] {
  const [ready, due] =
    partition === undefined
      ? [READY_CANDIDATES, DUE_CANDIDATES]
      : [READY_IN_PARTITION, DUE_IN_PARTITION];
  const only = partition === undefined ? [] : [partition];
  const found = routes.flatMap(({ id }) => [
    ...selectExecutions(tx, ready, id, nowMs, nowMs, ...only, limit),
    ...selectExecutions(tx, due, id, nowMs, nowMs, ...only, limit),
  ]);
  return inOrder(found, routes.length, limit);
}

function inOrder(
  found: ExecutionRow[],
  routes: number,
  limit: number,
): ExecutionRow[] {
  // The common case came in order from one index.
  const sorted =
    routes === 1 && found.every((row) => row.home === HOME.eligible);
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

/** Past its deadline an execution is the driver's to end, and nobody's to begin. */
const inTime = "(deadline_at IS NULL OR deadline_at > ?)";

const readyCandidates = (condition = "") => `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ${HOME.eligible} AND (grant_until IS NULL OR grant_until <= ?)
    AND ${inTime} ${condition}
  ORDER BY score, id
  LIMIT ?`;

/**
 * What time alone made ready is indexed by that time, but stands in line by priority and age. The best of the first
 * thousand: beyond that the driver's portions shorten the queue faster than order could matter.
 */
const dueCandidates = (home: number, condition = "") => `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE seq IN (
    SELECT seq
    FROM executions
    WHERE route = ? AND home = ${home} AND score <= ? AND ${inTime} ${condition}
    ORDER BY score
    LIMIT 1000
  )
  ORDER BY created_at - priority * ${PRIORITY_STEP_MS}, id
  LIMIT ?`;

const inPartition = "AND partition = ?";

export const READY_CANDIDATES = readyCandidates();
export const READY_IN_PARTITION = readyCandidates(inPartition);
export const DUE_CANDIDATES = dueCandidates(HOME.delayed);
export const DUE_IN_PARTITION = dueCandidates(HOME.delayed, inPartition);

const belowCap = "AND reclaims < coalesce(max_reclaims, 100)";
const free = `AND holds = 0 AND (grant_until IS NULL OR grant_until <= ?) ${belowCap}`;

/** Lost leases that somebody has written down. Those at their cap are the driver's to end. */
export const LOST_CANDIDATES = dueCandidates(HOME.lapsed, free);
export const REVOKED_CANDIDATES = dueCandidates(HOME.revoked, free);

/** Lost leases that nobody has written down yet; the row's own back-off is checked when it is taken. */
export const LAPSING_CANDIDATES = dueCandidates(HOME.active, belowCap);

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
