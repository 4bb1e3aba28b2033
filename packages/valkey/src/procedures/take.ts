/** Turns what a function took for a worker into a claimed execution. */
import {
  encodeHandle,
  type AttemptId,
  type ClaimedExecution,
  type LaneId,
  type LeaseId,
  type WorkerInstanceId,
} from "@flowfabric/core";
import {
  ATTEMPT_TYPES,
  bytesToUuid,
  executionIdOf,
  readTags,
} from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { listOf, optionalText, textOf, type Reply } from "../connection.js";
import { readRef } from "../rows.js";
import { toHolder } from "./holders.js";

export async function toClaimedExecutions(
  cell: Cell,
  claims: readonly Reply[],
  { workerInstanceId }: { readonly workerInstanceId: WorkerInstanceId },
): Promise<ClaimedExecution[]> {
  return await Promise.all(
    claims.map(async (reply) => {
      const claim = listOf(reply);
      const { lane } = await cell.routes.require(claim[2] as number);
      return toClaimed(claim, lane, workerInstanceId);
    }),
  );
}

/** As take.answer_in_full in lua/lib/take.lua says it. */
export function toClaimedExecution(claim: readonly Reply[]): ClaimedExecution {
  const { workerInstanceId } = toHolder(claim[9]!);
  return toClaimed(claim, textOf(claim[2]!), workerInstanceId);
}

/** As take.answer in lua/lib/take.lua says it. */
function toClaimed(
  claim: readonly Reply[],
  lane: string,
  workerInstanceId: WorkerInstanceId,
): ClaimedExecution {
  const kind = textOf(claim[0]!) as ClaimedExecution["kind"];
  const executionId = executionIdOf(readRef(claim[1]));
  const laneId = lane as LaneId;
  const attemptIndex = claim[4] as number;
  const attemptId = bytesToUuid(claim[5] as Buffer) as AttemptId;
  const leaseId = bytesToUuid(claim[7] as Buffer) as LeaseId;
  const leaseEpoch = claim[8] as number;
  return {
    kind,
    executionId,
    laneId,
    leaseId,
    leaseEpoch,
    attemptIndex,
    attemptId,
    attemptType: ATTEMPT_TYPES[claim[6] as number]!,
    leaseExpiresAtMs: claim[10] as number,
    handle: encodeHandle("valkey", kind, {
      executionId,
      attemptIndex,
      attemptId,
      leaseId,
      leaseEpoch,
      leaseTtlMs: claim[11] as number,
      laneId,
      workerInstanceId,
    }),
    context: {
      inputPayload: (claim[13] as Buffer | null) ?? EMPTY,
      executionKind: textOf(claim[3]!),
      tags: readTags(optionalText(claim[12])),
    },
  };
}

const EMPTY = new Uint8Array();
