import {
  HOME,
  HOMES,
  isEngineError,
  isRefusal,
  isRunnableHome,
  missingCapabilities,
  newLeaseId,
  refuse,
  type Args,
  type ClaimedExecution,
  type GrantKind,
  type GrantOperations,
  type Implementation,
  type Refusal,
  type WorkerId,
  type WorkerInstanceId,
} from "@flowfabric/core";
import {
  attemptStateCode,
  bytesToUuid,
  changeDetails,
  effectiveNow,
  type ExecutionRow,
  isInterrupted,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import { lockExecution, saveExecution } from "../procedures/executions.js";
import { hasLiveGrant, readGrant, writeGrant } from "../procedures/grants.js";
import {
  dropGrant,
  promoteIfDue,
  ringAfterCommit,
} from "../procedures/lifecycle.js";
import { claimedExecution, takeExecution } from "../procedures/take.js";
import type { Session, Store } from "../store.js";

const OPERATOR = {
  workerId: "operator" as WorkerId,
  workerInstanceId: "operator" as WorkerInstanceId,
};

export function grantOperations(store: Store): Implementation<GrantOperations> {
  const { db } = store;
  return {
    async issueClaimGrant(args) {
      return settle(
        await db.write(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const now = effectiveNow(row, tx.now());
          const route = store.routes.require(row.route);

          if (!isEligible(row, now))
            return refuse("execution_not_eligible", {});
          if (hasLiveGrant(row, now))
            return refuse("grant_already_exists", {
              expiresAtMs: row.grant_until!,
            });
          const missing = missingCapabilities(
            route.required,
            new Set(args.workerCapabilities),
          );
          if (missing.length > 0) {
            changeDetails(row, { mismatchAtMs: now });
            saveExecution(tx, row);
            return refuse("capability_mismatch", {
              missing: missing.join(","),
            });
          }

          promoteIfDue(tx, row, now);
          const grant = writeGrant(
            tx,
            row,
            isInterrupted(row) ? "resume" : "claim",
            args,
            route.lane,
            now,
          );
          saveExecution(tx, row);

          return { kind: "granted" as const, grant };
        }),
      );
    },

    async claimExecution(args) {
      return {
        kind: "claimed",
        claimed: settle(
          await db.write(async (tx) => await claimFresh(store, tx, args)),
        ),
      };
    },

    async claimResumedExecution(args) {
      return {
        kind: "claimed",
        claimed: settle(
          await db.write(async (tx) => await claimResumed(store, tx, args)),
        ),
      };
    },

    async claimFromResumeGrant(args) {
      const {
        grant,
        workerId,
        workerInstanceId,
        leaseTtlMs,
        leaseId = newLeaseId(),
      } = args;
      try {
        const input = {
          executionId: grant.executionId,
          laneId: grant.laneId,
          workerId,
          workerInstanceId,
          leaseTtlMs,
          leaseId,
        };
        return settle(
          await db.write(async (tx) => await claimResumed(store, tx, input)),
        );
      } catch (error) {
        if (isEngineError(error) && GONE.has(error.code)) return undefined;
        throw error;
      }
    },

    async issueGrantAndClaim(args) {
      return settle(
        await db.write(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const now = effectiveNow(row, tx.now());

          if (!isRunnableHome(row.home))
            return refuse("execution_not_eligible", {});
          if (hasLiveGrant(row, now))
            return refuse("grant_already_exists", {
              expiresAtMs: row.grant_until!,
            });
          if (!isEligible(row, now))
            return refuse("execution_not_in_eligible_set", {});

          const reason = isInterrupted(row)
            ? "issue_grant_and_claim_resumed"
            : "issue_grant_and_claim";
          const claimed = (await takeExecution(
            store,
            tx,
            row,
            { ...OPERATOR, leaseTtlMs: args.leaseTtlMs, reason },
            now,
          ))!;
          ringAfterCommit(store, tx, row);

          const { executionId, leaseId, leaseEpoch, attemptIndex, attemptId } =
            claimed;
          return { executionId, leaseId, leaseEpoch, attemptIndex, attemptId };
        }),
      );
    },
  };
}

