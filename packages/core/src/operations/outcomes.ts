import { z } from "zod";

import { Handle } from "../handles.js";
import type { ExecutionId } from "../ids.js";
import { BATCH_ITEMS_MAX } from "../limits.js";
import { FailureClass } from "../policies.js";
import type { ClaimedExecution } from "../snapshots.js";
import type { PublicState } from "../state.js";
import { ClaimManyInput } from "./claims.js";
import {
  Bytes,
  ExecutionRef,
  LeaseFence,
  Reason,
  text,
  TimestampMs,
} from "./inputs.js";

export const FailureReason = z.object({
  message: Reason,
  /** The category, as UTF-8; absent or empty: the class. */
  detail: Bytes.optional(),
});
export type FailureReason = z.infer<typeof FailureReason>;

export const CompleteInput = z.object({
  handle: Handle,
  /** Stored byte-exact as the result; zero bytes are a result. Absent: none, an older one is removed. */
  payload: Bytes.optional(),
});
export type CompleteInput = z.input<typeof CompleteInput>;

export const FailInput = z.object({
  handle: Handle,
  reason: FailureReason,
  classification: FailureClass,
});
export type FailInput = z.input<typeof FailInput>;

export const CancelInput = z.object({ handle: Handle, reason: Reason });
export type CancelInput = z.input<typeof CancelInput>;

export const DelayInput = z.object({
  handle: Handle,
  /** A past time hands the attempt back at once. */
  delayUntilMs: TimestampMs.min(1),
});
export type DelayInput = z.input<typeof DelayInput>;

export const ProgressInput = z.object({
  handle: Handle,
  percent: z.number().int().min(0).max(100).optional(),
  message: text(4_096).optional(),
});
export type ProgressInput = z.input<typeof ProgressInput>;

export const OutcomeItem = z.object({
  handle: Handle,
  payload: Bytes.optional(),
  /** Present: the item is a `fail`. */
  failure: z
    .object({ reason: FailureReason, classification: FailureClass })
    .optional(),
});
export type OutcomeItem = z.input<typeof OutcomeItem>;

const items = <T extends z.ZodType>(item: T) =>
  z
    .array(item)
    .min(1, "give at least one item")
    .max(BATCH_ITEMS_MAX, "batch_too_large: at most 1000 items");

export const CompleteManyInput = z.object({ items: items(CompleteInput) });
export type CompleteManyInput = z.input<typeof CompleteManyInput>;

export const CompleteAndClaimInput = z.object({
  items: items(OutcomeItem),
  claim: ClaimManyInput.optional(),
});
export type CompleteAndClaimInput = z.input<typeof CompleteAndClaimInput>;

const Source = z.literal("operator_override").optional();
export const CompleteExecutionInput = ExecutionRef.extend({
  fence: LeaseFence.optional(),
  resultPayload: Bytes.optional(),
  /** Waives the fence; phase, revocation and expiry still count. */
  source: Source,
});
export type CompleteExecutionInput = z.input<typeof CompleteExecutionInput>;

export const FailExecutionInput = ExecutionRef.extend({
  fence: LeaseFence.optional(),
  failureReason: Reason,
  /** Decides the class; free text counts as transient. */
  failureCategory: Reason,
  source: Source,
});
export type FailExecutionInput = z.input<typeof FailExecutionInput>;

export type FailResult =
  | { readonly kind: "retryScheduled"; readonly delayUntilMs: number }
  | { readonly kind: "terminalFailed" };

export type OutcomeResult =
  | { readonly kind: "completed" }
  | FailResult
  | {
      /** With `transport`, of one node among several that is out of reach: whether it was carried out is open. Call again. */
      readonly kind: "rejected";
      readonly code: string;
      readonly detail: object;
    };

/**
 * Ending or handing back an attempt. The caller holds its lease; order of the fence checks:
 * {@link LeaseOperations}.
 *
 * Replay reconciliation of `complete`, `fail`, `cancel` and `delay` (and of items): where the fence answers
 * `execution_not_active` and its detail shows that this same lease and attempt reached the wanted end, the
 * answer is that success. A superseded epoch never reconciles.
 */
export interface OutcomeOperations {
  /**
   * Ends the attempt and the execution successfully and stores its result.
   *
   * Atomic: state, attempt (`ended_success`), result, lease, timers and the `completed` event, which is the
   * completion record.
   * Checks: `payload_too_large`, the fence.
   * Repeat: reconciled.
   */
  complete(input: CompleteInput): Promise<void>;

  /**
   * Ends the attempt with a failure. A retry is scheduled iff the stored policy has one left, the class is not
   * `permanent` or `cancelled`, the category passes the policy's lists, and the retry would start before the
   * execution's deadline; otherwise the execution is `failed`.
   *
   * Atomic: state, attempt (`ended_failure`), lease, timers and the `retry_scheduled` or `failed` event.
   * Repeat: reconciled; a retry scheduled earlier answers its stored `delayUntilMs`, 0 once promoted.
   */
  fail(input: FailInput): Promise<FailResult>;

  /** The holder ends the execution as cancelled; otherwise as `cancelExecution`. Repeat: reconciled. */
  cancel(input: CancelInput): Promise<void>;

  /**
   * Hands the attempt back, to be resumed from `delayUntilMs` on by any worker: same attempt, what is left of its
   * timeout kept, no retry or reclaim counted.
   *
   * Atomic: state, attempt (`suspended`), lease, timers and the `delayed` event.
   * Repeat: reconciled while no other worker has resumed it.
   */
  delay(input: DelayInput): Promise<{ readonly delayUntilMs: number }>;

  /**
   * Overwrites whichever of percent and message is given; cleared by a new attempt. Events of it are thinned to
   * one per second.
   *
   * Checks: the fence, but a lapse is not marked by it.
   * Repeat: the last write wins.
   */
  progress(input: ProgressInput): Promise<void>;

  /**
   * {@link complete} for many, in one trip. One refusal touches no other item.
   *
   * Checks: 1–1 000 items, at most 8 MiB (`invalid_input`, `batch_too_large`).
   * @returns one answer per item, at its index
   */
  completeMany(input: CompleteManyInput): Promise<OutcomeResult[]>;

  /**
   * Outcomes of many attempts, then the claim of the next ones, in one trip. The outcomes stand whatever the claim
   * finds; a refused item touches neither the others nor the claim. The claim does not park. A retry that an
   * item schedules is claimable by the next call only.
   */
  completeAndClaim(input: CompleteAndClaimInput): Promise<{
    readonly results: OutcomeResult[];
    readonly claimed: ClaimedExecution[];
    readonly nextDueInMs?: number;
  }>;

  /**
   * {@link complete} by fence instead of handle, not reconciled. Only `source: operator_override` waives the fence.
   */
  completeExecution(input: CompleteExecutionInput): Promise<{
    readonly kind: "completed";
    readonly executionId: ExecutionId;
    readonly publicState: PublicState;
  }>;

  /** {@link fail} by fence instead of handle, not reconciled. */
  failExecution(input: FailExecutionInput): Promise<
    | {
        readonly kind: "retryScheduled";
        readonly delayUntilMs: number;
        readonly nextAttemptIndex: number;
      }
    | { readonly kind: "terminalFailed" }
  >;
}
