import { z } from "zod";

import { Handle } from "../handles.js";
import {
  newWaitpointId,
  WaitpointId,
  type ExecutionId,
  type SignalId,
  type SuspensionId,
} from "../ids.js";
import {
  PENDING_WAITPOINT_MS_MAX,
  WAITPOINT_PAGE_DEFAULT,
  WAITPOINT_PAGE_MAX,
} from "../limits.js";
import type { SuspensionReason, WaitpointState } from "../rules/suspension.js";
import type { PublicState } from "../state.js";
import type { WaitpointToken } from "../waitpoint-token.js";
import {
  boundedText,
  ExecutionRef,
  PageCursor,
  PageLimit,
  PartitionKey,
} from "./inputs.js";
import { HandleInput } from "./leases.js";
import {
  ResumeDelayMs,
  WaitpointKey,
  type SuspendByTripleInput,
  type SuspendInput,
} from "./suspend-input.js";

export const CreateWaitpointInput = z.object({
  handle: Handle,
  waitpointKey: WaitpointKey,
  /** From now; at most 30 days. Not suspended on by then, it closes. */
  expiresInMs: z.number().int().min(1).max(PENDING_WAITPOINT_MS_MAX),
  /** Minted when absent. */
  waitpointId: WaitpointId.default(() => newWaitpointId()),
});
export type CreateWaitpointInput = z.input<typeof CreateWaitpointInput>;

const closing = {
  waitpointId: WaitpointId,
  reason: boundedText(256).default("proactive_close"),
};
export const CloseWaitpointInput = z.union([
  z.object({ handle: Handle, ...closing }),
  /** By an operator, who may close an active one too. */
  ExecutionRef.extend({ operator: z.literal(true), ...closing }),
]);
export type CloseWaitpointInput = z.input<typeof CloseWaitpointInput>;

export const ResumeExecutionInput = ExecutionRef.extend({
  triggerType: z.enum(["operator", "budget_available"]).default("operator"),
  resumeDelayMs: ResumeDelayMs.default(0),
});
export type ResumeExecutionInput = z.input<typeof ResumeExecutionInput>;

export const WaitpointRef = ExecutionRef.extend({ waitpointId: WaitpointId });
export type WaitpointRef = z.input<typeof WaitpointRef>;

export const ListPendingWaitpointsInput = ExecutionRef.extend({
  /** The last id seen; exclusive. */
  after: WaitpointId.optional(),
  /** Brought into 1…1 000. */
  limit: z
    .number()
    .int()
    .default(WAITPOINT_PAGE_DEFAULT)
    .transform((limit) => Math.min(Math.max(limit, 1), WAITPOINT_PAGE_MAX)),
});
export type ListPendingWaitpointsInput = z.input<
  typeof ListPendingWaitpointsInput
>;

export const ListSuspendedInput = z.object({
  partition: PartitionKey.optional(),
  cursor: PageCursor,
  limit: PageLimit,
});
export type ListSuspendedInput = z.input<typeof ListSuspendedInput>;

export interface BoundWaitpoint {
  readonly waitpointId: WaitpointId;
  readonly waitpointKey: string;
  readonly waitpointToken: WaitpointToken;
}

export interface SuspendOutcomeDetails extends BoundWaitpoint {
  readonly suspensionId: SuspensionId;
  /** All but the primary one, in the order of the call. */
  readonly additionalWaitpoints: readonly BoundWaitpoint[];
}

export type SuspendOutcome =
  | {
      readonly kind: "suspended";
      readonly details: SuspendOutcomeDetails;
      /** Good for `observeSignals` only; the lease is gone. */
      readonly handle: Handle;
    }
  | {
      /** Signals that came before satisfy the condition; the lease and its handle go on. */
      readonly kind: "alreadySatisfied";
      readonly details: SuspendOutcomeDetails;
    };

export interface PendingWaitpoint {
  readonly waitpointId: WaitpointId;
  readonly hmacToken: WaitpointToken;
}

/** A waitpoint that takes signals; never with its token. */
export interface PendingWaitpointInfo {
  readonly executionId: ExecutionId;
  readonly waitpointId: WaitpointId;
  readonly waitpointKey: string;
  readonly state: Extract<WaitpointState, "pending" | "active">;
  /** Which names count; none: any. `__operator_only__` and `__timeout_only__`: no signal does. */
  readonly requiredSignalNames: readonly string[];
  readonly createdAtMs: number;
  readonly activatedAtMs?: number;
  /** Of a pending one its own, of an active one its suspension's timeout. */
  readonly expiresAtMs?: number;
  readonly tokenKid: string;
  /** First 16 hex digits of the digest; absent where the key was rotated out. */
  readonly tokenFingerprint?: string;
  readonly signalCount: number;
  /** Those that matched some leaf, counted before or not. */
  readonly matchedSignalCount: number;
  readonly lastSignalAtMs?: number;
}

export interface SuspendedExecutionEntry {
  readonly executionId: ExecutionId;
  readonly suspendedAtMs: number;
  readonly timeoutAtMs?: number;
  readonly reason: SuspensionReason;
}

/** A signal that helped to resume; texts that its sender left out are empty. */
export interface ResumeSignal {
  readonly signalId: SignalId;
  readonly signalName: string;
  readonly signalCategory: string;
  readonly sourceType: string;
  readonly sourceIdentity: string;
  readonly correlationId: string;
  readonly acceptedAtMs: number;
  /** Byte-exact. */
  readonly payload?: Uint8Array;
}