const GONE: ReadonlySet<string> = new Set([
  "execution_not_found",
  "execution_not_leaseable",
  "not_a_resumed_execution",
]);

function isEligible(row: ExecutionRow, nowMs: number): boolean {
  return (
    row.home === HOME.eligible ||
    (row.home === HOME.delayed && row.score <= nowMs)
  );
}

async function claimFresh(
  store: Store,
  tx: Session,
  args: Args<"claimExecution">,
): Promise<ClaimedExecution | Refusal> {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (
    isOwnLease(store, row, args, now) &&
    bytesToUuid(row.attempt_id!) === args.attemptId
  )
    return await claimedExecution(store, tx, row, "fresh");
  if (!isRunnableHome(row.home)) return refuse("execution_not_leaseable", {});
  if (!isEligible(row, now)) return refuse("execution_not_leaseable", {});
  if (row.attempt_state === attemptStateCode("running_attempt"))
    return refuse("active_attempt_exists", {});
  if (isInterrupted(row)) return refuse("use_claim_resumed_execution", {});
  const refusal = await checkGrant(tx, row, "claim", args.workerId, now);
  if (refusal !== undefined) return refusal;

  if (args.executionDeadlineAtMs !== undefined)
    row.deadline_at = args.executionDeadlineAtMs;
  const policyTimeout = row.timeout_ms;
  row.timeout_ms = args.attemptTimeoutMs ?? policyTimeout;
  const claimed = (await takeExecution(store, tx, row, args, now))!;
  if (row.timeout_ms !== policyTimeout) {
    // This attempt's own; the next one goes by the policy again.
    row.timeout_ms = policyTimeout;
    saveExecution(tx, row);
  }
  ringAfterCommit(store, tx, row);

  return claimed;
}

async function claimResumed(
  store: Store,
  tx: Session,
  args: Args<"claimResumedExecution">,
): Promise<ClaimedExecution | Refusal> {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (isOwnLease(store, row, args, now))
    return await claimedExecution(store, tx, row, "resumed");
  if (HOMES[row.home].phase !== "runnable")
    return refuse("execution_not_leaseable", {});
  if (!isInterrupted(row)) return refuse("not_a_resumed_execution", {});
  if (!isEligible(row, now)) return refuse("execution_not_leaseable", {});
  const refusal = await checkGrant(tx, row, "resume", args.workerId, now);
  if (refusal !== undefined) return refusal;

  const claimed = (await takeExecution(
    store,
    tx,
    row,
    { ...args, reason: "claim_resumed" },
    now,
  ))!;
  ringAfterCommit(store, tx, row);

  return claimed;
}

/** A repeat of the claim that took this very lease (lost reply). */
export function isOwnLease(
  store: Store,
  row: ExecutionRow,
  args: { readonly leaseId: string; readonly workerId: string },
  nowMs: number,
): boolean {
  if (row.home !== HOME.active || row.lease_expires_at! <= nowMs) return false;
  return (
    bytesToUuid(row.lease!) === args.leaseId &&
    store.holders.require(row.holder!).workerId === args.workerId
  );
}

/** Kind and worker must be those of the grant; a lapsed one is dropped on the way. */
async function checkGrant(
  tx: Session,
  row: ExecutionRow,
  kind: GrantKind,
  workerId: string,
  nowMs: number,
): Promise<Refusal | undefined> {
  const grant = await readGrant(tx, row);
  if (
    grant === undefined ||
    grant.kind !== kind ||
    grant.worker_id !== workerId
  )
    return refuse("invalid_claim_grant", {});
  if (grant.expires_at > nowMs) return undefined;
  dropGrant(tx, row);
  saveExecution(tx, row);
  return refuse("claim_grant_expired", {});
}
