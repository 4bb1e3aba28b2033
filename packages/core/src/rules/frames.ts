/**
 * What an append does to its stream: who may, how frames are numbered, what is kept. Decisions only, for stores to carry
 * out. Source: specification 06 §3–§5.
 *
 * A stream's frames stand in three classes, one per mode. Each is trimmed by itself, from its oldest frame on, so what is
 * retained of a class is always its newest.
 */
import { refuse, type Refusal } from "../errors.js";
import { SUMMARY_FRAMES_KEPT } from "../limits.js";
import type { ParsedFrame } from "../operations/streams.js";
import type { AppendedFrame, FrameMode } from "../streams.js";
import { checkFence, type FencedRecord, type FenceTriple } from "./fence.js";
import {
  FIRST_FRAME_ID,
  formatFrameId,
  nextFrameId,
  type FrameId,
} from "./frame-ids.js";

/**
 * May this holder append? Everything that {@link checkFence} refuses is one of two things here: the attempt is not
 * running, or it is not this holder's.
 */
export function checkAppend(
  record: FencedRecord,
  own: FenceTriple & { readonly attemptIndex: number },
  nowMs: number,
): Refusal | undefined {
  const refusal = checkFence(record, own, nowMs, own.attemptIndex);
  if (refusal === undefined) return undefined;
  return refusal.refused.code === "execution_not_active"
    ? refuse("stream_closed", {})
    : refuse("stale_owner_cannot_append", {});
}

export type PerMode<T> = Readonly<Record<FrameMode, T>>;

/** What the last append with a number of the caller's was answered: a repeat is answered the same. */
export interface CallerMark {
  readonly seq: number;
  readonly lastId: FrameId;
  readonly frameCount: number;
  /** 0 where there was no summary. */
  readonly summaryVersion: number;
}

export interface BestEffortState {
  /** Moving average. */
  readonly rateHz: number;
  readonly appendedAtMs: number;
}

/** What a store remembers of a stream beside its frames and its summary. */
export interface StreamMeta {
  readonly lastId: FrameId;
  readonly frameCount: number;
  readonly totalBytes: number;
  readonly retained: PerMode<number>;
  /** The last id trimmed; {@link FIRST_FRAME_ID} where none was. */
  readonly trimmedThrough: PerMode<FrameId>;
  readonly caller: CallerMark | undefined;
  readonly bestEffort: BestEffortState | undefined;
}

/** The stream of an attempt that has written nothing. */
export const NEW_STREAM: StreamMeta = {
  lastId: FIRST_FRAME_ID,
  frameCount: 0,
  totalBytes: 0,
  retained: { durable: 0, summary: 0, best_effort: 0 },
  trimmedThrough: {
    durable: FIRST_FRAME_ID,
    summary: FIRST_FRAME_ID,
    best_effort: FIRST_FRAME_ID,
  },
  caller: undefined,
  bestEffort: undefined,
};

/** By the numbers the caller gave: is this the last call again, does it go on, or back? */
export function checkCallerSeq(
  last: number | undefined,
  frames: readonly Pick<ParsedFrame, "seq">[],
): "append" | "repeat" | Refusal {
  const first = frames[0]!.seq;
  if (first === undefined || last === undefined || first > last)
    return "append";
  if (frames.at(-1)!.seq === last) return "repeat";
  return refuse("invalid_input", {
    field: "seq",
    reason: `seq_not_monotonic: ${first} was given after ${last}`,
  });
}

export function frameModeOf(frame: Pick<ParsedFrame, "mode">): FrameMode {
  switch (frame.mode.kind) {
    case "durable":
      return "durable";
    case "durableSummary":
      return "summary";
    case "bestEffortLive":
      return "best_effort";
  }
}

/** The outcomes of the call that `mark` is of, worked out again. */
export function repeatedOutcomes(
  mark: CallerMark,
  frames: readonly Pick<ParsedFrame, "mode">[],
): AppendedFrame[] {
  let { n } = mark.lastId;
  let { frameCount, summaryVersion } = mark;
  return frames
    .map((frame) => frameModeOf(frame) === "summary")
    .reverse()
    .map((isPatch) =>
      outcome(
        { ms: mark.lastId.ms, n: n-- },
        frameCount--,
        isPatch ? summaryVersion-- : undefined,
      ),
    )
    .reverse();
}

function outcome(
  id: FrameId,
  frameCount: number,
  summaryVersion: number | undefined,
): AppendedFrame {
  return {
    streamId: formatFrameId(id),
    frameCount,
    ...(summaryVersion === undefined ? {} : { summaryVersion }),
  };
}

type BestEffortMode = Extract<
  ParsedFrame["mode"],
  { readonly kind: "bestEffortLive" }
>;

