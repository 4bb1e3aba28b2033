import type {
  Args,
  DeliverSignalResult,
  Implementation,
  SignalEffect,
  SignalId,
  SignalOperations,
} from "@flowfabric/core";
import { bytesToUuid, uuidToBytes } from "@flowfabric/core/records";

import { optionalValues, textOf, type Reply } from "../connection.js";
import { refOf } from "../rows.js";
import type { Store } from "../store.js";
import { targetValues } from "./leases.js";

export function signalOperations({
  cells,
}: Store): Implementation<SignalOperations> {
  return {
    async deliverSignal(args) {
      const answer = await cells
        .of(args.executionId)
        .call(
          "deliver_signal",
          refOf(args.executionId),
          args.namespace ?? "",
          uuidToBytes(args.waitpointId),
          args.waitpointToken.kid,
          args.waitpointToken.digest,
          uuidToBytes(args.signalId),
          args.signalName,
          args.signalCategory,
          args.sourceType,
          args.sourceIdentity,
          args.correlationId,
          args.payloadEncoding,
          args.targetScope,
          ...optionalValues(args.payload),
          args.createdAtMs ?? "",
          args.idempotencyKey ?? "",
          args.dedupTtlMs,
          args.resumeDelayMs ?? "",
          args.maxSignalsPerExecution ?? "",
        );
      return toResult(answer, args);
    },

    async deliverApprovalSignal(args) {
      const answer = await cells
        .of(args.executionId)
        .call(
          "deliver_approval",
          ...targetValues(args),
          uuidToBytes(args.waitpointId),
          uuidToBytes(args.signalId),
          args.signalName,
          args.idempotencySuffix,
          args.signalDedupTtlMs,
          args.maxSignalsPerExecution ?? "",
        );
      return toResult(answer, args);
    },
  };
}

function toResult(
  [kind, value]: readonly Reply[],
  { signalId }: Pick<Args<"deliverSignal">, "signalId">,
): DeliverSignalResult {
  return textOf(kind!) === "duplicate"
    ? {
        kind: "duplicate",
        existingSignalId: bytesToUuid(value as Buffer) as SignalId,
      }
    : {
        kind: "accepted",
        signalId,
        effect: textOf(value!) as SignalEffect,
      };
}
