import { z } from "zod";

import {
  LaneId,
  Namespace,
  WorkerId,
  WorkerInstanceId,
  type ExecutionId,
} from "../ids.js";
import { CLAIM_MANY_MAX } from "../limits.js";
import type { ClaimedExecution } from "../snapshots.js";
import {
  Claimant,
  GrantTtlMs,
  Lanes,
  LeaseTtlMs,
  MaxWaitMs,
  name,
  PageLimit,
  PartitionKey,
  Signal,
  WorkerCapabilities,
} from "./inputs.js";
import type { Grant } from "./grants.js";

export const ClaimInput = z.object({
  laneId: LaneId,
  capabilities: z
    .object({ tokens: WorkerCapabilities })
    .default({ tokens: [] }),
  policy: z.object({
    maxWaitMs: MaxWaitMs,
    workerId: WorkerId,
    workerInstanceId: WorkerInstanceId,
    leaseTtlMs: LeaseTtlMs,
  }),
  signal: Signal.optional(),
});
export type ClaimInput = z.input<typeof ClaimInput>;

export const ClaimManyInput = Claimant.extend({
  /** Served in turn, beginning with the first. */
  lanes: Lanes,
  capabilities: WorkerCapabilities,
  /** Absent: all namespaces. */
  namespace: Namespace.optional(),
  max: z.number().int().min(1).max(CLAIM_MANY_MAX),
  leaseTtlMs: LeaseTtlMs,
  maxWaitMs: MaxWaitMs,
  /** Names this call for {@link ClaimManyInput.repeat}; kept with each lease. */
  requestId: name(128).optional(),
  /**
   * Says that a call with this `requestId` may have been applied already. Where it was, and its leases
   * still run, the answer is that call's leases again and nothing new is claimed.
   */
  repeat: z.boolean().default(false),
  signal: Signal.optional(),
});
export type ClaimManyInput = z.input<typeof ClaimManyInput>;

export interface ClaimManyResult {
  readonly claimed: ClaimedExecution[];
  /**
   * Milliseconds until the earliest instant at which something in these lanes becomes claimable by itself
   * (a delay ends, a lease lapses). Absent when nothing is due or when something was claimed up to `max`.
   */
  readonly nextDueInMs?: number;
}

export const ClaimForWorkerInput = Claimant.extend({
  laneId: LaneId,
  capabilities: WorkerCapabilities,
  namespace: Namespace.optional(),
  grantTtlMs: GrantTtlMs,
  maxWaitMs: MaxWaitMs,
  signal: Signal.optional(),
});
export type ClaimForWorkerInput = z.input<typeof ClaimForWorkerInput>;

export type ClaimForWorkerResult =
  | { readonly kind: "granted"; readonly grant: Grant }
  /** `blocked`: runnable work exists, but none that this worker may take. */
  | { readonly kind: "noWork"; readonly reason: "empty" | "blocked" };

export const ScanEligibleInput = z.object({
  laneId: LaneId,
  partition: PartitionKey.optional(),
  limit: PageLimit,
});
export type ScanEligibleInput = z.input<typeof ScanEligibleInput>;

/**
 * Taking work off a lane. All forms offer the same: executions that are ready, delayed ones whose time has
 * come (written as `promoted` first), and running ones whose lease lapsed or was revoked (written as
 * `lease_expired` first, then taken over as a new attempt). Order: priority, then age, then id.
 *
 * Skipped without hiding what stands behind: live grants, capabilities this worker lacks, holds, and
 * take-overs still in back-off (0, then 1 s doubling to 60 s by reclaim count), and whatever is past its deadline. A lapsed execution at its
 * reclaim cap is never offered; the engine ends it as `failed`, reason `max_reclaims_exceeded`.
 *
 * Every claim call also counts as a heartbeat of its worker (written at most every 10 s; an unregistered
 * caller is kept as an ephemeral worker for 30 s), and drives the engine: at most every 250 ms it runs one
 * bounded portion of due maintenance, so that timeouts, deadlines and recovery need no other process.
 */
export interface ClaimOperations {
  /**
   * Claims one execution of one lane, of any namespace, without budget or quota admission.
   *
   * Atomic: grant and claim in one step; see {@link ClaimOperations.claimMany}.
   * Checks: `invalid_input` (lane, identity, TTL, wait), `invalid_capabilities`.
   * @returns nothing when there is no work within `maxWaitMs`, or when `signal` aborts the wait.
   */
  claim(input: ClaimInput): Promise<ClaimedExecution | undefined>;

  /**
   * Claims up to `max` executions in one trip, each with its own lease, epoch, attempt and handle, and with
   * payload and tags, so that no second read is needed.
   *
   * Atomic: per execution; losing one to another worker never loses the rest, nor does a node that is lost. Empty only where
   * all were asked: what stayed out of reach until the end of the wait is thrown.
   * Checks: `invalid_input`, `invalid_capabilities`.
   * Waiting: with `maxWaitMs` an empty call parks until work appears (push), something becomes due, the
   * wait is over, or `signal` aborts; an abort answers an empty list, never drops claimed work.
   * Repeat: with `requestId` and `repeat: true`, the leases of the first call while they run.
   */
  claimMany(input: ClaimManyInput): Promise<ClaimManyResult>;

  /**
   * Picks work for a worker and answers a grant of kind `claim`, `resume` or `reclaim`, which the worker uses
   * with `claimExecution`, `claimResumedExecution` or `reclaimExecution`. For schedulers that sit between.
   *
   * Atomic: the grant, and `promoted` or `lease_expired` where time had already changed the state.
   * Checks: `invalid_input`, `invalid_capabilities`.
   */
  claimForWorker(input: ClaimForWorkerInput): Promise<ClaimForWorkerResult>;

  /** Ids that a claim could take now as ready work, in claim order; writes nothing. */
  scanEligibleExecutions(input: ScanEligibleInput): Promise<ExecutionId[]>;
}
