import {
  decodeHandle,
  refuse,
  type Handle,
  type HandlePayload,
  type Implementation,
  type LeaseId,
  type LeaseOperations,
  type Refusal,
} from "@flowfabric/core";
import { bytesToUuid, uuidToBytes } from "@flowfabric/core/records";

import { textOf, type Argument } from "../connection.js";
import { settle } from "../errors.js";
import { fenceValues } from "../procedures/fences.js";
import { refOf } from "../rows.js";
import type { Store } from "../store.js";

export function leaseOperations(store: Store): Implementation<LeaseOperations> {
  const { cells } = store;
  return {
    async renew({ handle }) {
      const own = settle(readHandle(handle));
      const [expiresAtMs, leaseEpoch] = await cells
        .of(own.executionId)
        .call(
          "renew",
          refOf(own.executionId),
          ...fenceValues(own),
          own.leaseTtlMs,
        );
      return {
        expiresAtMs: expiresAtMs as number,
        leaseEpoch: leaseEpoch as number,
      };
    },

    async renewLease(args) {
      const [expiresAtMs] = await cells
        .of(args.executionId)
        .call(
          "renew_lease",
          ...targetValues(args),
          ...fenceValues({ ...args.fence, attemptIndex: args.attemptIndex }),
          args.leaseTtlMs,
        );
      return { kind: "renewed", expiresAtMs: expiresAtMs as number };
    },

    async revokeLease(args) {
      const [outcome, second, leaseEpoch] = await cells
        .of(args.executionId)
        .call(
          "revoke_lease",
          ...targetValues(args),
          args.reason,
          args.expectedLeaseId === undefined
            ? ""
            : uuidToBytes(args.expectedLeaseId),
          args.hold ? 1 : 0,
        );
      if (textOf(outcome!) === "revoked")
        return {
          kind: "revoked",
          leaseId: bytesToUuid(second as Buffer) as LeaseId,
          leaseEpoch: leaseEpoch as number,
        };
      return {
        kind: "alreadySatisfied",
        reason: textOf(second!) as "already_revoked" | "already_expired",
      };
    },
  };
}

/** What a handle says, checked as far as it can be without the store. */
export function readHandle(handle: Handle): HandlePayload | Refusal {
  const own = decodeHandle(handle, "valkey");
  return handle.kind === "suspended" ? refuse("stale_lease", {}) : own;
}

/** Which execution, and what the caller says about it: three arguments. */
export function targetValues(args: {
  readonly executionId: string;
  readonly namespace?: string | undefined;
  readonly laneId?: string | undefined;
}): Argument[] {
  return [refOf(args.executionId), args.namespace ?? "", args.laneId ?? ""];
}
