import {
  type Implementation,
  type MaintenanceOperations,
  type SweepName,
  type SweepResult,
} from "@flowfabric/core";
import { optional, uuidToBytes } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { optionalNumber, optionalText, textOf } from "../connection.js";
import { mayHaveWork } from "../procedures/drive.js";
import { Reconciler } from "../procedures/reconcile.js";
import { refOf } from "../rows.js";
import type { Store } from "../store.js";

export function maintenanceOperations(
  store: Store,
): Implementation<MaintenanceOperations> {
  const { cells, options } = store;
  const reconciler = new Reconciler(cells.all);
  return {
    async sweep({ name, limit }) {
      if (name === "index_reconciler") {
        const { processed, more } = await reconciler.goOn(limit);
        return { processed, more };
      }
      return await sweepCells(store, name, limit);
    },

    async markLeaseExpiredIfDue({ executionId, namespace }) {
      const [outcome] = await cells
        .of(executionId)
        .call("mark_lease_expired", refOf(executionId), namespace ?? "");
      const kind = textOf(outcome!);
      return (
        kind === "markedExpired"
          ? { kind }
          : { kind: "alreadySatisfied", reason: kind }
      ) as Answer<"markLeaseExpiredIfDue">;
    },

    async promoteDelayed({ executionId, namespace }) {
      const [kind] = await cells
        .of(executionId)
        .call("promote_delayed", refOf(executionId), namespace ?? "");
      return { kind: textOf(kind!) } as Answer<"promoteDelayed">;
    },

    async expireExecution({
      executionId,
      namespace,
      reason,
      attemptIndex,
      dueAtMs,
    }) {
      const [kind] = await cells
        .of(executionId)
        .call(
          "expire",
          refOf(executionId),
          namespace ?? "",
          reason,
          Math.random(),
          attemptIndex ?? "",
          dueAtMs ?? "",
        );
      return { kind: textOf(kind!) } as Answer<"expireExecution">;
    },

    async expireSuspension({ executionId, namespace }) {
      const [kind, behavior] = await cells
        .of(executionId)
        .call("expire_suspension", refOf(executionId), namespace ?? "");
      return {
        kind: textOf(kind!),
        ...optional("behavior", optionalText(behavior)),
      } as Answer<"expireSuspension">;
    },

    async expirePendingWaitpoint({ executionId, namespace, waitpointId }) {
      const [kind] = await cells
        .of(executionId)
        .call(
          "expire_waitpoint",
          refOf(executionId),
          namespace ?? "",
          uuidToBytes(waitpointId),
        );
      return { kind: textOf(kind!) } as Answer<"expirePendingWaitpoint">;
    },

    async trimRetention({
      partition,
      laneId,
      retentionMs = options.retentionMs,
      batchSize,
    }) {
      let purged = 0;
      for (const cell of cellsOf(store, partition)) {
        if (purged >= batchSize) break;
        const [count] = await cell.call(
          "trim_retention",
          retentionMs,
          batchSize - purged,
          laneId ?? "",
          partition ?? "",
        );
        purged += count as number;
      }
      return purged;
    },

    async reconcileExecutionIndex({ partition }) {
      const whole = new Reconciler(cellsOf(store, partition), partition);
      let processed = 0;
      let errors = 0;
      for (;;) {
        const part = await whole.goOn(REPAIRS_MAX);
        processed += part.processed;
        errors += part.errors;
        if (!part.more) return { processed, errors };
      }
    },

    async serverTimeMs() {
      const [nowMs] = await cells.first.call("now");
      return nowMs as number;
    },
  };
}

type Answer<Name extends keyof MaintenanceOperations> = Awaited<
  ReturnType<MaintenanceOperations[Name]>
>;

/** In one go; more than there ever are. */
const REPAIRS_MAX = 1_000_000_000;

function cellsOf(
  { cells }: Store,
  partition: number | undefined,
): readonly Cell[] {
  return partition === undefined ? cells.all : [cells.ofPartition(partition)];
}

/** Cell by cell, until the limit is reached. The first one changes, so that none is left for later each time. */
async function sweepCells(
  store: Store,
  name: SweepName,
  limit: number,
): Promise<SweepResult> {
  const { options } = store;
  // Workers are in all of them.
  const all =
    name === "worker_registry_ttl_sweep"
      ? store.cells.all
      : store.cells.all.filter((cell) => mayHaveWork(store, cell));
  const from = turn++ % Math.max(1, all.length);
  let processed = 0;
  let isMore = false;
  let nextDueAtMs = Infinity;
  for (const cell of [...all.slice(from), ...all.slice(0, from)]) {
    if (processed >= limit) {
      isMore = true;
      break;
    }
    const [done, more, dueAt] = await cell.call(
      "sweep",
      name,
      limit - processed,
      Math.random(),
      options.retentionMs,
      options.feedRetentionMs,
      options.feedEventsMax,
    );
    // Every cell has all workers: each that is forgotten counts once.
    processed =
      name === "worker_registry_ttl_sweep"
        ? Math.max(processed, done as number)
        : processed + (done as number);
    isMore ||= more === 1;
    nextDueAtMs = Math.min(nextDueAtMs, optionalNumber(dueAt) ?? Infinity);
  }
  return {
    processed,
    more: isMore,
    ...(nextDueAtMs === Infinity ? {} : { nextDueAtMs }),
  };
}
let turn = 0;
