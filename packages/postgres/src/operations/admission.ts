import {
  ADMISSION_REASONS,
  coverage,
  HOME,
  HOMES,
  isRefusal,
  isRunnableHome,
  isTerminalHome,
  missingCapabilities,
  notActiveDetail,
  refuse,
  type AdmissionOperations,
  type AdmissionReason,
  type Args,
  type BlockResult,
  type CapabilityExplanation,
  type Home,
  type Implementation,
  type LaneId,
  type Refusal,
  type WorkerInstanceId,
} from "@flowfabric/core";
import {
  changeDetails,
  effectiveNow,
  fencedRecord,
  HOLD,
  optional,
  publicStateAt,
  readDetails,
  reasonCode,
  homeAt,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import { lockExecution, saveExecution } from "../procedures/executions.js";
import {
  dropGrant,
  promoteIfDue,
  ringAfterCommit,
} from "../procedures/lifecycle.js";
import { appendEvent } from "../procedures/log.js";
import { liveWorkers } from "../procedures/registry.js";
import { unblock } from "../procedures/unblock.js";
import type { Session, Store } from "../store.js";
import { placeHold } from "./executions.js";

const HOME_OF: { readonly [R in AdmissionReason]: Home } = {
  waiting_for_budget: HOME.blockedBudget,
  waiting_for_quota: HOME.blockedQuota,
  waiting_for_capable_worker: HOME.blockedRoute,
  paused_by_operator: HOME.blockedOperator,
  paused_by_policy: HOME.blockedLane,
};
const HOLD_OF: { readonly [R in AdmissionReason]?: number } = {
  paused_by_operator: HOLD.operator,
  paused_by_policy: HOLD.lane,
};
const EXPLAINED_WORKERS_MAX = 100;

export function admissionOperations(
  store: Store,
): Implementation<AdmissionOperations> {
  const { db } = store;
  return {
    async blockExecutionForAdmission(args) {
      return settle(await db.write(async (tx) => await block(store, tx, args)));
    },

    async blockRoute(args) {
      return settle(await db.write(async (tx) => await block(store, tx, args)));
    },

    async unblockExecution(args) {
      return settle(
        await db.write(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const now = effectiveNow(row, tx.now());
          const reason = ADMISSION_REASONS.find(
            (known) => HOME_OF[known] === row.home,
          );

          if (reason === undefined) return refuse("execution_not_eligible", {});
          if (
            args.expectedBlockingReason !== undefined &&
            args.expectedBlockingReason !== reason
          )
            return refuse("execution_not_eligible", {});
          // An operator's hold is lifted only by someone who says so.
          if (
            reason === "paused_by_operator" &&
            args.expectedBlockingReason !== reason
          )
            return refuse("execution_not_eligible", {});

          row.holds &= ~(HOLD_OF[reason] ?? 0);
          unblock(store, tx, row, now, "operator");

          return {
            kind: "unblocked" as const,
            publicState: publicStateAt(row, now),
          };
        }),
      );
    },

    async explainCapabilityMismatch(args) {
      return settle(
        await db.read(async (tx) => await explain(store, tx, args)),
      );
    },
  };
}

async function block(
  store: Store,
  tx: Session,
  args: Args<"blockExecutionForAdmission">,
): Promise<BlockResult | Refusal> {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (isTerminalHome(row.home))
    return refuse("execution_not_active", notActiveDetail(fencedRecord(row)));
  if (!isRunnableHome(row.home)) return refuse("execution_not_eligible", {});
  const reason = ADMISSION_REASONS.find((known) => known === args.reason);
  if (reason === undefined)
    return refuse("invalid_blocking_reason", { reason: args.reason });
  const hold = HOLD_OF[reason];
  if (
    row.home === HOME_OF[reason] ||
    (hold !== undefined && (row.holds & hold) !== 0)
  )
    return { kind: "alreadySatisfied" };
  if (hold === undefined && homeAt(row, now) !== HOME.eligible)
    return refuse("execution_not_eligible", {});

  if (hold !== undefined) {
    placeHold(tx, row, hold, args.reasonDetail, now);
  } else {
    promoteIfDue(tx, row, now);
    dropGrant(tx, row);
    row.home = HOME_OF[reason];
    row.score = now;
    row.reason = reasonCode(reason);
    row.transitioned_at = now;
    row.mutated_at = now;
    changeDetails(row, { blockingDetail: args.reasonDetail, blockedAtMs: now });
  }
  appendEvent(tx, row, "blocked", now, "engine", { reason });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  return { kind: "blocked", executionId: args.executionId, reason };
}

async function explain(
  store: Store,
  tx: Session,
  args: Args<"explainCapabilityMismatch">,
): Promise<CapabilityExplanation | Refusal> {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = tx.now();
  const { required, lane, namespace } = store.routes.require(row.route);
  const live = await liveWorkers(tx, namespace, now);
  const home = homeAt(row, now);
  const open =
    HOMES[home].phase === "runnable" ||
    home === HOME.lapsed ||
    home === HOME.revoked;
  const { mismatchAtMs, blockedAtMs } = readDetails(row.details);
  return {
    required,
    verdict: open ? coverage(required, lane, live) : "not_applicable",
    workers: live
      .map(({ workerInstanceId, lanes, capabilities }) => ({
        workerInstanceId: workerInstanceId as WorkerInstanceId,
        lanes: lanes as LaneId[],
        missing: missingCapabilities(required, new Set(capabilities)),
      }))
      .sort(
        (a, b) =>
          a.missing.length - b.missing.length ||
          (a.workerInstanceId < b.workerInstanceId ? -1 : 1),
      )
      .slice(0, EXPLAINED_WORKERS_MAX),
    ...optional("lastMismatchAtMs", mismatchAtMs),
    ...optional("blockedSinceMs", blockedAtMs),
  };
}
