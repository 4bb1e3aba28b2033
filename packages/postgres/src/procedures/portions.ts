/**
 * One bounded, idempotent portion of each sweep. Claims drive the engine with these, sweeps run the same. A row that a
 * look returned is re-checked before it is changed; several at once change nothing.
 */
import { HOME, type LiveWorker, type SweepName } from "@flowfabric/core";
import {
  effectiveNow,
  EXECUTION_COLUMNS,
  type ExecutionRow,
  isAtReclaimCap,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { LOCK_HERE, saveExecution, selectExecutions } from "./executions.js";
import { expire, type ExpiryReason } from "./expiry.js";
import {
  failAtReclaimCap,
  markLapsedIfDue,
  promoteIfDue,
  ringAfterCommit,
} from "./lifecycle.js";
import {
  forgetFrames,
  forgetKeys,
  forgetPurged,
  purgeDue,
  raiseFeedFloor,
} from "./purge.js";
import { reconcilePage } from "./reconcile.js";
import { isCovered, liveWorkers } from "./registry.js";
import type { Route } from "./routes.js";
import { timeOutSuspension } from "./suspension-timeout.js";
import { blockUncovered, unblockRoutes } from "./unblock.js";
import { expireDueWaitpoints } from "./waitpoints.js";

export interface Portion {
  readonly store: Store;
  readonly tx: Session;
  /** The routes to look at; timers and the registry know no routes. */
  readonly routes: readonly Route[];
  readonly nowMs: number;
  readonly limit: number;
}

/** @returns how many effects it had; `limit` means that there may be more */
export const PORTIONS: {
  readonly [N in SweepName]: (portion: Portion) => Promise<number>;
} = {
  delayed_promoter: async (portion) =>
    await overRoutes(portion, DUE_DELAYED, (row) => {
      if (!promoteIfDue(portion.tx, row, effectiveNow(row, portion.nowMs)))
        return false;
      saveExecution(portion.tx, row);
      ringAfterCommit(portion.store, portion.tx, row);
      return true;
    }),

  lease_expiry: async (portion) =>
    await overRoutes(portion, LAPSED_LEASES, (row) => {
      if (!markLapsedIfDue(portion.tx, row, effectiveNow(row, portion.nowMs)))
        return false;
      saveExecution(portion.tx, row);
      ringAfterCommit(portion.store, portion.tx, row);
      return true;
    }),

  reclaim_driver: async (portion) =>
    await overRoutes(portion, AT_RECLAIM_CAP, (row) => {
      if (!isAtReclaimCap(row)) return false;
      failAtReclaimCap(portion.tx, row, effectiveNow(row, portion.nowMs));
      saveExecution(portion.tx, row);
      ringAfterCommit(portion.store, portion.tx, row);
      return true;
    }),

  attempt_timeout: async (portion) =>
    await expireDue(portion, ["attempt_timeout"]),
  execution_deadline: async (portion) =>
    await expireDue(portion, ["execution_deadline"]),

  suspension_timeout: async ({ store, tx, nowMs, limit }) => {
    const due = await selectExecutions(
      tx,
      DUE_SUSPENSIONS,
      nowMs,
      nowMs,
      limit,
    );
    const answers = await Promise.all(
      due.map((row) => timeOutSuspension(store, tx, row, nowMs)),
    );
    return answers.filter(({ kind }) => kind === "applied").length;
  },

  pending_wp_expiry: ({ tx, nowMs, limit }) =>
    expireDueWaitpoints(tx, nowMs, limit),

  unblock: async ({ store, tx, routes, nowMs, limit }) => {
    const workersOf = new Map<string, readonly LiveWorker[]>();
    for (const { namespace } of routes)
      if (!workersOf.has(namespace))
        workersOf.set(namespace, await liveWorkers(tx, namespace, nowMs));
    const covered = routes.filter((route) =>
      isCovered(route, workersOf.get(route.namespace)!),
    );
    const uncovered = routes.filter((route) => !covered.includes(route));
    const opened =
      covered.length === 0
        ? 0
        : await unblockRoutes(store, tx, covered, nowMs, limit);
    return (
      opened +
      (await blockUncovered(store, tx, uncovered, nowMs, limit - opened))
    );
  },

  worker_registry_ttl_sweep: async ({ tx, nowMs, limit }) => {
    tx.run(DELETE_OLD_WAITERS, nowMs);
    return await tx.change(DELETE_DEAD_WORKERS, nowMs, limit);
  },

  retention_trimmer: async ({ store, tx, routes, nowMs, limit }) => {
    const { retentionMs } = store.options;
    const purged = await purgeDue(store, tx, routes, retentionMs, nowMs, limit);
    return (await forgetFrames(tx)) ? limit : purged;
  },

  event_trimmer: async ({ store, tx, nowMs, limit }) => {
    await trimFeeds(store, tx, nowMs);
    const purged = await forgetPurged(store, tx, nowMs, limit);
    return purged + (await forgetKeys(tx, nowMs, limit));
  },

  index_reconciler: async ({ store, tx, limit }) =>
    (await reconcilePage(store, tx, store.driver.reconcileCursor, limit))
      .processed,
};

/** All timers at once, as claims drive them. */
export async function fireTimers(portion: Portion): Promise<number> {
  return (
    (await expireDue(portion)) + (await PORTIONS.suspension_timeout(portion))
  );
}

/** Deadlines come first: behind them nothing else matters. */
async function expireDue(
  { store, tx, nowMs, limit }: Portion,
  reasons: readonly ExpiryReason[] = ["execution_deadline", "attempt_timeout"],
): Promise<number> {
  let done = 0;
  for (const row of await selectExecutions(tx, DUE_TIMERS, nowMs, limit)) {
    for (const reason of reasons) {
      const answer = await expire(store, tx, row, reason, nowMs);
      if (answer !== "expired" && answer !== "retryScheduled") continue;
      done++;
      break;
    }
  }
  return done;
}

/** When the next timer of the store is due. */
export async function nextTimerAtMs(tx: Session): Promise<number | undefined> {
  return (await tx.get<{ timer_at: number }>(NEXT_TIMER))?.timer_at;
}

/**
 * Events older than the feeds' retention, or beyond their number, are no longer owed to anyone; the rows go with
 * their executions.
 */
async function trimFeeds(
  store: Store,
  tx: Session,
  nowMs: number,
): Promise<void> {
  const newest =
    (await tx.get<{ position: number | null }>(NEWEST_POSITION))?.position ?? 0;
  const tooMany = newest - store.options.feedEventsMax;
  if (tooMany > 0) raiseFeedFloor(tx, tooMany);
  const oldAtMs = nowMs - store.options.feedRetentionMs;
  // Positions grow with time, so the first event that is young enough is found by halving.
  let low = (await tx.get<{ value: number }>(READ_FLOOR))!.value;
  let high = newest;
  while (low < high) {
    const middle = Math.floor((low + high) / 2) + 1;
    const event = await tx.get<{ at: number }>(EVENT_AT_OR_BEFORE, middle);
    if (event !== undefined && event.at <= oldAtMs) low = middle;
    else high = middle - 1;
  }
  raiseFeedFloor(tx, low);
}

async function overRoutes(
  { tx, routes, nowMs, limit }: Portion,
  sql: string,
  act: (row: ExecutionRow) => boolean,
): Promise<number> {
  if (routes.length === 0) return 0;
  const ids = routes.map(({ id }) => id);
  let done = 0;
  for (const row of await selectExecutions(tx, sql, ids, nowMs, limit))
    if (act(row)) done++;
  return done;
}

/** One statement for all routes; those that others hold at the moment are theirs. */
const dueOfHome = (homes: readonly number[], condition: string) => `
  WITH given AS (
    SELECT ?::BIGINT[] AS routes, ?::BIGINT AS now, ?::BIGINT AS most
  )
  SELECT due.*
  FROM given, unnest(given.routes) AS wanted (id), unnest(ARRAY[${homes.join(", ")}]) AS timed (home), LATERAL (
    SELECT ${EXECUTION_COLUMNS}
    FROM executions
    WHERE route = wanted.id AND home = timed.home AND ${condition}
    ORDER BY score
    LIMIT (SELECT most FROM given)
    ${LOCK_HERE}
  ) AS due
  LIMIT (SELECT most FROM given)`;

const DUE_DELAYED = dueOfHome([HOME.delayed], "score <= given.now");
const LAPSED_LEASES = dueOfHome([HOME.active], "score <= given.now");

/** Back-off or not: whoever is at the cap waits for nothing. */
const AT_RECLAIM_CAP = dueOfHome(
  [HOME.lapsed, HOME.revoked],
  "lost_at <= given.now AND reclaims >= coalesce(max_reclaims, 100) AND holds = 0",
);

const DUE_TIMERS = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE timer_at IS NOT NULL AND timer_at <= ?
  ORDER BY timer_at
  LIMIT ?`;

/** The home is hidden from the planner, who would go through all that are suspended rather than through the due timers. */
const DUE_SUSPENSIONS = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE timer_at IS NOT NULL AND timer_at <= ? AND home + 0 = ${HOME.suspended} AND timeout_at <= ?
  ORDER BY timer_at
  LIMIT ?`;

/** Of the whole store. */
export const NEXT_TIMER = `
  SELECT timer_at
  FROM executions
  WHERE timer_at IS NOT NULL
  ORDER BY timer_at
  LIMIT 1`;

const DELETE_DEAD_WORKERS = `
  DELETE FROM workers
  WHERE (instance_id, namespace) IN (
    SELECT instance_id, namespace
    FROM workers
    WHERE heartbeat_at + ttl_ms <= ?
    LIMIT ?
  )`;

/** Whoever still waits has said so again by now. */
const DELETE_OLD_WAITERS = `
  DELETE FROM waiters
  WHERE (lane, process) IN (
    SELECT lane, process
    FROM waiters
    WHERE until <= ?
    FOR UPDATE SKIP LOCKED
  )`;

const NEWEST_POSITION = `
  SELECT max(position) AS position
  FROM events`;

const READ_FLOOR = `
  SELECT value
  FROM settings
  WHERE name = 'feed_floor'`;

const EVENT_AT_OR_BEFORE = `
  SELECT at
  FROM events
  WHERE position <= ?
  ORDER BY position DESC
  LIMIT 1`;
