import {
  closableIterable,
  HOME,
  refuse,
  type Args,
  type Implementation,
  type LaneId,
  type Namespace,
  type TaskEndedNotice,
  type WorkerId,
  type WorkerInfo,
  type WorkerInstanceId,
  type WorkerOperations,
} from "@flowfabric/core";
import {
  effectiveNow,
  EXECUTION_COLUMNS,
  parseJson,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import { markLapsed, ringAfterCommit } from "../procedures/lifecycle.js";
import { saveExecution, selectExecutions } from "../procedures/executions.js";
import { noticesAfter } from "../procedures/notices.js";
import {
  findWorker,
  findWorkerAnywhere,
  isLive,
  wakeCovered,
  writeWorker,
  type WorkerRow,
} from "../procedures/registry.js";
import type { Session, Store } from "../store.js";

export function workerOperations(
  store: Store,
): Implementation<WorkerOperations> {
  const { db } = store;
  return {
    async registerWorker(args) {
      return settle(
        await db.write((tx) => {
          const now = tx.now();
          const known = findWorker(tx, args.workerInstanceId, args.namespace);
          const live =
            known !== undefined && isLive(known, now) ? known : undefined;

          if (live !== undefined && live.worker_id !== args.workerId) {
            const reason = `instance_id reassigned: '${args.workerInstanceId}' is live as worker '${live.worker_id}'`;
            return refuse("invalid_input", {
              reason,
              field: "workerInstanceId",
            });
          }

          writeWorker(tx, args, live?.registered_at ?? now, now);
          wakeCovered(store, tx, args.namespace, args.lanes, now);
          tx.afterCommit(() =>
            store.driver.heartbeats.forget(args.workerInstanceId),
          );

          return {
            kind:
              live === undefined
                ? ("registered" as const)
                : ("refreshed" as const),
          };
        }),
      );
    },

    async heartbeatWorker({ workerInstanceId, namespace }) {
      return await db.write((tx) => {
        const now = tx.now();
        const worker = findWorker(tx, workerInstanceId, namespace);
        if (worker === undefined || !isLive(worker, now))
          return { kind: "notRegistered" };
        tx.run(BEAT, now, workerInstanceId, namespace);
        return { kind: "refreshed", nextExpiryMs: now + worker.ttl_ms };
      });
    },

    async deregisterWorker(args) {
      return await db.write((tx) => ({
        kind: remove(store, tx, args) ? "deregistered" : "notRegistered",
      }));
    },

    async markWorkerDead(args) {
      return await db.write((tx) => {
        const known = remove(store, tx, args);
        if (args.expireLeases) expireLeases(store, tx, args);
        return { kind: known ? "marked" : "notRegistered" };
      });
    },

    listWorkers: ({ namespace, after, limit }) =>
      db.read((tx) => {
        if (limit === 0) return { entries: [] };
        const now = tx.now();
        const rows = tx.all<WorkerRow>(
          LIST_WORKERS,
          after ?? "",
          namespace ?? null,
          now,
          limit + 1,
        );
        if (rows.length <= limit) return { entries: rows.map(toInfo) };
        // Entries that share an instance id stay on one page.
        let end = limit;
        while (
          end < rows.length &&
          rows[end]!.instance_id === rows[end - 1]!.instance_id
        )
          end++;
        if (end === rows.length) {
          const last = rows[end - 1]!.instance_id;
          const rest = findWorkerAnywhere(tx, last).filter(
            (row) =>
              isLive(row, now) &&
              (namespace === undefined || row.namespace === namespace),
          );
          const page = [
            ...rows.filter((row) => row.instance_id !== last),
            ...rest,
          ];
          const more =
            tx.get(LIST_WORKERS, last, namespace ?? null, now, 1) !== undefined;
          return {
            entries: page.map(toInfo),
            ...(more ? { nextCursor: last } : {}),
          };
        }
        const page = rows.slice(0, end);
        return {
          entries: page.map(toInfo),
          nextCursor: page.at(-1)!.instance_id,
        };
      }),

    watchWorker: ({ workerInstanceId, signal }) =>
      watch(store, workerInstanceId, signal),
  };
}

function remove(
  store: Store,
  tx: Session,
  { workerInstanceId, namespace }: Args<"deregisterWorker">,
): boolean {
  const now = tx.now();
  const worker = findWorker(tx, workerInstanceId, namespace);
  tx.run(DELETE_WORKER, workerInstanceId, namespace);
  tx.afterCommit(() => store.driver.heartbeats.forget(workerInstanceId));
  return worker !== undefined && isLive(worker, now);
}

function expireLeases(
  store: Store,
  tx: Session,
  { workerInstanceId, namespace, reason }: Args<"markWorkerDead">,
): void {
  const now = tx.now();
  for (const { id } of store.routes.matching(tx, namespace, undefined)) {
    for (const row of selectExecutions(
      tx,
      LEASES_OF_INSTANCE,
      id,
      workerInstanceId,
    )) {
      markLapsed(tx, row, effectiveNow(row, now), `worker_dead: ${reason}`);
      saveExecution(tx, row);
      ringAfterCommit(store, tx, row);
    }
  }
}

function toInfo(row: WorkerRow): WorkerInfo {
  return {
    workerId: row.worker_id as WorkerId,
    workerInstanceId: row.instance_id as WorkerInstanceId,
    namespace: row.namespace as Namespace,
    lanes: parseJson<LaneId[]>(row.lanes, "lanes"),
    capabilities: parseJson<string[]>(row.capabilities, "capabilities"),
    lastHeartbeatMs: row.heartbeat_at,
    livenessTtlMs: row.ttl_ms,
    registeredAtMs: row.registered_at,
  };
}

/** From now on; what happened before is known to whoever holds the lease. */
function watch(
  store: Store,
  instanceId: string,
  signal: AbortSignal | undefined,
): AsyncIterable<TaskEndedNotice> {
  store.wakeups.requireOpen();
  // Resolved at the call, so that nothing between the call and the first step is missed.
  const start = store.db.read(
    (tx) => tx.get<{ value: number }>(READ_POSITION)!.value,
  );
  start.catch(() => {});
  return closableIterable(async function* (ended) {
    let position = await start;
    while (!ended.aborted && !store.wakeups.closed) {
      const ticket = store.wakeups.ticket("losses");
      const from = position;
      const page = await store.db.read((tx) =>
        noticesAfter(store, tx, from, instanceId),
      );
      position = page.position;
      for (const notice of page.notices) yield notice;
      if (page.notices.length === 0)
        await store.wakeups.wait(ticket, WATCH_WAIT_MS, ended);
    }
  }, signal);
}

const WATCH_WAIT_MS = 30_000;

const READ_POSITION = `
  SELECT value
  FROM settings
  WHERE name = 'position'`;

const BEAT = `
  UPDATE workers
  SET heartbeat_at = ?
  WHERE instance_id = ? AND namespace = ?`;

const DELETE_WORKER = `
  DELETE FROM workers
  WHERE instance_id = ? AND namespace = ?`;

const LIST_WORKERS = `
  SELECT namespace, instance_id, worker_id, lanes, capabilities, ttl_ms, registered_at, heartbeat_at
  FROM workers
  WHERE instance_id > ? AND namespace = coalesce(?, namespace) AND heartbeat_at + ttl_ms > ?
  ORDER BY instance_id, namespace
  LIMIT ?`;

const LEASES_OF_INSTANCE = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ${HOME.active} AND holder IN (SELECT id FROM holders WHERE instance_id = ?)`;
