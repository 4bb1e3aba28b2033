/** Who is alive: workers as the server keeps them, and claims that count as heartbeats. */
import type {
  LaneId,
  Namespace,
  WorkerId,
  WorkerInfo,
  WorkerInstanceId,
} from "@flowfabric/core";
import { parseJson, type Presence } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import {
  jsonOf,
  listOf,
  textOf,
  type Argument,
  type Reply,
} from "../connection.js";

/** The arguments that tell the server who a worker is. */
export function workerValues(worker: Presence): Argument[] {
  return [
    worker.namespace ?? "default",
    worker.workerInstanceId,
    worker.workerId,
    jsonOf(worker.lanes),
    jsonOf(worker.capabilities),
  ];
}

interface StoredWorker {
  readonly workerId: WorkerId;
  /** JSON within JSON. */
  readonly lanes: string;
  readonly capabilities: string;
  readonly ttlMs: number;
  readonly registeredAtMs: number;
  readonly heartbeatAtMs: number;
}

/** As registry.list in lua/lib/registry.lua says it. */
export function toWorkerInfo(reply: Reply): WorkerInfo {
  const [instanceId, namespace, stored] = listOf(reply).map(textOf);
  const worker = parseJson<StoredWorker>(stored!, "worker");
  return {
    workerId: worker.workerId,
    workerInstanceId: instanceId as WorkerInstanceId,
    namespace: namespace as Namespace,
    lanes: parseJson<LaneId[]>(worker.lanes, "lanes"),
    capabilities: parseJson<string[]>(worker.capabilities, "capabilities"),
    lastHeartbeatMs: worker.heartbeatAtMs,
    livenessTtlMs: worker.ttlMs,
    registeredAtMs: worker.registeredAtMs,
  };
}

/**
 * A claim proves that its worker lives. Written at most every 10 s per instance and process; a caller that never
 * registered is kept as an ephemeral worker, so that its lanes and capabilities count too.
 */
export class Heartbeats {
  readonly #writtenAtMs = new Map<string, Map<Cell, number>>();

  /** In that cell, by its clock; the server tells whether it is time again. */
  writtenAtMs(instanceId: string, cell: Cell): number | undefined {
    return this.#writtenAtMs.get(instanceId)?.get(cell);
  }

  written(instanceId: string, cell: Cell, atMs: number): void {
    const inCells = this.#writtenAtMs.get(instanceId);
    if (inCells === undefined)
      this.#writtenAtMs.set(instanceId, new Map([[cell, atMs]]));
    else inCells.set(cell, atMs);
  }

  forget(instanceId: string): void {
    this.#writtenAtMs.delete(instanceId);
  }
}
