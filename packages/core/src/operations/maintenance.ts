import { z } from "zod";

import { LaneId, WaitpointId } from "../ids.js";
import type { TimeoutBehavior } from "../policies.js";
import { SWEEP_LIMIT_DEFAULT, SWEEP_LIMIT_MAX } from "../limits.js";
import { ExecutionRef, PartitionKey, TimestampMs } from "./inputs.js";

/** The closed list of sweeps; what each does: specification 09 §13. */
export const SWEEPS = [
  "lease_expiry",
  "delayed_promoter",
  "attempt_timeout",
  "execution_deadline",
  "suspension_timeout",
  "pending_wp_expiry",
  "reclaim_driver",
  "unblock",
  "worker_registry_ttl_sweep",
  "retention_trimmer",
  "event_trimmer",
  "index_reconciler",
] as const;
export type SweepName = (typeof SWEEPS)[number];

export const SweepInput = z.object({
  name: z.enum(SWEEPS),
  /** At most this many effects in this call; 1…1 000. */
  limit: z
    .number()
    .int()
    .min(1)
    .max(SWEEP_LIMIT_MAX)
    .default(SWEEP_LIMIT_DEFAULT),
});
export type SweepInput = z.input<typeof SweepInput>;

export interface SweepResult {
  /** Effects of this call. */
  readonly processed: number;
  /** Whether another call would find work at once. */
  readonly more: boolean;
  /** When this sweep next has something to do, as far as the store can tell. */
  readonly nextDueAtMs?: number;
}

export const ExpireExecutionInput = ExecutionRef.extend({
  reason: z
    .enum(["attempt_timeout", "execution_deadline"])
    .default("attempt_timeout"),
  /** Acts only on this attempt. */
  attemptIndex: z.number().int().min(0).optional(),
  /** Acts only if this is the stored due time. */
  dueAtMs: TimestampMs.optional(),
});
export type ExpireExecutionInput = z.input<typeof ExpireExecutionInput>;

export const ExpirePendingWaitpointInput = ExecutionRef.extend({
  waitpointId: WaitpointId,
});
export type ExpirePendingWaitpointInput = z.input<
  typeof ExpirePendingWaitpointInput
>;

export const TrimRetentionInput = z.object({
  partition: PartitionKey.optional(),
  laneId: LaneId.optional(),
  /** How long after their end executions are kept; their own policy wins. Default: the store's (24 h). */
  retentionMs: z.number().int().min(0).optional(),
  batchSize: z
    .number()
    .int()
    .min(1)
    .max(SWEEP_LIMIT_MAX)
    .default(SWEEP_LIMIT_DEFAULT),
});
export type TrimRetentionInput = z.input<typeof TrimRetentionInput>;

export const ReconcileIndexInput = z.object({
  partition: PartitionKey.optional(),
});
export type ReconcileIndexInput = z.input<typeof ReconcileIndexInput>;

/**
 * Not for users. Every effect that decides what becomes of an execution also happens on the claim path or inside the
 * operation that causes it; retention and trimming only here and in workers' spare time. Each step re-checks that it is due; missing, early or already moved on is an answer
 * of its own, not an error. All are safe to repeat and to race.
 */
export interface MaintenanceOperations {
  /** One bounded, idempotent portion of one sweep. */
  sweep(input: SweepInput): Promise<SweepResult>;

  /** Writes a lapse that time already brought: ownership, attempt, `lease_expired` event. */
  markLeaseExpiredIfDue(input: ExecutionRef): Promise<
    | { readonly kind: "markedExpired" }
    | {
        readonly kind: "alreadySatisfied";
        readonly reason:
          | "execution_not_found"
          | "not_active"
          | "already_expired"
          | "already_revoked"
          | "not_yet_expired";
      }
  >;

  /** Writes that a delay is over: `promoted` event; the execution goes where it belongs. */
  promoteDelayed(input: ExecutionRef): Promise<{
    readonly kind:
      | "promoted"
      | "notYetDue"
      | "notFoundCleaned"
      | "notRunnableCleaned"
      | "notDelayedCleaned";
  }>;

  /**
   * Ends an execution whose deadline has passed (any phase that is not terminal), or whose attempt ran too long
   * (active only; with the policy's `retryOnTimeout` it may retry instead, answered as `retryScheduled`).
   */
  expireExecution(input: ExpireExecutionInput): Promise<{
    readonly kind:
      | "expired"
      | "retryScheduled"
      | "notYetDue"
      | "notApplicable"
      | "alreadyTerminal"
      | "notFoundCleaned";
  }>;

  /**
   * Does what the open suspension asks for once its time is up: `timeout_at` at or before now.
   *
   * Atomic: `fail`, `cancel`, `expire`: the end of the execution (failure reason `suspension_timeout:<behavior>`, no
   * retry), all its waitpoints closed. `autoResume` and `autoResumeWithTimeoutSignal`: as
   * {@link SuspensionOperations.resumeExecution}, without a delay, as an `unblocked` event of the engine; with the
   * signal, {@link SuspensionOperations.observeSignals} ends with one named `timeout`. `escalate`: the suspension
   * stays open for signals and operators, without a timeout from now on; `blocked` event, reason `paused_by_operator`.
   */
  expireSuspension(input: ExecutionRef): Promise<
    | { readonly kind: "applied"; readonly behavior: TimeoutBehavior }
    | {
        readonly kind:
          | "notYetDue"
          | "notFoundCleaned"
          | "notSuspendedCleaned"
          | "noActiveSuspensionCleaned";
      }
  >;

  /** Closes a waitpoint that is still pending when its time is up; anything else is no concern of it. */
  expirePendingWaitpoint(
    input: ExpirePendingWaitpointInput,
  ): Promise<{ readonly kind: "expired" | "noOp" }>;

  /**
   * Purges up to `batchSize` executions that are due, with everything under them.
   * @returns how many
   */
  trimRetention(input: TrimRetentionInput): Promise<number>;

  /**
   * Compares every index entry with its record and repairs it.
   * @returns `processed`: entries repaired, 0 in steady state; `errors`: records that could not be read
   */
  reconcileExecutionIndex(
    input: ReconcileIndexInput,
  ): Promise<{ readonly processed: number; readonly errors: number }>;

  /** The store's clock, epoch milliseconds. */
  serverTimeMs(): Promise<number>;
}
