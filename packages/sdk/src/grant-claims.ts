/** Claims with a permission that somebody else asked for. The permit comes first: at capacity a grant is not touched. */
import {
  engineError,
  newAttemptId,
  newLeaseId,
  parsePartitionKey,
  type ClaimedExecution,
  type ExecutionId,
  type Grant,
} from "@flowfabric/core";

import { ConfigError, WorkerAtCapacityError } from "./errors.js";
import type { Session } from "./session.js";
import type { ClaimedTask } from "./task.js";
import { repeatLostReplies, type CallOptions } from "./waiting.js";

export interface ReclaimRequest {
  readonly grant: Grant;
  /** Counts where the policy names no cap; default 100. */
  readonly maxReclaimCount?: number | undefined;
  /** Given: must be the grant's. */
  readonly executionId?: string | undefined;
  /** Given: must be the grant's. */
  readonly laneId?: string | undefined;
}

export type ReclaimResult =
  | { readonly kind: "claimed"; readonly task: ClaimedTask }
  | {
      readonly kind: "notReclaimable";
      readonly executionId: ExecutionId;
      readonly detail: string;
    }
  /** The execution has ended as `failed`. */
  | {
      readonly kind: "reclaimCapExceeded";
      readonly executionId: ExecutionId;
      readonly reclaimCount: number;
    }
  | { readonly kind: "grantNotFound"; readonly executionId: ExecutionId };

export async function claimByGrant(
  session: Session,
  grant: Grant,
  options: CallOptions,
): Promise<ClaimedTask> {
  return withPermit(session, async (take) => {
    checkGrant(session, grant);
    switch (grant.kind) {
      case "claim":
        return take(await useClaimGrant(session, grant, options));
      case "resume":
        return take(await useResumeGrant(session, grant, options));
      case "reclaim": {
        const answer = await useReclaimGrant(session, { grant }, options);
        if (answer.kind === "claimed") return take(answer.claimed);
        throw answer.kind === "grantNotFound"
          ? engineError("invalid_claim_grant", {})
          : engineError("execution_not_leaseable", {});
      }
    }
  });
}

export async function claimByResumeGrant(
  session: Session,
  grant: Grant,
  options: CallOptions,
): Promise<ClaimedTask | undefined> {
  return withPermit(session, async (take) => {
    checkGrant(session, grant);
    const leaseId = newLeaseId();
    const { workerId, workerInstanceId, leaseTtlMs } = session.config;
    const claimed = await repeatWhileAlive(session, grant, options, () =>
      session.backend.claimFromResumeGrant({
        grant,
        workerId,
        workerInstanceId,
        leaseTtlMs,
        leaseId,
      }),
    );
    return claimed === undefined ? undefined : take(claimed);
  });
}

export async function claimByReclaimGrant(
  session: Session,
  request: ReclaimRequest,
  options: CallOptions,
): Promise<ReclaimResult> {
  return withPermit(session, async (take): Promise<ReclaimResult> => {
    checkReclaim(session, request);
    const answer = await useReclaimGrant(session, request, options);
    return answer.kind === "claimed"
      ? { kind: "claimed", task: take(answer.claimed) }
      : answer;
  });
}

/** Takes a permit before anything else; gives it back unless `take` was called. */
async function withPermit<T>(
  session: Session,
  claim: (take: (claimed: ClaimedExecution) => ClaimedTask) => Promise<T>,
): Promise<T> {
  const [permit] = session.permits.take(1);
  if (permit === undefined) throw new WorkerAtCapacityError();
  const startedAt = performance.now();
  let taken = false;
  try {
    return await claim((claimed) => {
      taken = true;
      const ownership = session.own(claimed, startedAt);
      ownership.holdPermit(permit);
      return session.handOver(ownership);
    });
  } finally {
    if (!taken) permit.release();
  }
}

function checkGrant(session: Session, grant: Grant): void {
  const refuse = (message: string, field: string) =>
    new ConfigError("claim_from_grant", message, field);
  try {
    parsePartitionKey(grant.partitionKey);
  } catch {
    throw refuse(
      `'${grant.partitionKey}' is no partition key`,
      "partition_key",
    );
  }
  if (grant.expiresAtMs <= session.storeNowMs())
    throw engineError("claim_grant_expired", {});
  if (!session.config.lanes.includes(grant.laneId))
    throw refuse(`'${grant.laneId}' is not a lane of this worker`, "lane_id");
}

function checkReclaim(session: Session, request: ReclaimRequest): void {
  const { grant, executionId, laneId } = request;
  const refuse = (message: string, field: string) =>
    new ConfigError("claim_from_reclaim_grant", message, field);
  if (executionId !== undefined && executionId !== grant.executionId)
    throw refuse("differs from the grant's", "execution_id");
  if (laneId !== undefined && laneId !== grant.laneId)
    throw refuse("differs from the grant's", "lane_id");
  if (grant.expiresAtMs <= session.storeNowMs())
    throw refuse("the grant has run out", "expires_at_ms");
  if (grant.kind !== "reclaim")
    throw refuse(`a grant of kind '${grant.kind}'`, "kind");
}

/** Ids are minted once and sent with every try, so that a repeat is recognised. */
async function useClaimGrant(
  session: Session,
  { executionId, laneId, ...grant }: Grant,
  options: CallOptions,
): Promise<ClaimedExecution> {
  const ids = { leaseId: newLeaseId(), attemptId: newAttemptId() };
  const { claimed } = await repeatWhileAlive(session, grant, options, () =>
    session.backend.claimExecution({
      executionId,
      laneId,
      ...holder(session),
      ...ids,
    }),
  );
  return claimed;
}

async function useResumeGrant(
  session: Session,
  { executionId, laneId, ...grant }: Grant,
  options: CallOptions,
): Promise<ClaimedExecution> {
  const leaseId = newLeaseId();
  const { claimed } = await repeatWhileAlive(session, grant, options, () =>
    session.backend.claimResumedExecution({
      executionId,
      laneId,
      ...holder(session),
      leaseId,
    }),
  );
  return claimed;
}

function useReclaimGrant(
  session: Session,
  { grant, maxReclaimCount }: ReclaimRequest,
  options: CallOptions,
) {
  const ids = { leaseId: newLeaseId(), attemptId: newAttemptId() };
  return repeatWhileAlive(session, grant, options, () =>
    session.backend.reclaimExecution({
      executionId: grant.executionId,
      laneId: grant.laneId,
      ...holder(session),
      ...ids,
      maxReclaimCount,
    }),
  );
}

function holder(session: Session) {
  const { workerId, workerInstanceId, leaseTtlMs, namespace } = session.config;
  return { workerId, workerInstanceId, leaseTtlMs, namespace };
}

function repeatWhileAlive<T>(
  session: Session,
  grant: Pick<Grant, "expiresAtMs">,
  options: CallOptions,
  call: () => Promise<T>,
): Promise<T> {
  return repeatLostReplies((attempt) => {
    if (attempt > 1 && grant.expiresAtMs <= session.storeNowMs())
      throw engineError("claim_grant_expired", {});
    return call();
  }, options);
}
