import { z } from "zod";

import {
  DEFAULT_LANE,
  DEFAULT_NAMESPACE,
  ExecutionId,
  IdempotencyKey,
  LaneId,
  Namespace,
} from "../ids.js";
import { BATCH_ITEMS_MAX } from "../limits.js";
import type { PublicState } from "../state.js";
import type { ExecutionPolicyInput } from "../policies.js";
import {
  Bytes,
  ExecutionRef,
  LeaseFence,
  name,
  Reason,
  Tags,
  text,
  TimestampMs,
} from "./inputs.js";

export const CreateExecutionInput = z.object({
  /** Minted from the lane when absent. Give one to make a repeat recognisable. */
  executionId: ExecutionId.optional(),
  namespace: Namespace.default(DEFAULT_NAMESPACE),
  /** The queue it waits in; decides the partition of a minted id. */
  laneId: LaneId.default(DEFAULT_LANE),
  /** Which handler runs it; 1–256 bytes. */
  executionKind: name(256),
  /** Stored byte-exact; at most the store's payload limit (1 MiB by default). */
  inputPayload: Bytes.optional(),
  /** Clamped to 0…9000; higher runs first. */
  priority: z.number().int().optional(),
  creatorIdentity: text(256).optional(),
  /** Within (namespace, lane) the same key means the same execution, for the policy's `dedupWindowMs`. */
  idempotencyKey: IdempotencyKey.optional(),
  tags: Tags.default({}),
  /** Checked behind duplicate detection, so that a repeat of an accepted request always succeeds. */
  policy: (
    z.unknown() as unknown as z.ZodType<unknown, ExecutionPolicyInput>
  ).optional(),
  /** Not before this time; a past one is ignored. Wins over the policy's. */
  delayUntilMs: TimestampMs.optional(),
  /** Expires at this time in any phase; wins over the policy's relative deadline. */
  executionDeadlineAtMs: TimestampMs.optional(),
});
export type CreateExecutionInput = z.input<typeof CreateExecutionInput>;

export type CreateExecutionResult =
  | {
      readonly kind: "created";
      readonly executionId: ExecutionId;
      readonly publicState: PublicState;
    }
  /** The earlier execution; `mismatch` when its request differed from this one. */
  | {
      readonly kind: "duplicate";
      readonly executionId: ExecutionId;
      readonly mismatch: boolean;
    };

export const SubmitManyInput = z.object({
  /** 1–1 000, at most 8 MiB of payload in all. */
  items: z
    .array(z.unknown())
    .min(1)
    .max(
      BATCH_ITEMS_MAX,
      "batch_too_large: at most 1000 items",
    ) as unknown as z.ZodType<unknown[], readonly CreateExecutionInput[]>,
  /** `perItem`: each stands alone. `allOrNothing`: one partition, and any rejection writes nothing. */
  atomicity: z.enum(["perItem", "allOrNothing"]).default("perItem"),
});
export type SubmitManyInput = z.input<typeof SubmitManyInput>;

export type SubmitManyResult =
  | CreateExecutionResult
  | {
      /** With `transport`, of one node among several that is out of reach: whether it was carried out is open. Call again. */
      readonly kind: "rejected";
      readonly code: string;
      readonly detail: object;
    };

export const CANCEL_SOURCES = [
  "operator_override",
  "flow_cascade",
  "system_timeout",
  "lease_holder",
] as const;
export const CancelExecutionInput = ExecutionRef.extend({
  reason: Reason,
  /** `lease_holder` needs the fence; the others are the engine's and operators' and are not fenced. */
  source: z.enum(CANCEL_SOURCES).default("operator_override"),
  fence: LeaseFence.optional(),
});
export type CancelExecutionInput = z.input<typeof CancelExecutionInput>;

export const ReplayExecutionInput = ExecutionRef.extend({
  reason: Reason.optional(),
  requestedBy: text(256).optional(),
  /** Absent: the stored deadline if still ahead, else none. */
  executionDeadlineAtMs: TimestampMs.optional(),
});
export type ReplayExecutionInput = z.input<typeof ReplayExecutionInput>;

export const ChangePriorityInput = ExecutionRef.extend({
  /** Clamped to 0…9000. */
  newPriority: z.number().int(),
});
export type ChangePriorityInput = z.input<typeof ChangePriorityInput>;

export const HoldExecutionInput = ExecutionRef.extend({
  reason: Reason.optional(),
});
export type HoldExecutionInput = z.input<typeof HoldExecutionInput>;

export const CreateInTransactionInput = CreateExecutionInput.extend({
  /** The caller's own open transaction: a `better-sqlite3` handle, or a `pg` client. */
  transaction: z.unknown(),
});
export type CreateInTransactionInput = z.input<typeof CreateInTransactionInput>;

