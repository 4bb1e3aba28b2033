import {
  HOME,
  inTurn,
  type Args,
  type ClaimedExecution,
  type ClaimForWorkerResult,
  type ClaimManyResult,
  type ClaimOperations,
  type GrantKind,
  type Implementation,
} from "@flowfabric/core";
import {
  effectiveNow,
  EXECUTION_COLUMNS,
  executionIdOf,
  type ExecutionRow,
  isAtReclaimCap,
  isInterrupted,
} from "@flowfabric/core/sql";

import {
  findByLane,
  findCandidates,
  findEligible,
  hasWaiting,
  nextDueAtMs,
} from "../procedures/candidates.js";
import { saveExecution, selectExecutions } from "../procedures/executions.js";
import { hasLiveGrant, writeGrant } from "../procedures/grants.js";
import {
  markLapsedIfDue,
  promoteIfDue,
  ringAfterCommit,
} from "../procedures/lifecycle.js";
import { parked } from "../procedures/parking.js";
import type { Route } from "../procedures/routes.js";
import {
  claimedExecution,
  takeExecution,
  type Taker,
} from "../procedures/take.js";
import type { Session, Store } from "../store.js";

export function claimOperations(store: Store): Implementation<ClaimOperations> {
  const { db } = store;
  return {
    async claim({ laneId, capabilities, policy, signal }) {
      const { claimed } = await claimWaiting(store, {
        workerId: policy.workerId,
        workerInstanceId: policy.workerInstanceId,
        leaseTtlMs: policy.leaseTtlMs,
        maxWaitMs: policy.maxWaitMs,
        lanes: [laneId],
        capabilities: capabilities.tokens,
        max: 1,
        repeat: false,
        signal,
      });
      return claimed[0];
    },

    claimMany: (args) => claimWaiting(store, args),

    async claimForWorker(args) {
      const presence = { ...args, lanes: [args.laneId] };
      return await parked(store, presence, args.maxWaitMs ?? 0, args.signal, {
        attempt: () => db.write((tx) => grantOne(store, tx, args)),
        isEmpty: (answer) => answer.kind === "noWork",
      });
    },

    scanEligibleExecutions: (args) =>
      db.read((tx) => {
        const now = tx.now();
        // Delayed work that is due counts as eligible, promoted or not.
        return findEligible(
          tx,
          store.routes.ofLane(tx, args.laneId),
          now,
          args.limit,
          args.partition,
        ).map(executionIdOf);
      }),
  };
}

type ClaimArgs = Args<"claimMany">;

/** Claims once, and with `maxWaitMs` again whenever there may be something. */
async function claimWaiting(
  store: Store,
  args: ClaimArgs,
): Promise<ClaimManyResult> {
  return await parked(store, args, args.maxWaitMs ?? 0, args.signal, {
    attempt: () => store.db.write((tx) => claimNow(store, tx, args)),
    isEmpty: (answer) => answer.claimed.length === 0,
    dueInMs: (answer) => answer.nextDueInMs ?? Infinity,
  });
}

/**
 * The claim itself, inside a transaction: also the second half of `completeAndClaim`.
 * Lanes are served in turn, so that a busy one does not starve the next. What this very call scheduled for a retry is
 * passed over, however soon it may start.
 */