/**
 * Waiting for people, webhooks and other programs without a worker. A suspension pauses the attempt and gives its lease
 * up; signals to its waitpoints, an operator or its timeout make the execution runnable again, interrupted: the next claim
 * goes on with the same attempt under epoch + 1, as after a delay.
 *
 * A waitpoint is `pending` from `createWaitpoint`, `active` under a suspension, then `closed` or `expired` for good. It
 * belongs to one attempt: when that ends, by whatever operation, all of the execution's waitpoints close with it. Ids are of
 * one execution: another execution's are unknown to it.
 */
export interface SuspensionOperations {
  /**
   * Suspends the running attempt, or answers that signals which came before satisfy the condition already.
   *
   * Atomic: state (`suspended`, epoch and attempt kept, lease gone), what is left of the attempt's time, the waitpoints
   * (active), the suspension with its condition, timer and the `suspended` event. `alreadySatisfied` closes the waitpoint
   * and is remembered as the execution's last suspension, with the signals that counted; the execution stays as it is.
   * Checks, in order: handle of kind `suspended` `already_suspended`; `invalid_input`, whose reason begins with a token of
   * {@link suspendFault} (`timeout_at_in_past` by the store's clock); handle made elsewhere; a repeat, see below; the fence
   * of {@link LeaseOperations}; another attempt index `invalid_lease_for_suspend`; `timeoutOnly` without any timeout
   * `invalid_input`, `timeout_only_without_deadline`. A pending waitpoint: `waitpoint_not_found`; past its time
   * `pending_waitpoint_expired`; else not pending `waitpoint_not_pending`; other attempt `invalid_waitpoint_for_execution`;
   * token void `waitpoint_not_token_bound`; key that the condition does not name `invalid_input`, {@link pendingKeyFault}.
   * Fresh ones: `waitpoint_already_exists`, `hmac_secret_not_initialized`, `invalid_secret`.
   * Repeat: with the idempotency key of an earlier suspend of this execution, or the suspension id of the last one, and in
   * both cases the same lease id, epoch and attempt id: the first outcome, whatever else is asked for, and nothing
   * changes; `token_expired` where its tokens are void by now. With another triple the fence refuses.
   */
  suspend(input: SuspendInput): Promise<SuspendOutcome>;

  /**
   * {@link suspend} by fence instead of handle: `partial_fence_triple` and `fence_required` behind
   * `execution_not_found`, no check of the attempt index.
   */
  suspendByTriple(input: SuspendByTripleInput): Promise<SuspendOutcome>;

  /**
   * Makes a waitpoint that signals can be sent to before the attempt suspends on it. They are kept.
   *
   * Atomic: the waitpoint. The lease is not touched; a lapse is not marked.
   * Checks, in order: `invalid_input`; handle of kind `suspended` `already_suspended`; made elsewhere; the fence;
   * `waitpoint_already_exists`; 256 open ones `waitpoint_limit_exceeded`; `hmac_secret_not_initialized`,
   * `invalid_secret`.
   * Repeat: without an id another waitpoint, also for an equal key.
   */
  createWaitpoint(input: CreateWaitpointInput): Promise<PendingWaitpoint>;

  /**
   * Closes a waitpoint for signals. The suspension of an active one stays open.
   *
   * Checks, in order: `execution_not_found`; `waitpoint_not_found`; closed or expired before `alreadyClosed`. By its
   * worker also: the fence, a lapse not marked; `waitpoint_not_pending`.
   */
  closeWaitpoint(
    input: CloseWaitpointInput,
  ): Promise<{ readonly kind: "closed" | "alreadyClosed" }>;

  /**
   * The signals that counted for the last suspension of the handle's attempt, in the order they were accepted: once it was
   * satisfied by them, and by its `timeout` signal at the end where `autoResumeWithTimeoutSignal` resumed it. With the handle
   * of a suspend: those so far, while it is open. Any kind of handle, no lease needed. Otherwise none: see
   * {@link observableSignals}.
   */
  observeSignals(input: HandleInput): Promise<ResumeSignal[]>;

  /**
   * Resumes without a signal.
   *
   * Atomic: state (its runnable home, or delayed with `waiting_for_resume_delay`), all waitpoints of the suspension
   * (closed), timer and the `unblocked` event, reason `triggerType`.
   * Checks, in order: `execution_not_found`, `execution_not_suspended`.
   */
  resumeExecution(input: ResumeExecutionInput): Promise<{
    readonly kind: "resumed";
    readonly publicState: PublicState;
  }>;

  /**
   * For administrators: the token of a pending or active waitpoint. Nothing for any other, nor where its key was rotated out.
   * Never log it.
   *
   * Checks: `execution_not_found`.
   */
  readWaitpointToken(input: WaitpointRef): Promise<WaitpointToken | undefined>;

  /**
   * Pending (and not past their time) and active waitpoints of one execution, by id. A page is short only at the end.
   *
   * Checks: `execution_not_found`.
   */
  listPendingWaitpoints(input: ListPendingWaitpointsInput): Promise<{
    readonly entries: PendingWaitpointInfo[];
    readonly nextCursor?: WaitpointId;
  }>;

  /** Suspended executions, by suspension time, then uuid, then partition. */
  listSuspended(input: ListSuspendedInput): Promise<{
    readonly entries: SuspendedExecutionEntry[];
    readonly nextCursor?: string;
  }>;
}
