import { z } from "zod";

import {
  AttemptId,
  LaneId,
  LeaseId,
  WorkerId,
  WorkerInstanceId,
  type ExecutionId,
} from "../ids.js";
import { ExecutionId as ExecutionIdSchema, Namespace } from "../ids.js";
import type { ClaimedExecution } from "../snapshots.js";
import {
  Claimant,
  ExecutionRef,
  GrantTtlMs,
  LeaseTtlMs,
  text,
  TimestampMs,
  WorkerCapabilities,
} from "./inputs.js";

export const GRANT_KINDS = ["claim", "resume", "reclaim"] as const;
export type GrantKind = (typeof GRANT_KINDS)[number];

export const Grant = z.object({
  kind: z.enum(GRANT_KINDS),
  executionId: ExecutionIdSchema,
  partitionKey: z.string(),
  grantKey: z.string(),
  expiresAtMs: TimestampMs,
  laneId: LaneId,
});
/** A short-lived, single-use permission for one worker to lease one execution. Opaque to users. */
export type Grant = z.infer<typeof Grant>;

export const IssueClaimGrantInput = ExecutionRef.extend({
  laneId: LaneId.optional(),
  workerId: WorkerId,
  workerInstanceId: WorkerInstanceId,
  capabilityHash: text(256).optional(),
  routeSnapshotJson: text(65_536).optional(),
  admissionSummary: text(65_536).optional(),
  workerCapabilities: WorkerCapabilities,
  grantTtlMs: GrantTtlMs,
});
export type IssueClaimGrantInput = z.input<typeof IssueClaimGrantInput>;

export const ClaimExecutionInput = ExecutionRef.extend({
  laneId: LaneId.optional(),
  workerId: WorkerId,
  workerInstanceId: WorkerInstanceId,
  leaseId: LeaseId,
  leaseTtlMs: LeaseTtlMs,
  /** When the lease should be renewed, in milliseconds after the claim; at most the TTL, default two thirds of it. */
  renewBeforeMs: z.number().int().min(0).optional(),
  attemptId: AttemptId,
  /** Overrides the policy's for this attempt. */
  attemptTimeoutMs: z.number().int().min(1).optional(),
  /** Replaces the execution's deadline. */
  executionDeadlineAtMs: TimestampMs.optional(),
}).refine(
  (input) =>
    input.renewBeforeMs === undefined ||
    input.renewBeforeMs <= input.leaseTtlMs,
  {
    path: ["renewBeforeMs"],
    error: "must not exceed leaseTtlMs",
  },
);
export type ClaimExecutionInput = z.input<typeof ClaimExecutionInput>;

export const ClaimResumedInput = ExecutionRef.extend({
  laneId: LaneId.optional(),
  workerId: WorkerId,
  workerInstanceId: WorkerInstanceId,
  leaseId: LeaseId,
  leaseTtlMs: LeaseTtlMs,
});
export type ClaimResumedInput = z.input<typeof ClaimResumedInput>;

export const ResumeToken = Claimant.extend({
  grant: Grant,
  leaseTtlMs: LeaseTtlMs,
  /** Minted when absent; give one to make a repeat safe. */
  leaseId: LeaseId.optional(),
});
export type ResumeToken = z.input<typeof ResumeToken>;

export const IssueGrantAndClaimInput = ExecutionRef.extend({
  laneId: LaneId.optional(),
  leaseTtlMs: LeaseTtlMs,
  namespace: Namespace.optional(),
});
export type IssueGrantAndClaimInput = z.input<typeof IssueGrantAndClaimInput>;

/**
 * Claiming in two steps, for schedulers of one's own and for operators. A grant is bound to a worker id,
 * not to an instance; it ends when used, when its time is up, or when the execution leaves the state it
 * was issued for. While it lives, no scan and no claim by others returns the execution.
 */
export interface GrantOperations {
  /**
   * Grants one eligible execution: kind `resume` where an attempt was interrupted, else `claim`.
   *
   * Atomic: the grant and a `granted` event; on a mismatch only the time of the mismatch.
   * Checks: `execution_not_found`; not runnable and eligible: `execution_not_eligible`;
   * `grant_already_exists`; `execution_not_in_eligible_set`; `capability_mismatch` (missing tokens, sorted; the execution is
   * not parked by it). A differing `laneId`: `invalid_input`, `lane_mismatch`.
   * Repeat: `grant_already_exists` while the first one lives.
   */
  issueClaimGrant(
    input: IssueClaimGrantInput,
  ): Promise<{ readonly kind: "granted"; readonly grant: Grant }>;

  /**
   * Uses a grant of kind `claim`: a new attempt at index `totalAttemptCount`, of type `initial`, `retry` or
   * `replay`, with its timeout armed.
   *
   * Atomic: grant, state, lease (epoch + 1), attempt, timers and the `claimed` event.
   * Checks, in order: `execution_not_found`; not runnable `execution_not_leaseable`; owned `lease_conflict`; not
   * eligible `execution_not_leaseable`; `active_attempt_exists`; interrupted attempt
   * `use_claim_resumed_execution` (grant kept); no grant, other kind or worker `invalid_claim_grant`;
   * lapsed `claim_grant_expired` (grant dropped).
   * Repeat: with the same lease id, attempt id and worker, the first answer.
   */
  claimExecution(
    input: ClaimExecutionInput,
  ): Promise<{ readonly kind: "claimed"; readonly claimed: ClaimedExecution }>;

  /**
   * Uses a grant of kind `resume`: the interrupted attempt goes on under a new lease (epoch + 1), with what is
   * left of its timeout.
   *
   * Atomic: as {@link claimExecution}, with the `resumed` event.
   * Checks, in order: `execution_not_found`; not runnable `execution_not_leaseable`; no interrupted attempt
   * `not_a_resumed_execution`; owned `lease_conflict`; not eligible `execution_not_leaseable`; grant as
   * {@link claimExecution}.
   * Repeat: with the same lease id and worker, the first answer.
   */
  claimResumedExecution(
    input: ClaimResumedInput,
  ): Promise<{ readonly kind: "claimed"; readonly claimed: ClaimedExecution }>;

  /**
   * {@link claimResumedExecution} from a grant as received.
   * @returns nothing when the target is gone or no longer resumable (`execution_not_found`,
   * `execution_not_leaseable`, `not_a_resumed_execution`); grant errors are thrown.
   */
  claimFromResumeGrant(
    input: ResumeToken,
  ): Promise<ClaimedExecution | undefined>;

  /**
   * Operator path: grant and claim in one step as worker `operator`, without capability check or admission.
   *
   * Atomic: as a fresh or a resumed claim; no grant is left.
   * Checks, in order: `execution_not_found`; not runnable `execution_not_eligible`; `lease_conflict`;
   * `active_attempt_exists`; `grant_already_exists`; not eligible `execution_not_in_eligible_set`.
   */
  issueGrantAndClaim(input: IssueGrantAndClaimInput): Promise<{
    readonly executionId: ExecutionId;
    readonly leaseId: LeaseId;
    readonly leaseEpoch: number;
    readonly attemptIndex: number;
    readonly attemptId: AttemptId;
  }>;
}
