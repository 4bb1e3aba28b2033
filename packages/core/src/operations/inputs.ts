/** Fields that several operations take, spelled once. */
import { z } from "zod";

import { engineError, type ErrorCode, type ErrorDetails } from "../errors.js";
import {
  AttemptId,
  ExecutionId,
  hasNoZero,
  LaneId,
  LeaseId,
  Namespace,
  WorkerId,
  WorkerInstanceId,
  ZERO_CHARACTER,
} from "../ids.js";
import {
  byteLength,
  GRANT_TTL_MS_MAX,
  LIST_PAGE_MAX,
  MAX_WAIT_MS_CEILING,
  TAG_KEY_MAX_BYTES,
  TAG_VALUE_MAX_BYTES,
  TAGS_MAX,
} from "../limits.js";
import { parsePartitionKey } from "../partitions.js";
import { parseCapabilities } from "../policies.js";

/** Adds an issue that the edge turns into this engine error instead of `invalid_input`. */
export function refuseWith<C extends ErrorCode>(
  ctx: z.RefinementCtx,
  code: C,
  detail: ErrorDetails[C],
): void {
  ctx.addIssue({
    code: "custom",
    message: code,
    params: { engineError: engineError(code, detail) },
  });
}

// Over any buffer: what `z.instanceof` infers would refuse a Buffer and every other Uint8Array of unknown backing.
export const Bytes = z.instanceof(Uint8Array, {
  error: "must be a Uint8Array",
}) as unknown as z.ZodType<Uint8Array, Uint8Array>;
export const Signal = z.instanceof(AbortSignal, {
  error: "must be an AbortSignal",
});
/** Epoch milliseconds by the store's clock. */
export const TimestampMs = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

/** What not every store can hold of a text is replaced by U+FFFD, on every store alike: zero characters. */
export function storableText(given: string): string {
  return given.replaceAll("\0", "\ufffd");
}

/** Free text, as {@link storableText} keeps it; `max` in UTF-16 units. */
export function text(max: number): z.ZodType<string, string> {
  return z.string().max(max).transform(storableText);
}

/** A text that names something; it is kept as it is or not at all. */
export function name(max: number): z.ZodType<string, string> {
  return z
    .string()
    .min(1, "must not be empty")
    .max(max)
    .refine(hasNoZero, ZERO_CHARACTER);
}

/** A text that is kept as it is or not at all; `maxBytes` in UTF-8. */
export function boundedText(maxBytes: number) {
  return z
    .string()
    .refine(
      (value) => byteLength(value) <= maxBytes,
      `must have at most ${maxBytes} bytes`,
    )
    .refine(hasNoZero, ZERO_CHARACTER);
}

/** Proves ownership of the running attempt. All three or none. */
export const LeaseFence = z.object({
  leaseId: LeaseId.optional(),
  leaseEpoch: z.number().int().min(0).optional(),
  attemptId: AttemptId.optional(),
});
export type LeaseFence = z.infer<typeof LeaseFence>;

/** Milliseconds; at least 1 (SDK workers insist on 1 000). */
export const LeaseTtlMs = z.number().int().min(1).max(86_400_000);
export const GrantTtlMs = z.number().int().min(1).max(GRANT_TTL_MS_MAX);
/** How long a call may park, in milliseconds; absent or 0 answers at once. */
export const MaxWaitMs = z
  .number()
  .int()
  .min(0)
  .max(MAX_WAIT_MS_CEILING)
  .optional();

/** Anything above the cap is cut silently; 0 gives an empty page without a cursor. */
export const PageLimit = z
  .number()
  .int()
  .min(0)
  .default(100)
  .transform((limit) => Math.min(limit, LIST_PAGE_MAX));
/** As returned by the page before. */
export const PageCursor = z.string().max(512).optional();

/** `{fp:7}`. Absent: all partitions together. */
export const PartitionKey = z.string().transform((key, ctx) => {
  try {
    return parsePartitionKey(key).index;
  } catch (error) {
    ctx.addIssue({
      code: "custom",
      message: String(
        (error as { detail?: { reason?: string } }).detail?.reason,
      ),
    });
    return z.NEVER;
  }
});

/** Sorted, without repeats. @throws `invalid_capabilities` */
export const WorkerCapabilities = (
  z.unknown().transform((list, ctx): string[] => {
    const tokens = parseCapabilities(list, "worker");
    if (Array.isArray(tokens)) return tokens;
    refuseWith(ctx, "invalid_capabilities", tokens.detail);
    return z.NEVER;
  }) as unknown as z.ZodType<string[], readonly string[]>
).default([]);

const TAG_KEY = /^[a-z][a-z0-9_.-]*$/;

/** `[a-z][a-z0-9_.-]*`, at most 128 bytes; the prefix `ff.` is the engine's (00 D47). @throws `invalid_tag_key` */
export const TagKey = z.string().superRefine((key, ctx) => {
  if (
    !TAG_KEY.test(key) ||
    key.startsWith("ff.") ||
    byteLength(key) > TAG_KEY_MAX_BYTES
  )
    refuseWith(ctx, "invalid_tag_key", { key });
});
/** At most 256 bytes. */
export const TagValue = z
  .string()
  .refine(
    (value) => byteLength(value) <= TAG_VALUE_MAX_BYTES,
    `a tag value has at most ${TAG_VALUE_MAX_BYTES} bytes`,
  )
  .refine(hasNoZero, ZERO_CHARACTER);
export const Tags = z
  .record(TagKey, TagValue)
  .refine(
    (tags) => Object.keys(tags).length <= TAGS_MAX,
    `at most ${TAGS_MAX} tags per execution`,
  );

/** Names one execution. A namespace narrows: an id of another namespace is then unknown. */
export const ExecutionRef = z.object({
  executionId: ExecutionId,
  namespace: Namespace.optional(),
});
export type ExecutionRef = z.input<typeof ExecutionRef>;

/** Who asks. */
export const Claimant = z.object({
  workerId: WorkerId,
  workerInstanceId: WorkerInstanceId,
});
export type Claimant = z.infer<typeof Claimant>;

export const Lanes = z
  .array(LaneId)
  .min(1, "at least one lane is required")
  .transform((lanes) => [...new Set(lanes)]);

/** Free text kept with a transition. */
export const Reason = text(65_536);
