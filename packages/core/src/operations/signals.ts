import { z } from "zod";

import {
  LaneId,
  newSignalId,
  SignalId,
  WaitpointId,
  type SignalId as SignalIdType,
} from "../ids.js";
import {
  SIGNAL_DEDUP_MS_DEFAULT,
  SIGNAL_NAME_MAX_BYTES,
  SIGNAL_TEXT_MAX_BYTES,
} from "../limits.js";
import type { SignalEffect } from "../rules/conditions.js";
import { parseToken, WaitpointTokenText } from "../waitpoint-token.js";
import {
  boundedText,
  Bytes,
  ExecutionRef,
  refuseWith,
  TimestampMs,
} from "./inputs.js";
import { ResumeDelayMs } from "./suspend-input.js";

/** 1 to 256 bytes; names with two underscores in front are the engine's. */
const SignalName = boundedText(SIGNAL_NAME_MAX_BYTES)
  .min(1, "must not be empty")
  .refine(
    (text) => !text.startsWith("__"),
    "reserved_signal_name: must not start with __",
  );
const SignalText = boundedText(SIGNAL_TEXT_MAX_BYTES);
/** Milliseconds; 0: not remembered. */
const DedupTtlMs = z
  .number()
  .int()
  .min(0)
  .max(Number.MAX_SAFE_INTEGER)
  .default(SIGNAL_DEDUP_MS_DEFAULT);
/** May only lower the execution policy's limit; 0 leaves it. */
const MaxSignals = z.number().int().min(0).optional();

/** Whose form is right: the first two checks of a token need no store. @throws `missing_token`, `invalid_token` */
const PresentedToken = WaitpointTokenText.transform((text, ctx) => {
  const token = parseToken(text);
  if (token !== undefined) return token;
  refuseWith(ctx, text === "" ? "missing_token" : "invalid_token", {});
  return z.NEVER;
});

export const DeliverSignalInput = ExecutionRef.extend({
  waitpointId: WaitpointId,
  /** A repeated id is the same signal, for good. */
  signalId: SignalId,
  signalName: SignalName,
  signalCategory: SignalText.default(""),
  sourceType: SignalText.default(""),
  sourceIdentity: SignalText.default(""),
  /** Kept byte-exact, within the store's limit for payloads. */
  payload: Bytes.optional(),
  payloadEncoding: SignalText.default("json"),
  correlationId: SignalText.default(""),
  /** Of this waitpoint; empty means absent. */
  idempotencyKey: SignalText.optional(),
  targetScope: SignalText.default("waitpoint"),
  /** Default: when it is accepted. */
  createdAtMs: TimestampMs.optional(),
  /** How long the idempotency key is remembered. */
  dedupTtlMs: DedupTtlMs,
  /** Counts only where the suspension's policy says nothing. */
  resumeDelayMs: ResumeDelayMs.optional(),
  maxSignalsPerExecution: MaxSignals,
  // Last: what is wrong with the shape is told before what is wrong with the token.
  waitpointToken: PresentedToken,
});
export type DeliverSignalInput = z.input<typeof DeliverSignalInput>;

export const DeliverApprovalSignalInput = ExecutionRef.extend({
  laneId: LaneId.optional(),
  waitpointId: WaitpointId,
  /** `approved` or `rejected` by convention. */
  signalName: SignalName,
  /** What makes a repeat the same decision: the key is `approval:<signalName>:<idempotencySuffix>`. */
  idempotencySuffix: SignalText.min(1, "must not be empty"),
  signalDedupTtlMs: DedupTtlMs,
  maxSignalsPerExecution: MaxSignals,
  /** Minted when absent. */
  signalId: SignalId.default(() => newSignalId()),
});
export type DeliverApprovalSignalInput = z.input<
  typeof DeliverApprovalSignalInput
>;

export type DeliverSignalResult =
  | {
      readonly kind: "accepted";
      readonly signalId: SignalIdType;
      readonly effect: SignalEffect;
    }
  | { readonly kind: "duplicate"; readonly existingSignalId: SignalIdType };

/**
 * Signals: named messages from outside to one waitpoint of one execution, each counted once.
 *
 * What an accepted signal does is told by its `effect`: kept for a pending waitpoint; or held against the condition of the
 * suspension, which exactly one signal satisfies. Whether it is evaluated or not, an accepted one is stored, numbered in the
 * order of acceptance, told as a `signal` event, and stays until its execution is purged.
 */
export interface SignalOperations {
  /**
   * Delivers on behalf of whoever holds the waitpoint's token.
   *
   * Atomic: the signal, its keys, counters and the `signal` event; where it satisfies the condition also what
   * {@link SuspensionOperations.resumeExecution} does, in that one event. The delay is the suspension's
   * `resumePolicy.resumeDelayMs`, else the sender's.
   * Checks, in order: `invalid_input`, `payload_too_large`; the token: `missing_token`, malformed `invalid_token`,
   * `hmac_secret_not_initialized`, unknown kid `invalid_token`, kid out of its grace `token_expired`, `invalid_secret`,
   * digest of anything else than this execution and waitpoint, existing or not, `invalid_token`; a repeat, see below;
   * execution ended `target_not_signalable`; waitpoint closed, expired or past its time `waitpoint_closed`;
   * `signal_limit_exceeded`; active, but not under the open suspension `target_not_signalable`.
   * A refused token changes nothing but the snapshot's `lastHmacValidationFailedAtMs`.
   * Repeat: a signal id that the execution has, or a key that this waitpoint remembers: `duplicate`, whatever has
   * become of the execution; told once per signal as `deduped`.
   */
  deliverSignal(input: DeliverSignalInput): Promise<DeliverSignalResult>;

  /**
   * Delivers on behalf of an operator, without a token: category `approval`, source type `operator`, no source identity,
   * scope `execution`, no payload. Otherwise as {@link deliverSignal}, from the repeat on.
   *
   * Checks before: `execution_not_found`; another lane `invalid_input`, `lane_mismatch`; `waitpoint_not_found`.
   */
  deliverApprovalSignal(
    input: DeliverApprovalSignalInput,
  ): Promise<DeliverSignalResult>;
}
