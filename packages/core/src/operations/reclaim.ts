import { z } from "zod";

import {
  AttemptId,
  ExecutionId,
  LaneId,
  LeaseId,
  Namespace,
  WorkerId,
  WorkerInstanceId,
} from "../ids.js";
import {
  EXPIRED_LEASE_PAGE_DEFAULT,
  EXPIRED_LEASE_PAGE_MAX,
} from "../limits.js";
import type { ClaimedExecution, ExpiredLeaseInfo } from "../snapshots.js";
import type { Grant } from "./grants.js";
import {
  ExecutionRef,
  GrantTtlMs,
  LeaseTtlMs,
  text,
  TimestampMs,
  WorkerCapabilities,
} from "./inputs.js";

export const IssueReclaimGrantInput = ExecutionRef.extend({
  laneId: LaneId.optional(),
  workerId: WorkerId,
  workerInstanceId: WorkerInstanceId,
  capabilityHash: text(256).optional(),
  routeSnapshotJson: text(65_536).optional(),
  admissionSummary: text(65_536).optional(),
  workerCapabilities: WorkerCapabilities,
  grantTtlMs: GrantTtlMs,
});
export type IssueReclaimGrantInput = z.input<typeof IssueReclaimGrantInput>;

export const ReclaimExecutionInput = ExecutionRef.extend({
  laneId: LaneId.optional(),
  workerId: WorkerId,
  workerInstanceId: WorkerInstanceId,
  leaseId: LeaseId,
  leaseTtlMs: LeaseTtlMs,
  attemptId: AttemptId,
  /** Counts where the policy names no cap; default 100. */
  maxReclaimCount: z.number().int().min(0).optional(),
});
export type ReclaimExecutionInput = z.input<typeof ReclaimExecutionInput>;

export const ListExpiredLeasesInput = z.object({
  /** Default: now, by the store's clock. */
  asOfMs: TimestampMs.optional(),
  /** The last entry of the page before; exclusive. */
  after: z
    .object({ expiresAtMs: TimestampMs, executionId: ExecutionId })
    .optional(),
  limit: z
    .number()
    .int()
    .min(0)
    .default(EXPIRED_LEASE_PAGE_DEFAULT)
    .transform((limit) => Math.min(limit, EXPIRED_LEASE_PAGE_MAX)),
  namespace: Namespace.optional(),
});
export type ListExpiredLeasesInput = z.input<typeof ListExpiredLeasesInput>;

export type NotReclaimable = {
  readonly kind: "notReclaimable";
  readonly executionId: ExecutionId;
  /** `execution_not_reclaimable`, `held`, `worker_not_live`, `namespace_mismatch`, or `capability_mismatch: <csv>`. */
  readonly detail: string;
};
export type ReclaimCapExceeded = {
  readonly kind: "reclaimCapExceeded";
  readonly executionId: ExecutionId;
  readonly reclaimCount: number;
};

/** Taking over lost work by hand. Ordinary workers get it from `claim` and `claimMany` by themselves. */
export interface ReclaimOperations {
  /**
   * Grants the take-over of an execution whose lease lapsed or was revoked. A lapse nobody marked yet is
   * marked first.
   *
   * Checks, in order: `execution_not_found`; neither lapsed nor revoked, or held: `notReclaimable`; cap reached:
   * `reclaimCapExceeded`, nothing written; `grant_already_exists`; worker not registered and live, or of another
   * namespace: `notReclaimable`; capabilities: `notReclaimable`.
   */
  issueReclaimGrant(
    input: IssueReclaimGrantInput,
  ): Promise<
    | { readonly kind: "granted"; readonly grant: Grant }
    | NotReclaimable
    | ReclaimCapExceeded
  >;

  /**
   * Uses a grant of kind `reclaim`: the lost attempt ends `interrupted_reclaimed`, a new one of type `reclaim`
   * begins with a fresh timeout; epoch + 1, reclaim count + 1.
   *
   * Atomic: grant, both attempts, lease, state and the `reclaimed` event.
   * Checks, in order: `execution_not_found`; not reclaimable; grant missing, of another kind or worker, or
   * lapsed: `grantNotFound`; at the cap: the execution ends as `failed`, reason `max_reclaims_exceeded`, and the
   * answer is `reclaimCapExceeded`.
   * Repeat: with the same lease id and worker, the first answer.
   */
  reclaimExecution(
    input: ReclaimExecutionInput,
  ): Promise<
    | { readonly kind: "claimed"; readonly claimed: ClaimedExecution }
    | NotReclaimable
    | ReclaimCapExceeded
    | { readonly kind: "grantNotFound"; readonly executionId: ExecutionId }
  >;

  /**
   * Leases at or past their expiry on active executions, marked or not, by (expiry, id).
   */
  listExpiredLeases(input: ListExpiredLeasesInput): Promise<{
    readonly entries: ExpiredLeaseInfo[];
    readonly nextCursor?: {
      readonly expiresAtMs: number;
      readonly executionId: ExecutionId;
    };
  }>;
}
