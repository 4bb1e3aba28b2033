/**
 * What a claim may take, best first. One index per route holds ready work, delayed work that is due, and lost work
 * whose back-off is over. Each look is bounded, however much waits behind it, and one statement looks at all routes.
 */
import { HOME, PRIORITY_STEP_MS, sortKey } from "@flowfabric/core";
import {
  EXECUTION_COLUMNS,
  executionIdOf,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import { LOCK_HERE, selectExecutions } from "./executions.js";
import type { Route } from "./routes.js";

/** The best `limit` over these routes, in claim order: priority, age, id. A transaction that writes locks them. */
export async function findCandidates(
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
  limit: number,
): Promise<ExecutionRow[]> {
  if (routes.length === 0) return [];
  const found = await selectExecutions(
    tx,
    CANDIDATES,
    idsOf(routes),
    nowMs,
    limit,
  );
  return inOrder(found, limit);
}

/**
 * Of each lane the best, as many as a claim of `wanted` may take that serves these lanes in turn. Lanes are asked for one
 * first, and deeper only where those with work do not suffice: a hundred lanes cost a look each, not all of them all that
 * is wanted.
 */
export async function findByLane(
  tx: Session,
  lanes: readonly (readonly Route[])[],
  nowMs: number,
  wanted: number,
  passedOver: ReadonlySet<string>,
): Promise<ExecutionRow[][]> {
  const look = async (routes: readonly Route[], limit: number) => {
    const found = await findCandidates(
      tx,
      routes,
      nowMs,
      limit + passedOver.size,
    );
    return found.filter(
      (row) => passedOver.size === 0 || !passedOver.has(executionIdOf(row)),
    );
  };
  if (lanes.length === 1) return [await look(lanes[0]!, wanted)];
  const busy: (readonly Route[])[] = [];
  const best: ExecutionRow[][] = [];
  for (const routes of lanes) {
    const [first] = await look(routes, 1);
    if (first === undefined) continue;
    busy.push(routes);
    best.push([first]);
    if (best.length === wanted) return best;
  }
  // Each of the others gives one at least.
  const depth = wanted - busy.length + 1;
  const found: ExecutionRow[][] = [];
  for (const routes of busy) found.push(await look(routes, depth));
  return found;
}

/** What a claim could take as ready work, lost work left out; of one partition where that is named. */
export async function findEligible(
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
  limit: number,
  partition: number | undefined,
): Promise<ExecutionRow[]> {
  if (routes.length === 0) return [];
  const found = await selectExecutions(
    tx,
    partition === undefined ? ELIGIBLE : ELIGIBLE_IN_PARTITION,
    idsOf(routes),
    nowMs,
    limit,
    ...(partition === undefined ? [] : [partition]),
  );
  return inOrder(found, limit);
}

const idsOf = (routes: readonly Route[]) => routes.map(({ id }) => id);

function inOrder(found: ExecutionRow[], limit: number): ExecutionRow[] {
  found.sort(byClaimOrder);
  return found.length > limit ? found.slice(0, limit) : found;
}

function byClaimOrder(a: ExecutionRow, b: ExecutionRow): number {
  return (
    sortKey(a.created_at, a.priority) - sortKey(b.created_at, b.priority) ||
    Buffer.compare(a.id, b.id)
  );
}

/** When something in these routes next becomes claimable by itself. */
export async function nextDueAtMs(
  tx: Session,
  routes: readonly Route[],
  nowMs: number,
): Promise<number | undefined> {
  if (routes.length === 0) return undefined;
  const found = await tx.get<{ due: number | null }>(
    NEXT_DUE,
    nowMs,
    idsOf(routes),
  );
  return found?.due ?? undefined;
}

/** Whether anything runnable waits on these routes at all. */
export async function hasWaiting(
  tx: Session,
  routes: readonly Route[],
): Promise<boolean> {
  return (await tx.get(ANY_WAITING, idsOf(routes))) !== undefined;
}

/** Values: routes, now, limit, and the partition where one is named. */
const GIVEN = `
  WITH given AS (
    SELECT ?::BIGINT[] AS routes, ?::BIGINT AS now, ?::BIGINT AS most
  )`;

/** Past its deadline an execution is the driver's to end, and nobody's to begin. */
export const IN_TIME = "(deadline_at IS NULL OR deadline_at > given.now)";

const readyCandidates = (condition = "") => `
  SELECT ready.*
  FROM given, unnest(given.routes) AS wanted (id), LATERAL (
    SELECT ${EXECUTION_COLUMNS}
    FROM executions
    WHERE route = wanted.id AND home = ${HOME.eligible} AND (grant_until IS NULL OR grant_until <= given.now)
      AND ${IN_TIME} ${condition}
    ORDER BY score, id
    LIMIT (SELECT most FROM given)
    ${LOCK_HERE}
  ) AS ready`;

/**
 * What time alone made ready is indexed by that time, but stands in line by priority and age. The best of the first
 * thousand: beyond that the driver's portions shorten the queue faster than order could matter. The conditions stand
 * twice, for a row that changed while it was being locked is looked at again by the outer ones only.
 */
export const RIPE_MAX = 1_000;
const dueCandidates = (home: number, condition = "") => `
  SELECT due.*
  FROM given, unnest(given.routes) AS wanted (id), LATERAL (
    SELECT ${EXECUTION_COLUMNS}
    FROM executions
    WHERE seq = ANY (ARRAY(
        SELECT seq
        FROM executions
        WHERE route = wanted.id AND home = ${home} AND score <= given.now AND ${IN_TIME} ${condition}
        ORDER BY score
        LIMIT ${RIPE_MAX}
      ))
      AND home = ${home} AND score <= given.now AND ${IN_TIME} ${condition}
    ORDER BY created_at - priority * ${PRIORITY_STEP_MS}, id
    LIMIT (SELECT most FROM given)
    ${LOCK_HERE}
  ) AS due`;

export const BELOW_CAP = "AND reclaims < coalesce(max_reclaims, 100)";
export const FREE = `AND holds = 0 AND (grant_until IS NULL OR grant_until <= given.now) ${BELOW_CAP}`;

/** Lost leases at their cap are the driver's to end. Those that nobody has written down yet are still active. */
const CANDIDATES = `${GIVEN}${readyCandidates()}
  UNION ALL${dueCandidates(HOME.delayed)}
  UNION ALL${dueCandidates(HOME.lapsed, FREE)}
  UNION ALL${dueCandidates(HOME.revoked, FREE)}
  UNION ALL${dueCandidates(HOME.active, BELOW_CAP)}`;

const ELIGIBLE = `${GIVEN}${readyCandidates()}
  UNION ALL${dueCandidates(HOME.delayed)}`;

const IN_PARTITION = "AND partition = given.partition";

const ELIGIBLE_IN_PARTITION = `
  WITH given AS (
    SELECT ?::BIGINT[] AS routes, ?::BIGINT AS now, ?::BIGINT AS most, ?::INTEGER AS partition
  )${readyCandidates(IN_PARTITION)}
  UNION ALL${dueCandidates(HOME.delayed, IN_PARTITION)}`;

/**
 * When something on these routes next falls due. Grants stand on ready work; a few at most, at the head of their route.
 * \`given\` has the clock, \`wanted\` the routes.
 */
export const NEXT_DUE_INSTANT = `
    SELECT min(due) AS due
    FROM (
      SELECT next.score AS due
      FROM given, wanted, unnest(ARRAY[${HOME.delayed}, ${HOME.active}, ${HOME.lapsed}, ${HOME.revoked}]) AS timed (home),
        LATERAL (
          SELECT score
          FROM executions
          WHERE route = wanted.route AND home = timed.home AND score > given.now
          ORDER BY score
          LIMIT 1
        ) AS next
      UNION ALL
      SELECT granted.grant_until
      FROM given, wanted, LATERAL (
          SELECT grant_until
          FROM executions
          WHERE route = wanted.route AND home = ${HOME.eligible}
          ORDER BY score, id
          LIMIT 10
        ) AS granted
      WHERE granted.grant_until > given.now
    ) AS instants`;

const NEXT_DUE = `
  WITH given AS (
    SELECT ?::BIGINT AS now
  ), wanted AS (
    SELECT unnest(?::BIGINT[]) AS route
  )${NEXT_DUE_INSTANT}`;

const ANY_WAITING = `
  SELECT 1
  FROM unnest(?::BIGINT[]) AS wanted (id), LATERAL (
    SELECT 1
    FROM executions
    WHERE route = wanted.id AND home < ${HOME.active}
    LIMIT 1
  ) AS waiting
  LIMIT 1`;