export function claimNow(
  store: Store,
  tx: Session,
  args: ClaimArgs,
  passedOver: ReadonlySet<string> = NONE,
): ClaimManyResult {
  if (args.repeat && args.requestId !== undefined) {
    const again = repeatedClaim(store, tx, args, args.requestId);
    if (again.length > 0) return { claimed: again };
  }
  const now = tx.now();
  const offered = new Set(args.capabilities);
  const taker: Taker = {
    workerId: args.workerId,
    workerInstanceId: args.workerInstanceId,
    leaseTtlMs: args.leaseTtlMs,
    requestId: args.requestId,
  };
  store.routes.refresh(tx);
  const routesOf = args.lanes.map((lane) =>
    store.routes.serveable(lane, offered, args.namespace),
  );
  const claimed: ClaimedExecution[] = [];
  // A candidate that must still wait for its back-off is written down and gone from the next look.
  for (let looks = 0; looks < 3 && claimed.length < args.max; looks++) {
    const wanted = args.max - claimed.length;
    const candidates = inTurn(
      findByLane(tx, routesOf, now, wanted, passedOver),
    );
    if (candidates.length === 0) break;
    for (const row of candidates.slice(0, wanted)) {
      const taken = takeExecution(store, tx, row, taker, now);
      if (taken !== undefined) claimed.push(taken);
    }
  }
  // Whoever is parked on these lanes must look when these leases may lapse.
  if (claimed.length > 0)
    tx.afterCommit(() =>
      store.wakeups.ringDue(lanesOf(claimed), args.leaseTtlMs),
    );
  if (claimed.length === args.max) return { claimed };
  const dueAt = nextDueAtMs(tx, routesOf.flat(), now);
  return dueAt === undefined
    ? { claimed }
    : { claimed, nextDueInMs: Math.max(0, dueAt - now) };
}

const NONE: ReadonlySet<string> = new Set();

function lanesOf(claimed: readonly ClaimedExecution[]): Set<string> {
  return new Set(claimed.map(({ laneId }) => laneId));
}

/** A lost reply: the leases that this worker took under this request and still holds. */
function repeatedClaim(
  store: Store,
  tx: Session,
  args: ClaimArgs,
  requestId: string,
): ClaimedExecution[] {
  const holder = store.holders.ensure(tx, args);
  const now = tx.now();
  return args.lanes
    .flatMap((lane) => store.routes.ofLane(tx, lane))
    .flatMap(({ id }) =>
      selectExecutions(tx, LEASES_OF_REQUEST, id, now, holder, requestId),
    )
    .map((row) => claimedExecution(store, tx, row));
}

function grantOne(
  store: Store,
  tx: Session,
  args: Args<"claimForWorker">,
): ClaimForWorkerResult {
  const now = tx.now();
  store.routes.refresh(tx);
  const routes = store.routes.serveable(
    args.laneId,
    new Set(args.capabilities),
    args.namespace,
  );
  for (const row of findCandidates(tx, routes, now, 10)) {
    const kind = readyFor(store, tx, row, effectiveNow(row, now));
    if (kind === undefined) continue;
    const grant = writeGrant(
      tx,
      row,
      kind,
      args,
      args.laneId,
      effectiveNow(row, now),
    );
    saveExecution(tx, row);
    return { kind: "granted", grant };
  }
  return {
    kind: "noWork",
    reason: hasWaiting(tx, waitingRoutes(store, tx, args))
      ? "blocked"
      : "empty",
  };
}

function waitingRoutes(
  store: Store,
  tx: Session,
  args: Args<"claimForWorker">,
): Route[] {
  return store.routes
    .ofLane(tx, args.laneId)
    .filter(
      (route) =>
        args.namespace === undefined || route.namespace === args.namespace,
    );
}

/** Writes down what time has changed, and tells which grant fits; none where the execution must still wait. */
function readyFor(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
): GrantKind | undefined {
  promoteIfDue(tx, row, nowMs);
  const marked = markLapsedIfDue(tx, row, nowMs);
  if (marked) {
    saveExecution(tx, row);
    ringAfterCommit(store, tx, row);
  }
  if (hasLiveGrant(row, nowMs)) return undefined;
  if (row.home === HOME.eligible)
    return isInterrupted(row) ? "resume" : "claim";
  if (row.home !== HOME.lapsed && row.home !== HOME.revoked) return undefined;
  return row.score > nowMs || isAtReclaimCap(row) || row.holds !== 0
    ? undefined
    : "reclaim";
}

export const LEASES_OF_REQUEST = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ${HOME.active} AND score > ? AND holder = ? AND request = ?`;
