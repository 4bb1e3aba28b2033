import {
  isEngineError,
  newAttemptId,
  newLeaseId,
  type Args,
  type ClaimedExecution,
  type Grant,
  type GrantKind,
  type GrantOperations,
  type Implementation,
  type LaneId,
} from "@flowfabric/core";
import { uuidToBytes } from "@flowfabric/core/records";

import { jsonOf, textOf, type Argument, type Reply } from "../connection.js";
import { toGrant } from "../procedures/grants.js";
import { toClaimedExecution } from "../procedures/take.js";
import type { Store } from "../store.js";
import { targetValues } from "./leases.js";

const OPERATOR = { workerId: "operator", workerInstanceId: "operator" };

export function grantOperations(store: Store): Implementation<GrantOperations> {
  const { cells } = store;
  return {
    async issueClaimGrant(args) {
      const [kind, lane, expiresAt] = await cells
        .of(args.executionId)
        .call(
          "issue_claim_grant",
          ...targetValues(args),
          ...grantRequestValues(args),
        );
      const grant = toIssuedGrant(args, {
        kind: textOf(kind!) as GrantKind,
        lane,
        expiresAt,
      });
      return { kind: "granted", grant };
    },

    async claimExecution(args) {
      const cell = cells.of(args.executionId);
      const claim = await cell.call(
        "claim_execution",
        ...targetValues(args),
        ...leaseValues(args),
        args.attemptTimeoutMs ?? "",
        args.executionDeadlineAtMs ?? "",
      );
      return {
        kind: "claimed",
        claimed: toClaimedExecution(claim),
      };
    },

    async claimResumedExecution(args) {
      return { kind: "claimed", claimed: await claimResumed(store, args) };
    },

    async claimFromResumeGrant({ grant, leaseId = newLeaseId(), ...claimant }) {
      const { executionId, laneId } = grant;
      try {
        return await claimResumed(store, {
          ...claimant,
          executionId,
          laneId,
          leaseId,
        });
      } catch (error) {
        if (isEngineError(error) && GONE.has(error.code)) return undefined;
        throw error;
      }
    },

    async issueGrantAndClaim(args) {
      const cell = cells.of(args.executionId);
      const claim = await cell.call(
        "issue_grant_and_claim",
        ...targetValues(args),
        ...leaseValues({
          ...OPERATOR,
          leaseTtlMs: args.leaseTtlMs,
          leaseId: newLeaseId(),
          attemptId: newAttemptId(),
        }),
      );
      const { executionId, leaseId, leaseEpoch, attemptIndex, attemptId } =
        toClaimedExecution(claim);
      return { executionId, leaseId, leaseEpoch, attemptIndex, attemptId };
    },
  };
}

const GONE: ReadonlySet<string> = new Set([
  "execution_not_found",
  "execution_not_leaseable",
  "not_a_resumed_execution",
]);

async function claimResumed(
  { cells }: Store,
  args: Args<"claimResumedExecution">,
): Promise<ClaimedExecution> {
  const cell = cells.of(args.executionId);
  const claim = await cell.call(
    "claim_resumed_execution",
    ...targetValues(args),
    ...leaseValues(args),
  );
  return toClaimedExecution(claim);
}

/** As operation.read_grant_request in lua/functions/grants.lua reads it: five arguments. */
export function grantRequestValues(
  args: Args<"issueClaimGrant"> | Args<"issueReclaimGrant">,
): Argument[] {
  const { capabilityHash, routeSnapshotJson, admissionSummary } = args;
  const notes = JSON.stringify({
    capabilityHash,
    routeSnapshotJson,
    admissionSummary,
  });
  return [
    args.workerId,
    args.workerInstanceId,
    jsonOf(args.workerCapabilities),
    args.grantTtlMs,
    notes === "{}" ? "" : notes,
  ];
}

/** As operation.read_taker in lua/functions/grants.lua reads it: six arguments. */
export function leaseValues(lease: {
  readonly workerId: string;
  readonly workerInstanceId: string;
  readonly leaseId: string;
  readonly attemptId?: string;
  readonly leaseTtlMs: number;
  readonly renewBeforeMs?: number | undefined;
}): Argument[] {
  return [
    lease.workerId,
    lease.workerInstanceId,
    uuidToBytes(lease.leaseId),
    lease.attemptId === undefined ? "" : uuidToBytes(lease.attemptId),
    lease.leaseTtlMs,
    lease.renewBeforeMs ?? Math.floor((lease.leaseTtlMs * 2) / 3),
  ];
}

export function toIssuedGrant(
  { executionId }: Pick<Grant, "executionId">,
  issued: {
    readonly kind: GrantKind;
    readonly lane: Reply | undefined;
    readonly expiresAt: Reply | undefined;
  },
): Grant {
  return toGrant(
    issued.kind,
    executionId,
    issued.expiresAt as number,
    textOf(issued.lane!) as LaneId,
  );
}