/** How many best-effort frames one more append keeps: what its rate brings in twice their time to live. */
export function sizeBestEffort(
  before: BestEffortState | undefined,
  mode: BestEffortMode,
  nowMs: number,
): BestEffortState & { readonly kept: number } {
  const spanSeconds = (mode.ttlMs / 1_000) * 2;
  const rateHz =
    before === undefined
      ? mode.maxlenFloor / spanSeconds
      : mode.emaAlpha * (1_000 / Math.max(1, nowMs - before.appendedAtMs)) +
        (1 - mode.emaAlpha) * before.rateHz;
  const kept = Math.min(
    mode.maxlenCeiling,
    Math.max(mode.maxlenFloor, Math.ceil(rateHz * spanSeconds)),
  );
  return { rateHz, appendedAtMs: nowMs, kept };
}

/** A frame as stores keep it. */
export interface StoredFrame {
  readonly id: FrameId;
  readonly mode: FrameMode;
  readonly frameType: string;
  readonly payload: Uint8Array;
  readonly correlationId?: string | undefined;
  readonly seq?: number | undefined;
  readonly summaryVersion?: number | undefined;
  readonly ttlMs?: number | undefined;
}

export interface AppendPlan {
  readonly meta: StreamMeta;
  readonly frames: readonly StoredFrame[];
  /** How many of its oldest frames each class loses once these are in; the store adds what it removed to the meta. */
  readonly excess: PerMode<number>;
  readonly outcomes: AppendedFrame[];
}

/**
 * What an accepted call does to its stream.
 * @param facts `summaryVersion`: before the call
 */
export function planAppend(
  meta: StreamMeta,
  given: readonly ParsedFrame[],
  facts: AppendFacts,
): AppendPlan {
  const draft = new Draft(meta, facts);
  for (const frame of given) draft.add(frame);
  return draft.plan(given.at(-1)!.seq);
}

export interface AppendFacts {
  readonly nowMs: number;
  readonly durableKept: number;
  readonly summaryVersion: number;
}

/** A stream while the frames of one call go into it, one by one. */
class Draft {
  readonly #facts: AppendFacts;
  readonly #frames: StoredFrame[] = [];
  readonly #outcomes: AppendedFrame[] = [];
  readonly #excess = { durable: 0, summary: 0, best_effort: 0 };
  readonly #retained: Record<FrameMode, number>;
  #meta: StreamMeta;
  #summaryVersion: number;

  constructor(meta: StreamMeta, facts: AppendFacts) {
    this.#meta = meta;
    this.#facts = facts;
    this.#retained = { ...meta.retained };
    this.#summaryVersion = facts.summaryVersion;
  }

  add(frame: ParsedFrame): void {
    const mode = frameModeOf(frame);
    this.#count(frame);
    this.#trim(mode, this.#keptOf(frame));
    if (mode === "summary") this.#summaryVersion += 1;
    const summaryVersion =
      mode === "summary" ? this.#summaryVersion : undefined;
    const { lastId: id, frameCount } = this.#meta;
    this.#outcomes.push(outcome(id, frameCount, summaryVersion));
    this.#frames.push({
      id,
      mode,
      frameType: frame.frameType,
      payload: frame.bytes,
      correlationId: frame.correlationId,
      seq: frame.seq,
      summaryVersion,
      ttlMs:
        frame.mode.kind === "bestEffortLive" ? frame.mode.ttlMs : undefined,
    });
  }

  /** @param seq the caller's number of the last frame */
  plan(seq: number | undefined): AppendPlan {
    const { lastId, frameCount, caller } = this.#meta;
    const summaryVersion = this.#summaryVersion;
    return {
      frames: this.#frames,
      excess: this.#excess,
      outcomes: this.#outcomes,
      meta: {
        ...this.#meta,
        retained: this.#retained,
        caller:
          seq === undefined
            ? caller
            : { seq, lastId, frameCount, summaryVersion },
      },
    };
  }

  #count({ bytes }: ParsedFrame): void {
    const { lastId, frameCount, totalBytes } = this.#meta;
    this.#meta = {
      ...this.#meta,
      lastId: nextFrameId(
        frameCount === 0 ? undefined : lastId,
        this.#facts.nowMs,
      ),
      frameCount: frameCount + 1,
      totalBytes: totalBytes + bytes.length,
    };
  }

  /** How many frames of its class this one lets stay. */
  #keptOf({ mode }: ParsedFrame): number {
    if (mode.kind === "durable") return this.#facts.durableKept;
    if (mode.kind === "durableSummary") return SUMMARY_FRAMES_KEPT;
    const { kept, ...bestEffort } = sizeBestEffort(
      this.#meta.bestEffort,
      mode,
      this.#facts.nowMs,
    );
    this.#meta = { ...this.#meta, bestEffort };
    return kept;
  }

  /** As if appended one by one: what a frame crowds out does not come back when a later one would have kept it. */
  #trim(mode: FrameMode, kept: number): void {
    const tooMany = Math.max(0, this.#retained[mode] + 1 - kept);
    this.#retained[mode] += 1 - tooMany;
    this.#excess[mode] += tooMany;
  }
}
