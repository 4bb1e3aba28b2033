/** What readers of a stream are shown. Source: specification 06 §2.2, §6, §7. */
import { isUtf8 } from "node:buffer";

import { STREAM_PAGE_BYTES_MAX } from "../limits.js";
import type {
  FrameMode,
  StreamFrame,
  StreamFrames,
  TailVisibility,
} from "../streams.js";
import {
  BEYOND_FRAMES,
  compareFrameIds,
  formatFrameId,
  justBefore,
  later,
  type FrameId,
} from "./frame-ids.js";
import { NEW_STREAM, type StoredFrame, type StreamMeta } from "./frames.js";
import type { AttemptEnd } from "./stream-close.js";

/** Best-effort frames are gone once their time is over, whether the store has removed them or not. */
export function isFrameVisible(
  frame: Pick<StoredFrame, "id" | "ttlMs">,
  nowMs: number,
): boolean {
  return frame.ttlMs === undefined || frame.id.ms + frame.ttlMs >= nowMs;
}

export function modesVisibleTo(visibility: TailVisibility): FrameMode[] {
  return visibility === "all"
    ? ["durable", "summary", "best_effort"]
    : ["durable", "summary"];
}

/** A range of one stream, open at its lower end, and what is wanted of it. */
export interface FrameRange {
  readonly after: FrameId;
  readonly to: FrameId;
  readonly visibility: TailVisibility;
  readonly withRetainedCount?: boolean;
}

/**
 * What a read answers.
 * @param frames the first visible ones of the range, oldest first
 * @param truncated whether more visible ones stand behind them
 */
export function toStreamFrames(
  { after, to, visibility, withRetainedCount = false }: FrameRange,
  meta: StreamMeta | undefined,
  end: AttemptEnd | undefined,
  frames: readonly StoredFrame[],
  truncated: boolean,
): StreamFrames {
  const { lastId, trimmedThrough, retained } = meta ?? NEW_STREAM;
  const modes = modesVisibleTo(visibility);
  const seenThrough = compareFrameIds(to, lastId) < 0 ? to : lastId;
  const next =
    compareFrameIds(after, justBefore(BEYOND_FRAMES)) >= 0
      ? lastId
      : later(after, truncated ? frames.at(-1)!.id : seenThrough);
  return {
    frames: frames.map(toStreamFrame),
    ...end,
    nextCursor: formatFrameId(next),
    gap: modes.some((mode) => compareFrameIds(after, trimmedThrough[mode]) < 0),
    truncated,
    ...(withRetainedCount && {
      retainedCount: modes.reduce((sum, mode) => sum + retained[mode], 0),
    }),
  };
}

/** Cuts what a store has read to a page: `countLimit` frames, or as many as the reply may carry. */
export function cutPage(
  frames: readonly StoredFrame[],
  countLimit: number,
): { readonly frames: readonly StoredFrame[]; readonly truncated: boolean } {
  let bytes = 0;
  const fitting = frames.findIndex(({ payload }, index) => {
    bytes += payload.length;
    return index === countLimit || bytes > STREAM_PAGE_BYTES_MAX;
  });
  return fitting === -1
    ? { frames, truncated: false }
    : { frames: frames.slice(0, fitting), truncated: true };
}

function toStreamFrame(frame: StoredFrame): StreamFrame {
  const { id, payload } = frame;
  const fields: Record<string, string | Uint8Array> = {};
  if (frame.correlationId !== undefined)
    fields["correlation_id"] = frame.correlationId;
  fields["encoding"] = isUtf8(payload) ? "utf8" : "base64";
  fields["frame_type"] = frame.frameType;
  fields["mode"] = frame.mode;
  fields["payload"] = payload;
  if (frame.seq !== undefined) fields["seq"] = String(frame.seq);
  fields["source"] = "worker";
  if (frame.summaryVersion !== undefined)
    fields["summary_version"] = String(frame.summaryVersion);
  fields["ts"] = String(id.ms);
  if (frame.ttlMs !== undefined) fields["ttl_ms"] = String(frame.ttlMs);
  return { id: formatFrameId(id), fields, payload };
}
