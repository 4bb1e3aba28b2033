import {
  closableIterable,
  type Args,
  type Implementation,
  type TaskEndedNotice,
  type WorkerOperations,
} from "@flowfabric/core";

import { listOf, textOf } from "../connection.js";
import { newestPosition, noticesAfter } from "../procedures/notices.js";
import { askEach } from "../procedures/outages.js";
import { toWorkerInfo, workerValues } from "../procedures/registry.js";
import type { Store } from "../store.js";

/** Every cell keeps the whole registry; the first one decides, for a heartbeat the first that answers. */
export function workerOperations(
  store: Store,
): Implementation<WorkerOperations> {
  const { cells, driver } = store;
  return {
    async registerWorker(args) {
      const values = [...workerValues(args), args.livenessTtlMs];
      const [kind, registeredAt] = await cells.first.call(
        "register_worker",
        ...values,
      );
      // A cell out of reach hears of it by the worker's claims.
      await askEach(cells.all.slice(1), (cell) =>
        cell.call("register_worker", ...values, registeredAt as number),
      );
      driver.heartbeats.forget(args.workerInstanceId);
      return { kind: textOf(kind!) as "registered" | "refreshed" };
    },

    async heartbeatWorker({ workerInstanceId, namespace }) {
      const { answers, failure } = await askEach(cells.all, (cell) =>
        cell.call("heartbeat_worker", namespace, workerInstanceId),
      );
      const [first] = answers;
      if (first === undefined) throw failure!;
      const nextExpiryMs = first[0] as number | null;
      return nextExpiryMs === null
        ? { kind: "notRegistered" }
        : { kind: "refreshed", nextExpiryMs };
    },

    async deregisterWorker(args) {
      const wasLive = await remove(store, args);
      return { kind: wasLive ? "deregistered" : "notRegistered" };
    },

    async markWorkerDead(args) {
      const wasLive = await remove(
        store,
        args,
        ...(args.expireLeases ? ["1", args.reason] : []),
      );
      return { kind: wasLive ? "marked" : "notRegistered" };
    },

    async listWorkers({ namespace, after, limit }) {
      if (limit === 0) return { entries: [] };
      const [workers, more] = await cells.first.call(
        "workers",
        namespace ?? "",
        after ?? "",
        limit,
      );
      const entries = listOf(workers).map(toWorkerInfo);
      if (more === 0) return { entries };
      return { entries, nextCursor: entries.at(-1)!.workerInstanceId };
    },

    watchWorker: ({ workerInstanceId, signal }) =>
      watch(store, workerInstanceId, signal),
  };
}

/** @returns whether it was alive */
async function remove(
  { cells, driver }: Store,
  { namespace, workerInstanceId }: Args<"deregisterWorker">,
  ...death: readonly string[]
): Promise<boolean> {
  const [first] = await Promise.all(
    cells.all.map((cell) =>
      cell.call("remove_worker", namespace, workerInstanceId, ...death),
    ),
  );
  driver.heartbeats.forget(workerInstanceId);
  return first![0] === 1;
}

/** From now on; what happened before is known to whoever holds the lease. */
function watch(
  store: Store,
  instanceId: string,
  signal: AbortSignal | undefined,
): AsyncIterable<TaskEndedNotice> {
  const { cells, wakeups } = store;
  wakeups.requireOpen();
  // Resolved at the call, so that nothing between the call and the first step is missed.
  const start = Promise.all(cells.all.map(newestPosition));
  start.catch(() => {});
  return closableIterable(async function* (ended) {
    const positions = await start;
    while (!ended.aborted && !wakeups.closed) {
      const ticket = wakeups.ticket({ instanceId });
      const pages = await Promise.all(
        cells.all.map((cell, index) =>
          noticesAfter(cell, positions[index]!, instanceId),
        ),
      );
      for (const [index, { position }] of pages.entries())
        positions[index] = position;
      for (const { notices } of pages) yield* notices;
      if (!pages.some(({ more }) => more))
        await wakeups.wait(ticket, WATCH_WAIT_MS, ended);
    }
  }, signal);
}

/** Long, for a notice that got lost loses nothing: renewal finds out the same. */
const WATCH_WAIT_MS = 300_000;
