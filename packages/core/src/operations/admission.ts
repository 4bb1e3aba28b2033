import { z } from "zod";

import { LaneId, type ExecutionId, type WorkerInstanceId } from "../ids.js";
import {
  BLOCKING_REASONS,
  type BlockingReason,
  type PublicState,
} from "../state.js";
import { ExecutionRef, Reason, refuseWith } from "./inputs.js";

export const ADMISSION_REASONS = [
  "waiting_for_budget",
  "waiting_for_quota",
  "waiting_for_capable_worker",
  "paused_by_operator",
  "paused_by_policy",
] as const satisfies readonly BlockingReason[];
export type AdmissionReason = (typeof ADMISSION_REASONS)[number];

export const BlockExecutionInput = ExecutionRef.extend({
  laneId: LaneId.optional(),
  /** An unknown one is refused behind the state checks, with `invalid_blocking_reason`. */
  reason: z.string(),
  /** Free text for people: a budget id, missing tokens. */
  reasonDetail: Reason.optional(),
});
export type BlockExecutionInput = z.input<typeof BlockExecutionInput>;

export const BlockRouteInput = BlockExecutionInput.extend({
  reason: z.string().default("waiting_for_capable_worker"),
});
export type BlockRouteInput = z.input<typeof BlockRouteInput>;

export const UnblockExecutionInput = ExecutionRef.extend({
  expectedBlockingReason: z
    .string()
    .superRefine((reason, ctx) => {
      if (!(BLOCKING_REASONS as readonly string[]).includes(reason))
        refuseWith(ctx, "invalid_blocking_reason", { reason });
    })
    .optional(),
});
export type UnblockExecutionInput = z.input<typeof UnblockExecutionInput>;

export type BlockResult =
  | {
      readonly kind: "blocked";
      readonly executionId: ExecutionId;
      readonly reason: AdmissionReason;
    }
  | { readonly kind: "alreadySatisfied" };

/**
 * - `covered`: a live worker of the lane and namespace has every token
 * - `no_superset`: workers serve the lane, none has all
 * - `no_worker_on_lane`: live workers exist, none serves the lane
 * - `no_workers`: no live worker in the namespace
 * - `not_applicable`: nothing is required, or the execution is neither runnable nor reclaimable
 */
export type CapabilityVerdict =
  | "covered"
  | "no_superset"
  | "no_worker_on_lane"
  | "no_workers"
  | "not_applicable";

export interface CapabilityExplanation {
  readonly required: readonly string[];
  readonly verdict: CapabilityVerdict;
  /** Fewest missing tokens first, then by id; at most 100. */
  readonly workers: readonly {
    readonly workerInstanceId: WorkerInstanceId;
    readonly lanes: readonly LaneId[];
    readonly missing: readonly string[];
  }[];
  readonly lastMismatchAtMs?: number;
  readonly blockedSinceMs?: number;
}

/** Blocks that admission and operators put on waiting work, and why a block stands. */
export interface AdmissionOperations {
  /**
   * Takes an execution out of the order until the reason is gone. `waiting_for_budget`, `waiting_for_quota` and
   * `waiting_for_capable_worker` only from eligible; `paused_by_operator` and `paused_by_policy` from any
   * runnable state, as holds kept beside what stands below them. A live grant is dropped.
   *
   * Atomic: state, grant and the `blocked` event.
   * Checks, in order: `execution_not_found`; terminal `execution_not_active`; not runnable
   * `execution_not_eligible`; `invalid_blocking_reason`; a transient reason outside eligible
   * `execution_not_eligible`.
   * Repeat: `alreadySatisfied`.
   */
  blockExecutionForAdmission(input: BlockExecutionInput): Promise<BlockResult>;

  /** {@link blockExecutionForAdmission} with `waiting_for_capable_worker`. */
  blockRoute(input: BlockRouteInput): Promise<BlockResult>;

  /**
   * Lifts one block; the execution goes where it belongs now. An operator hold is lifted only where
   * `paused_by_operator` is expected.
   *
   * Atomic: state and the `unblocked` event.
   * Checks: `execution_not_found`; not runnable, not blocked, or blocked for another reason
   * `execution_not_eligible`.
   */
  unblockExecution(
    input: UnblockExecutionInput,
  ): Promise<{ readonly kind: "unblocked"; readonly publicState: PublicState }>;

  /** Why nobody takes it: who is alive, and what each of them lacks. @throws `execution_not_found` */
  explainCapabilityMismatch(
    input: ExecutionRef,
  ): Promise<CapabilityExplanation>;
}
