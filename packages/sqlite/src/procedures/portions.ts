/**
 * One bounded, idempotent portion of each sweep. Claims drive the engine with these, sweeps run the same. A row that a
 * look returned is re-checked before it is changed; several at once change nothing.
 */
import { HOME, type SweepName } from "@flowfabric/core";
import {
  effectiveNow,
  EXECUTION_COLUMNS,
  type ExecutionRow,
  isAtReclaimCap,
  type WaitpointRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution, selectExecutions } from "./executions.js";
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
import { blockUncovered, unblockRoute } from "./unblock.js";
import { DUE_PENDING, expireWaitpoint, NEXT_PENDING } from "./waitpoints.js";

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
  readonly [N in SweepName]: (portion: Portion) => number;
} = {
  delayed_promoter: (portion) =>
    overRoutes(portion, DUE_DELAYED, (row) => {
      if (!promoteIfDue(portion.tx, row, effectiveNow(row, portion.nowMs)))
        return false;
      saveExecution(portion.tx, row);
      ringAfterCommit(portion.store, portion.tx, row);
      return true;
    }),

  lease_expiry: (portion) =>
    overRoutes(portion, LAPSED_LEASES, (row) => {
      if (!markLapsedIfDue(portion.tx, row, effectiveNow(row, portion.nowMs)))
        return false;
      saveExecution(portion.tx, row);
      ringAfterCommit(portion.store, portion.tx, row);
      return true;
    }),

  reclaim_driver: (portion) =>
    overRoutes(portion, AT_RECLAIM_CAP, (row) => {
      if (!isAtReclaimCap(row)) return false;
      failAtReclaimCap(portion.tx, row, effectiveNow(row, portion.nowMs));
      saveExecution(portion.tx, row);
      ringAfterCommit(portion.store, portion.tx, row);
      return true;
    }),

  attempt_timeout: (portion) => expireDue(portion, ["attempt_timeout"]),
  execution_deadline: (portion) => expireDue(portion, ["execution_deadline"]),

  suspension_timeout: ({ store, tx, nowMs, limit }) =>
    countWhere(
      selectExecutions(tx, DUE_SUSPENSIONS, nowMs, nowMs, limit),
      (row) => timeOutSuspension(store, tx, row, nowMs).kind === "applied",
    ),

  pending_wp_expiry: ({ tx, nowMs, limit }) => {
    const due = tx.all<WaitpointRow>(DUE_PENDING, nowMs, limit);
    for (const waitpoint of due) expireWaitpoint(tx, waitpoint, nowMs);
    return due.length;
  },

  unblock: ({ store, tx, routes, nowMs, limit }) => {
    let done = 0;
    const workersOf = new Map<string, ReturnType<typeof liveWorkers>>();
    for (const route of routes) {
      if (done >= limit) return done;
      const live =
        workersOf.get(route.namespace) ??
        liveWorkers(tx, route.namespace, nowMs);
      workersOf.set(route.namespace, live);
      done += isCovered(route, live)
        ? unblockRoute(store, tx, route, nowMs, limit - done)
        : blockUncovered(tx, route, nowMs, limit - done);
    }
    return done;
  },

  worker_registry_ttl_sweep: ({ tx, nowMs, limit }) =>
    tx.run(DELETE_DEAD_WORKERS, nowMs, limit),

  retention_trimmer: ({ store, tx, routes, nowMs, limit }) => {
    const { retentionMs } = store.options;
    const purged = purgeDue(store, tx, routes, retentionMs, nowMs, limit);
    return forgetFrames(tx) ? limit : purged;
  },

  event_trimmer: ({ store, tx, nowMs, limit }) => {
    trimFeeds(store, tx, nowMs);
    return forgetPurged(store, tx, nowMs, limit) + forgetKeys(tx, nowMs, limit);
  },

  index_reconciler: ({ store, tx, limit }) =>
    reconcilePage(store, tx, store.driver.reconcileCursor, limit).processed,
};

function countWhere<T>(all: readonly T[], act: (one: T) => boolean): number {
  return all.reduce((count, one) => count + (act(one) ? 1 : 0), 0);
}

/** All timers at once, as claims drive them. */
export function fireTimers(portion: Portion): number {
  return expireDue(portion) + PORTIONS.suspension_timeout(portion);
}

/** Deadlines come first: behind them nothing else matters. */
function expireDue(
  { store, tx, nowMs, limit }: Portion,
  reasons: readonly ExpiryReason[] = ["execution_deadline", "attempt_timeout"],
): number {
  let done = 0;
  for (const row of selectExecutions(tx, DUE_TIMERS, nowMs, limit)) {
    for (const reason of reasons) {
      const answer = expire(store, tx, row, reason, nowMs);
      if (answer !== "expired" && answer !== "retryScheduled") continue;
      done++;
      break;
    }
  }
  return done;
}

/** When the next timer of the store is due. */
export function nextTimerAtMs(tx: Session): number | undefined {
  return tx.get<{ timer_at: number }>(NEXT_TIMER)?.timer_at;
}

/** When the next pending waitpoint is over. */
export function nextPendingExpiryAtMs(tx: Session): number | undefined {
  return tx.get<{ due: number | null }>(NEXT_PENDING)?.due ?? undefined;
}

/**
 * Events older than the feeds' retention, or beyond their number, are no longer owed to anyone; the rows go with
 * their executions.
 */
function trimFeeds(store: Store, tx: Session, nowMs: number): void {
  const newest =
    tx.get<{ position: number | null }>(NEWEST_POSITION)?.position ?? 0;
  const tooMany = newest - store.options.feedEventsMax;
  if (tooMany > 0) raiseFeedFloor(tx, tooMany);
  const oldAtMs = nowMs - store.options.feedRetentionMs;
  // Positions grow with time, so the first event that is young enough is found by halving.
  let low = tx.get<{ value: number }>(READ_FLOOR)!.value;
  let high = newest;
  while (low < high) {
    const middle = Math.floor((low + high) / 2) + 1;
    const event = tx.get<{ at: number }>(EVENT_AT_OR_BEFORE, middle);
    if (event !== undefined && event.at <= oldAtMs) low = middle;
    else high = middle - 1;
  }
  raiseFeedFloor(tx, low);
}

function overRoutes(
  { tx, routes, nowMs, limit }: Portion,
  sql: string,
  act: (row: ExecutionRow) => boolean,
): number {
  let done = 0;
  for (const { id } of routes) {
    if (done >= limit) return done;
    for (const row of selectExecutions(tx, sql, id, nowMs, limit - done))
      if (act(row)) done++;
  }
  return done;
}

const dueOfHome = (home: number) => `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ${home} AND score <= ?
  ORDER BY score
  LIMIT ?`;

export const DUE_DELAYED = dueOfHome(HOME.delayed);
export const LAPSED_LEASES = dueOfHome(HOME.active);

/** Back-off or not: whoever is at the cap waits for nothing. The second value keeps the shape of its neighbours. */
export const AT_RECLAIM_CAP = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home IN (${HOME.lapsed}, ${HOME.revoked}) AND lost_at <= ?
    AND reclaims >= coalesce(max_reclaims, 100) AND holds = 0
  LIMIT ?`;

export const DUE_TIMERS = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE timer_at IS NOT NULL AND timer_at <= ?
  ORDER BY timer_at
  LIMIT ?`;

export const DUE_SUSPENSIONS = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE timer_at IS NOT NULL AND timer_at <= ? AND home = ${HOME.suspended} AND timeout_at <= ?
  ORDER BY timer_at
  LIMIT ?`;

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
