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
import { claimQuickly } from "../procedures/quick.js";
import type { Route } from "../procedures/routes.js";
import {
  claimedExecution,
  readPayloadsAhead,
  takeExecution,
  type Taker,
} from "../procedures/take.js";
import type { Session, Store } from "../store.js";
import type { WaitingClaim } from "../wakeups.js";

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
        attempt: () => db.write(async (tx) => await grantOne(store, tx, args)),
        isEmpty: (answer) => answer.kind === "noWork",
      });
    },

    scanEligibleExecutions: (args) =>
      db.read(async (tx) => {
        const now = tx.now();
        // Delayed work that is due counts as eligible, promoted or not.
        return (
          await findEligible(
            tx,
            store.routes.ofLane(args.laneId),
            now,
            args.limit,
            args.partition,
          )
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
  const waiting: WaitingClaim = { args, handed: undefined };
  return await parked(
    store,
    args,
    args.maxWaitMs ?? 0,
    args.signal,
    {
      attempt: async () => {
        const { handed } = waiting;
        waiting.handed = undefined;
        return (
          handed ??
          (await claimQuickly(store, args)) ??
          (await store.db.write(async (tx) => await claimNow(store, tx, args)))
        );
      },
      isEmpty: (answer) => answer.claimed.length === 0,
      dueInMs: (answer) => answer.nextDueInMs ?? Infinity,
    },
    // What an earlier call took may still come to light, and is its answer then.
    args.repeat ? undefined : waiting,
  );
}

/**
 * The claim itself, inside a transaction: also the second half of `completeAndClaim`.
 * Lanes are served in turn, so that a busy one does not starve the next. What this very call scheduled for a retry is
 * passed over, however soon it may start.
 */
export async function claimNow(
  store: Store,
  tx: Session,
  args: ClaimArgs,
  passedOver: ReadonlySet<string> = NONE,
): Promise<ClaimManyResult> {
  if (args.repeat && args.requestId !== undefined) {
    const again = await repeatedClaim(store, tx, args, args.requestId);
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
  const routesOf = args.lanes.map((lane) =>
    store.routes.serveable(lane, offered, args.namespace),
  );
  const claimed: ClaimedExecution[] = [];
  // A candidate that must still wait for its back-off is written down and gone from the next look.
  for (let looks = 0; looks < 3 && claimed.length < args.max; looks++) {
    const wanted = args.max - claimed.length;
    const candidates = inTurn(
      await findByLane(tx, routesOf, now, wanted, passedOver),
    );
    if (candidates.length === 0) break;
    await readPayloadsAhead(tx, candidates.slice(0, wanted));
    for (const row of candidates.slice(0, wanted)) {
      const taken = await takeExecution(store, tx, row, taker, now);
      if (taken !== undefined) claimed.push(taken);
    }
  }
  // Whoever is parked on these lanes must look when these leases may lapse.
  if (claimed.length > 0)
    store.wakeups.ring(tx, lanesOf(claimed), args.leaseTtlMs);
  if (claimed.length === args.max) return { claimed };
  const dueAt = await nextDueAtMs(tx, routesOf.flat(), now);
  return dueAt === undefined
    ? { claimed }
    : { claimed, nextDueInMs: Math.max(0, dueAt - now) };
}

const NONE: ReadonlySet<string> = new Set();

function lanesOf(claimed: readonly ClaimedExecution[]): string[] {
  return [...new Set(claimed.map(({ laneId }) => laneId))];
}

/** A lost reply: the leases that this worker took under this request and still holds. */
async function repeatedClaim(
  store: Store,
  tx: Session,
  args: ClaimArgs,
  requestId: string,
): Promise<ClaimedExecution[]> {
  const holder = store.holders.ensure(args);
  const now = tx.now();
  const routes = args.lanes.flatMap((lane) => store.routes.ofLane(lane));
  const rows = await selectExecutions(
    tx,
    LEASES_OF_REQUEST,
    routes.map(({ id }) => id),
    now,
    holder,
    requestId,
  );
  const claimed: ClaimedExecution[] = [];
  for (const row of rows) claimed.push(await claimedExecution(store, tx, row));
  return claimed;
}

async function grantOne(
  store: Store,
  tx: Session,
  args: Args<"claimForWorker">,
): Promise<ClaimForWorkerResult> {
  const now = tx.now();
  const routes = store.routes.serveable(
    args.laneId,
    new Set(args.capabilities),
    args.namespace,
  );
  for (const row of await findCandidates(tx, routes, now, 10)) {
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
    reason: (await hasWaiting(tx, waitingRoutes(store, args)))
      ? "blocked"
      : "empty",
  };
}

function waitingRoutes(store: Store, args: Args<"claimForWorker">): Route[] {
  return store.routes
    .ofLane(args.laneId)
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

const LEASES_OF_REQUEST = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ANY(?::BIGINT[]) AND home = ${HOME.active} AND score > ? AND holder = ? AND request = ?`;
