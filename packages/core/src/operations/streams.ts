import { z } from "zod";

import { Handle } from "../handles.js";
import {
  BATCH_ITEMS_MAX,
  BATCH_MAX_BYTES,
  BEST_EFFORT_ALPHA_DEFAULT,
  BEST_EFFORT_MAXLEN_CEILING_DEFAULT,
  BEST_EFFORT_MAXLEN_FLOOR_DEFAULT,
  BEST_EFFORT_TTL_MS_MAX,
  byteLength,
  CORRELATION_ID_MAX_BYTES,
  FRAME_MAX_BYTES,
  FRAME_TYPE_MAX_BYTES,
  MAX_WAIT_MS_CEILING,
  STREAM_PAGE_MAX,
} from "../limits.js";
import {
  lowerBound,
  parseFrameCursor,
  upperBound,
  type FrameId,
} from "../rules/frame-ids.js";
import {
  FRAME_KINDS,
  TAIL_VISIBILITIES,
  type AppendedFrame,
  type StreamFrames,
  type SummaryDocument,
} from "../streams.js";
import {
  Bytes,
  ExecutionRef,
  refuseWith,
  Signal,
  storableText,
} from "./inputs.js";

/** Numbers that have a sensible neighbour are moved there; those that are no numbers are refused. */
const BestEffortLive = z.strictObject({
  kind: z.literal("bestEffortLive"),
  /** Visible that long after its append, unless newer ones have crowded it out. */
  ttlMs: z.number().int().min(1).max(BEST_EFFORT_TTL_MS_MAX),
  /** Zero and less: the default. */
  maxlenFloor: z
    .number()
    .int()
    .transform((floor) =>
      floor <= 0 ? BEST_EFFORT_MAXLEN_FLOOR_DEFAULT : floor,
    )
    .default(BEST_EFFORT_MAXLEN_FLOOR_DEFAULT),
  /** Zero and less: the default. Below the floor: the floor. */
  maxlenCeiling: z
    .number()
    .int()
    .transform((ceiling) =>
      ceiling <= 0 ? BEST_EFFORT_MAXLEN_CEILING_DEFAULT : ceiling,
    )
    .default(BEST_EFFORT_MAXLEN_CEILING_DEFAULT),
  /** Weight of the newest gap in the moving average of the rate; outside (0, 1]: the default. */
  emaAlpha: z
    .custom<number>((alpha) => typeof alpha === "number", "must be a number")
    .transform((alpha) =>
      alpha > 0 && alpha <= 1 ? alpha : BEST_EFFORT_ALPHA_DEFAULT,
    )
    .default(BEST_EFFORT_ALPHA_DEFAULT),
});

/** How a frame is kept; specification 06 §3. One stream may mix them. */
export const StreamMode = z
  .discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("durable") }),
    /** The payload is a patch: merged into the summary and appended as a frame. */
    z.strictObject({
      kind: z.literal("durableSummary"),
      patchKind: z.literal("jsonMergePatch"),
    }),
    BestEffortLive,
  ])
  .transform((mode) =>
    mode.kind === "bestEffortLive"
      ? {
          ...mode,
          maxlenCeiling: Math.max(mode.maxlenCeiling, mode.maxlenFloor),
        }
      : mode,
  );
export type StreamMode = z.input<typeof StreamMode>;

const boundedText = (maxBytes: number) =>
  z
    .string()
    .transform(storableText)
    .refine(
      (text) => byteLength(text) <= maxBytes,
      `at most ${maxBytes} bytes`,
    );

/** Fields are checked in this order, as the contract has it. */
export const Frame = z
  .object({
    mode: StreamMode.prefault({ kind: "durable" }),
    /** Kept exactly; at most 65 536. */
    bytes: Bytes.superRefine((bytes, ctx) => {
      if (bytes.length > FRAME_MAX_BYTES)
        refuseWith(ctx, "retention_limit_exceeded", {
          maxBytes: FRAME_MAX_BYTES,
        });
    }),
    kind: z.enum(FRAME_KINDS).default("event"),
    /** Free text; absent or empty: the kind. */
    frameType: boundedText(FRAME_TYPE_MAX_BYTES).default(""),
    /**
     * The caller's own number, rising with gaps allowed. The number of the last frame again is answered with that frame's
     * outcome and appends nothing, so a frame with one can be sent again after a lost reply.
     */
    seq: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
    correlationId: boundedText(CORRELATION_ID_MAX_BYTES).optional(),
  })
  .transform(({ kind, frameType, ...frame }) => ({
    ...frame,
    frameType: frameType === "" ? kind : frameType,
  }));
export type Frame = z.input<typeof Frame>;
/** As rules and backends receive it. */
export type ParsedFrame = z.output<typeof Frame>;

export const AppendFrameInput = z.object({ handle: Handle, frame: Frame });
export type AppendFrameInput = z.input<typeof AppendFrameInput>;

export const AppendFramesInput = z.object({
  handle: Handle,
  frames: z
    .array(Frame)
    .min(1, "give at least one frame")
    .max(BATCH_ITEMS_MAX, "batch_too_large: at most 1000 frames")
    .refine(
      (frames) =>
        frames.reduce((sum, { bytes }) => sum + bytes.length, 0) <=
        BATCH_MAX_BYTES,
      `batch_too_large: at most ${BATCH_MAX_BYTES} payload bytes`,
    )
    .refine(
      (frames) =>
        frames.every(({ seq }, index) => {
          const before = index === 0 ? undefined : frames[index - 1]!.seq;
          if (index === 0) return true;
          return before === undefined
            ? seq === undefined
            : seq !== undefined && seq > before;
        }),
      "seq_not_monotonic: all frames of a call have a seq, rising, or none has",
    ),
});
export type AppendFramesInput = z.input<typeof AppendFramesInput>;

