/** The fence of a call, as functions take it. */
import { uuidToBytes } from "@flowfabric/core/records";

import type { Argument } from "../connection.js";

/** As operation.read_fence in lua/functions/leases.lua reads it: four arguments. */
export function fenceValues(
  fence:
    | {
        readonly leaseId?: string | undefined;
        readonly leaseEpoch?: number | undefined;
        readonly attemptId?: string | undefined;
        readonly attemptIndex?: number | undefined;
      }
    | undefined,
): Argument[] {
  return [
    fence?.leaseId === undefined ? "" : uuidToBytes(fence.leaseId),
    fence?.leaseEpoch ?? "",
    fence?.attemptId === undefined ? "" : uuidToBytes(fence.attemptId),
    fence?.attemptIndex ?? "",
  ];
}
