import {
  HOMES,
  type AdmissionOperations,
  type AdmissionReason,
  type Args,
  type BlockResult,
  type CapabilityVerdict,
  type Home,
  type Implementation,
  type LaneId,
  type WorkerInstanceId,
} from "@flowfabric/core";
import { optional, readDetails } from "@flowfabric/core/records";

import { listOf, optionalText, optionalValues, textOf } from "../connection.js";
import type { Store } from "../store.js";
import { targetValues } from "./leases.js";

export function admissionOperations(
  store: Store,
): Implementation<AdmissionOperations> {
  const { cells } = store;
  return {
    blockExecutionForAdmission: (args) => block(store, args),

    blockRoute: (args) => block(store, args),

    async unblockExecution(args) {
      const [home] = await cells
        .of(args.executionId)
        .call(
          "unblock",
          ...targetValues(args),
          args.expectedBlockingReason ?? "",
        );
      return {
        kind: "unblocked",
        publicState: HOMES[home as Home].publicState,
      };
    },

    async explainCapabilityMismatch(args) {
      const [required, verdict, workers, said] = await cells
        .of(args.executionId)
        .call("explain", ...targetValues(args));
      const { mismatchAtMs, blockedAtMs } = readDetails(optionalText(said));
      return {
        required: listOf(required).map(textOf),
        verdict: textOf(verdict!) as CapabilityVerdict,
        workers: listOf(workers).map((worker) => {
          const [instanceId, lanes, missing] = listOf(worker);
          return {
            workerInstanceId: textOf(instanceId!) as WorkerInstanceId,
            lanes: listOf(lanes).map(textOf) as LaneId[],
            missing: listOf(missing).map(textOf),
          };
        }),
        ...optional("lastMismatchAtMs", mismatchAtMs),
        ...optional("blockedSinceMs", blockedAtMs),
      };
    },
  };
}

async function block(
  { cells }: Store,
  args: Args<"blockExecutionForAdmission">,
): Promise<BlockResult> {
  const [outcome] = await cells
    .of(args.executionId)
    .call(
      "block",
      ...targetValues(args),
      args.reason,
      ...optionalValues(args.reasonDetail),
    );
  return textOf(outcome!) === "blocked"
    ? {
        kind: "blocked",
        executionId: args.executionId,
        reason: args.reason as AdmissionReason,
      }
    : { kind: "alreadySatisfied" };
}
