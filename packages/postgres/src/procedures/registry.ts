/** Who is alive: reading the registry, and counting claims as heartbeats. */
import {
  coverage,
  EPHEMERAL_WORKER_TTL_MS,
  HEARTBEAT_THROTTLE_MS,
  type LiveWorker,
} from "@flowfabric/core";
import { parseJson, type Presence } from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import type { Route } from "./routes.js";
import { unblockRoutes } from "./unblock.js";

export interface WorkerRow {
  readonly namespace: string;
  readonly instance_id: string;
  readonly worker_id: string;
  readonly lanes: string;
  readonly capabilities: string;
  readonly ttl_ms: number;
  readonly registered_at: number;
  readonly heartbeat_at: number;
}

export function isLive(row: WorkerRow, nowMs: number): boolean {
  return row.heartbeat_at + row.ttl_ms > nowMs;
}

export async function findWorker(
  tx: Session,
  instanceId: string,
  namespace: string,
): Promise<WorkerRow | undefined> {
  return await tx.get<WorkerRow>(FIND_WORKER, instanceId, namespace);
}

/** The instance in every namespace that knows it. */
export async function findWorkerAnywhere(
  tx: Session,
  instanceId: string,
): Promise<WorkerRow[]> {
  return await tx.all<WorkerRow>(FIND_WORKER_ANYWHERE, instanceId);
}

export async function liveWorkers(
  tx: Session,
  namespace: string,
  nowMs: number,
): Promise<LiveWorker[]> {
  return (await tx.all<WorkerRow>(LIVE_WORKERS, namespace, nowMs)).map(
    (row) => ({
      workerInstanceId: row.instance_id,
      lanes: parseJson<string[]>(row.lanes, "lanes"),
      capabilities: parseJson<string[]>(row.capabilities, "capabilities"),
    }),
  );
}

/**
 * A claim proves that its worker lives. Written at most every 10 s per instance and process; a caller that never
 * registered is kept as an ephemeral worker, so that its lanes and capabilities count too.
 */
export class Heartbeats {
  readonly #writtenAtMs = new Map<string, number>();

  isDue(presence: Presence, nowMs: number): boolean {
    const written = this.#writtenAtMs.get(presence.workerInstanceId);
    // Also after the clock was moved back.
    return (
      written === undefined ||
      Math.abs(nowMs - written) >= HEARTBEAT_THROTTLE_MS
    );
  }

  async write(
    store: Store,
    tx: Session,
    presence: Presence,
    nowMs: number,
  ): Promise<void> {
    tx.afterCommit(() =>
      this.#writtenAtMs.set(presence.workerInstanceId, nowMs),
    );
    if ((await tx.change(BEAT, nowMs, presence.workerInstanceId, nowMs)) > 0)
      return;
    const namespace = presence.namespace ?? "default";
    writeWorker(
      tx,
      { ...presence, namespace, livenessTtlMs: EPHEMERAL_WORKER_TTL_MS },
      nowMs,
      nowMs,
    );
    await wakeCovered(store, tx, namespace, presence.lanes, nowMs);
  }

  forget(instanceId: string): void {
    this.#writtenAtMs.delete(instanceId);
  }
}

export function writeWorker(
  tx: Session,
  worker: Presence & {
    readonly namespace: string;
    readonly livenessTtlMs: number;
  },
  registeredAtMs: number,
  nowMs: number,
): void {
  tx.run(
    WRITE_WORKER,
    worker.namespace,
    worker.workerInstanceId,
    worker.workerId,
    JSON.stringify(worker.lanes),
    JSON.stringify(worker.capabilities),
    worker.livenessTtlMs,
    registeredAtMs,
    nowMs,
  );
}

/** Work that waited for these capabilities goes back into the order, as much as fits one step. */
export async function wakeCovered(
  store: Store,
  tx: Session,
  namespace: string,
  lanes: readonly string[],
  nowMs: number,
): Promise<void> {
  const live = await liveWorkers(tx, namespace, nowMs);
  const covered = store.routes
    .matching(namespace, lanes)
    .filter((route) => isCovered(route, live));
  if (covered.length > 0)
    await unblockRoutes(store, tx, covered, nowMs, WOKEN_MAX);
}

const WOKEN_MAX = 500;

export function isCovered(route: Route, live: readonly LiveWorker[]): boolean {
  const verdict = coverage(route.required, route.lane, live);
  return verdict === "covered" || verdict === "not_applicable";
}

const FIND_WORKER = `
  SELECT namespace, instance_id, worker_id, lanes, capabilities, ttl_ms, registered_at, heartbeat_at
  FROM workers
  WHERE instance_id = ? AND namespace = ?`;

const FIND_WORKER_ANYWHERE = `
  SELECT namespace, instance_id, worker_id, lanes, capabilities, ttl_ms, registered_at, heartbeat_at
  FROM workers
  WHERE instance_id = ?`;

const LIVE_WORKERS = `
  SELECT namespace, instance_id, worker_id, lanes, capabilities, ttl_ms, registered_at, heartbeat_at
  FROM workers
  WHERE namespace = ? AND heartbeat_at + ttl_ms > ?`;

const BEAT = `
  UPDATE workers
  SET heartbeat_at = ?
  WHERE instance_id = ? AND heartbeat_at + ttl_ms > ?`;

const WRITE_WORKER = `
  INSERT INTO workers (namespace, instance_id, worker_id, lanes, capabilities, ttl_ms, registered_at, heartbeat_at)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT (instance_id, namespace) DO UPDATE
  SET worker_id = excluded.worker_id, lanes = excluded.lanes, capabilities = excluded.capabilities,
    ttl_ms = excluded.ttl_ms, registered_at = excluded.registered_at, heartbeat_at = excluded.heartbeat_at`;