/** `start`, `end`, `<ms>` or `<ms>-<n>`. @throws `invalid_offset` */
const cursor = (concreteOnly: boolean, bound: typeof lowerBound) =>
  z.string().transform((value, ctx): FrameId => {
    const parsed = parseFrameCursor(value);
    if (
      parsed !== undefined &&
      !(concreteOnly && (parsed === "start" || parsed === "end"))
    )
      return bound(parsed);
    refuseWith(ctx, "invalid_offset", { value });
    return z.NEVER;
  });

const AttemptRef = ExecutionRef.extend({
  attemptIndex: z.number().int().min(0).max(0x7fff_ffff),
});
/** Never cut: a wrong one is refused. */
const CountLimit = z
  .number()
  .int()
  .min(1, "count_limit must be >= 1")
  .max(STREAM_PAGE_MAX, "count_limit_exceeds_hard_cap");
const Visibility = z.enum(TAIL_VISIBILITIES).default("all");

export const ReadStreamInput = AttemptRef.extend({
  /** Inclusive. */
  from: cursor(false, lowerBound).prefault("start"),
  /** Inclusive; `<ms>` means all of that millisecond. */
  to: cursor(false, upperBound).prefault("end"),
  countLimit: CountLimit,
  visibility: Visibility,
  /** Also tells {@link StreamFrames.retainedCount}. */
  withRetainedCount: z.boolean().default(false),
});
export type ReadStreamInput = z.input<typeof ReadStreamInput>;

export const TailStreamInput = AttemptRef.extend({
  /** Exclusive and concrete; `0-0` begins before everything. */
  after: cursor(true, lowerBound),
  /** 0 looks once. */
  blockMs: z.number().int().min(0).max(MAX_WAIT_MS_CEILING).default(0),
  countLimit: CountLimit,
  visibility: Visibility,
  signal: Signal.optional(),
});
export type TailStreamInput = z.input<typeof TailStreamInput>;

export const ReadSummaryInput = AttemptRef;
export type ReadSummaryInput = z.input<typeof ReadSummaryInput>;

/**
 * Output of attempts: one append-only stream per (execution, attempt). An attempt that is parked and resumed goes on
 * with its stream; a retry, a take-over and a replay begin another.
 *
 * A stream is closed once its attempt has ended, by whatever it was; nothing is written for that, it is told from
 * the attempt's own record. A lease that has run out closes at the instant of its expiry, written down or not; that
 * instant stays when `reclaimed` or `max_reclaims_exceeded` becomes the reason later. While an append may be under way that
 * came before it, readers find the stream open. Parking keeps a stream open.
 *
 * Kept are, each mode by itself and exactly, the newest `streamPolicy.retentionMaxlen` durable frames (10 000), the newest
 * 64 patches, and of best-effort frames as many as the rate of appends makes of twice their time to live. Trimming one
 * mode never touches another. Everything goes with the execution.
 */
export interface StreamOperations {
  /**
   * Appends one frame to the running attempt's stream.
   *
   * Atomic: frame, counters, summary and its version, trimming. Never touches the execution, its lease or its attempt; a
   * lapse that is found is not written down.
   * Checks: handle; mode; `retention_limit_exceeded` (payload); `execution_not_found`; `stream_closed` where the
   * execution is not running (parked too); `stale_owner_cannot_append` where the lease is lost or another's; `invalid_input`
   * `seq_not_monotonic`; the patch: `invalid_input` (no JSON object, `patch_depth_exceeded`), `retention_limit_exceeded`
   * (the document it makes), `corruption` (the stored one).
   * Repeat: with `seq`, answered with the first outcome; without, another frame.
   */
  appendFrame(input: AppendFrameInput): Promise<AppendedFrame>;

  /**
   * Appends all frames in their order, or none: {@link appendFrame} for all that a handler wrote in one go.
   *
   * Atomic: one step for all; ids of one call are consecutive.
   * Checks: as {@link appendFrame}, of all frames before the first is written. Where some frames have a `seq`, all have one,
   * rising.
   * Repeat: the whole call is known by the `seq` of its last frame.
   */
  appendFrames(input: AppendFramesInput): Promise<AppendedFrame[]>;

  /**
   * Frames of a range, oldest first. Needs no lease. A stream nobody has written, or of an execution nobody knows, is
   * empty and open; so is a reversed range.
   *
   * Checks: `invalid_offset` (cursor), `invalid_input` (`countLimit` 1…10 000, never cut), `resource_exhausted` (pool
   * `stream_ops`: too many reads in flight).
   * A page ends at `countLimit` frames that are visible, or at 16 MiB of payload.
   */
  readStream(input: ReadStreamInput): Promise<StreamFrames>;

  /**
   * Frames behind a cursor, parked up to `blockMs` while there are none and the stream is open. Returns as soon as a
   * visible frame exists or the stream closes; at the end of its time and on abort empty and open. Read on from `nextCursor`
   * until `closedAtMs` is there and `frames` is empty.
   *
   * A parked tail holds no connection, no lock and no read permit; each waits for its own stream only.
   * Checks: as {@link readStream}, cursors concrete; `resource_exhausted` where the process has too many parked tails.
   */
  tailStream(input: TailStreamInput): Promise<StreamFrames>;

  /** The document that the accepted patches made; nothing where there was none. Works after the end. */
  readSummary(input: ReadSummaryInput): Promise<SummaryDocument | undefined>;
}