/** Submitting and steering. Nobody here holds a lease. */
export interface ExecutionOperations {
  /**
   * Submits one execution.
   *
   * Atomic: record, payload, policy, tags, idempotency key, timers and the `created` event together.
   * Checks: arguments (`invalid_input`, `invalid_tag_key`, `payload_too_large`); then a remembered
   * idempotency key or an existing id answers `duplicate`; only then the policy
   * (`invalid_policy_json`, `invalid_capabilities`).
   * State: `delayed` with a future `delayUntilMs`, else `waiting`; the deadline is armed; the lane is
   * registered at its first use.
   * Repeat: `duplicate` with the earlier id and nothing written; `mismatch` says that kind, payload,
   * policy, tags, priority, times or identity differ from the stored request.
   */
  createExecution(input: CreateExecutionInput): Promise<CreateExecutionResult>;

  /**
   * Submits many in one round trip; answers stand at the index of their item. Two items with one key:
   * the first is `created`, the second `duplicate`.
   *
   * Atomic: per item, or all of them with `allOrNothing`.
   * Checks: 1–1 000 items and at most 8 MiB (`invalid_input`, `batch_too_large`); with `allOrNothing` one
   * partition (`invalid_input`, `cross_partition_atomic`). Everything else is per item: `rejected`.
   * With `allOrNothing` and a rejection, items that would have passed are `rejected` with
   * `invalid_input`, reason `batch_rejected`.
   * Repeat: safe when items carry ids or keys.
   */
  submitMany(input: SubmitManyInput): Promise<SubmitManyResult[]>;

  /**
   * {@link createExecution} inside the caller's open transaction: rolled back it never existed, committed
   * it is picked up at once. On SQLite the answer is synchronous.
   *
   * Checks: no open transaction, or a handle of another store: `invalid_input`. Stores that cannot join
   * one: `unavailable`, op `transaction`, before anything is read.
   */
  createExecutionInTransaction(
    input: CreateInTransactionInput,
  ): CreateExecutionResult | Promise<CreateExecutionResult>;

  /**
   * Ends an execution from any phase that is not terminal. A running attempt is fenced at once; its
   * holder hears by push ({@link WorkerOperations.watchWorker}), at the latest at its next renewal.
   *
   * Atomic: state, attempt (`ended_cancelled`), lease, grant, timers and the `cancelled` event, which is
   * also the completion record.
   * Checks: `execution_not_found`; terminal: `execution_not_active`; with source `lease_holder` the whole
   * fence (`fence_required`, `partial_fence_triple`, `execution_not_active`, `lease_revoked`,
   * `lease_expired`, `stale_lease`, in this order).
   * Repeat: `execution_not_active` with outcome `cancelled`; take that as done.
   */
  cancelExecution(input: CancelExecutionInput): Promise<{
    readonly kind: "cancelled";
    readonly executionId: ExecutionId;
    readonly publicState: PublicState;
  }>;

  /**
   * Runs a finished execution again as a new attempt. Retry and reclaim counts start over (the lifetime
   * reclaim total stays), the old result, failure, cancellation and progress are gone from the execution and
   * kept with the finished attempt.
   *
   * Checks: `execution_not_found`, `execution_not_terminal`, `max_replays_exhausted`.
   * Repeat: not idempotent; every success uses up one replay.
   */
  replayExecution(
    input: ReplayExecutionInput,
  ): Promise<{ readonly kind: "replayed"; readonly publicState: PublicState }>;

  /**
   * Re-scores a waiting execution; its age order within the new priority is kept.
   *
   * Checks: `execution_not_found`; not runnable and eligible: `execution_not_eligible`.
   * Repeat: the same answer with `oldPriority` equal to `newPriority`.
   */
  changePriority(input: ChangePriorityInput): Promise<{
    readonly kind: "changed";
    readonly executionId: ExecutionId;
    readonly oldPriority: number;
    readonly newPriority: number;
  }>;

  /**
   * Keeps a runnable execution from being claimed until {@link unholdExecution}. A delay or another block
   * underneath is kept and takes effect again afterwards. A live grant is dropped.
   *
   * Checks: `execution_not_found`; terminal: `execution_not_active`; other phases than runnable:
   * `execution_not_eligible`. A revoked attempt under hold counts as held.
   * Repeat: `alreadySatisfied`.
   */
  holdExecution(
    input: HoldExecutionInput,
  ): Promise<{ readonly kind: "held" | "alreadySatisfied" }>;

  /**
   * Lifts an operator's hold, also the one of `revokeLease` with `hold`. The execution goes where it belongs
   * now: other hold, future delay, or ready.
   *
   * Checks: `execution_not_found`; terminal: `execution_not_active`; active without a hold, or suspended:
   * `execution_not_eligible`.
   * Repeat: `alreadySatisfied`.
   */
  unholdExecution(
    input: ExecutionRef,
  ): Promise<{ readonly kind: "released" | "alreadySatisfied" }>;
}
