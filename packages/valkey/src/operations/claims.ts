import {
  inTurn,
  type Args,
  type ClaimForWorkerResult,
  type ClaimManyResult,
  type ClaimOperations,
  type GrantKind,
  type Implementation,
} from "@flowfabric/core";
import { executionIdOf } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { listOf, textOf } from "../connection.js";
import { claimNow } from "../procedures/claiming.js";
import { toGrant } from "../procedures/grants.js";
import { patiently } from "../procedures/outages.js";
import { parked, type Attempt } from "../procedures/parking.js";
import { routesJson } from "../procedures/routes.js";
import { requireSome, servingCells } from "../procedures/serving.js";
import { readRef } from "../rows.js";
import type { Store } from "../store.js";

export function claimOperations(store: Store): Implementation<ClaimOperations> {
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
        attempt: () => grantOne(store, args),
        isEmpty: (answer) => answer.kind === "noWork",
      });
    },

    async scanEligibleExecutions({ laneId, limit, partition }) {
      const cells =
        partition === undefined
          ? store.cells.all
          : [store.cells.ofPartition(partition)];
      const pages = await Promise.all(
        cells.map(async (cell) => {
          await cell.routes.refresh();
          const [, refs] = await cell.numbered(() =>
            cell.call(
              "scan_eligible",
              routesJson(cell.routes.ofLane(laneId)),
              limit,
              partition ?? "",
              cell.routes.mark,
            ),
          );
          return listOf(refs).map((ref) => executionIdOf(readRef(ref)));
        }),
      );
      return inTurn(pages).slice(0, limit);
    },
  };
}

/** Claims once, and with `maxWaitMs` again whenever there may be something. */
async function claimWaiting(
  store: Store,
  args: Args<"claimMany">,
): Promise<ClaimManyResult> {
  let { repeat } = args;
  return await parked(store, args, args.maxWaitMs ?? 0, args.signal, {
    async attempt() {
      const attempt = await claimNow(store, { ...args, repeat });
      // What failed may have been applied, and its leases wait to be asked for.
      repeat ||= attempt.failure !== undefined;
      return attempt;
    },
    isEmpty: (answer) => answer.claimed.length === 0,
    dueInMs: (answer) => answer.nextDueInMs ?? Infinity,
  });
}

/** @throws what a cell failed with, where none could be asked */
async function grantOne(
  store: Store,
  args: Args<"claimForWorker">,
): Promise<Attempt<ClaimForWorkerResult>> {
  const { cells, ...serving } = await servingCells(
    store,
    { lanes: [args.laneId] },
    { mayRelyOnRings: (args.maxWaitMs ?? 0) > 0 },
  );
  let { reached, failure } = serving;
  let isBlocked = false;
  for (const cell of cells) {
    try {
      // A grant that comes late lapses.
      const answer = await patiently(
        cell,
        () => grantOf(cell, args),
        cells.length > 1,
      );
      if (answer.kind === "granted") return { answer };
      reached++;
      isBlocked ||= answer.reason === "blocked";
    } catch (error) {
      failure ??= error as Error;
    }
  }
  if (failure !== undefined) requireSome(reached, failure);
  return {
    answer: { kind: "noWork", reason: isBlocked ? "blocked" : "empty" },
    failure,
  };
}

async function grantOf(
  cell: Cell,
  args: Args<"claimForWorker">,
): Promise<ClaimForWorkerResult> {
  const offered = new Set(args.capabilities);
  await cell.routes.refresh();
  const [, outcome, kind, ref, expiresAt] = await cell.numbered(() =>
    cell.call(
      "claim_for_worker",
      routesJson(cell.routes.serveable(args.laneId, offered, args.namespace)),
      routesJson(
        cell.routes
          .ofLane(args.laneId)
          .filter(
            ({ namespace }) =>
              args.namespace === undefined || namespace === args.namespace,
          ),
      ),
      args.workerId,
      args.workerInstanceId,
      args.grantTtlMs,
      "",
      cell.routes.mark,
    ),
  );
  const told = textOf(outcome!);
  if (told !== "granted")
    return { kind: "noWork", reason: told as "empty" | "blocked" };
  return {
    kind: "granted",
    grant: toGrant(
      textOf(kind!) as GrantKind,
      executionIdOf(readRef(ref)),
      expiresAt as number,
      args.laneId,
    ),
  };
}
