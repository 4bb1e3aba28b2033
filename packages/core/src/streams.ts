/**
 * What an attempt puts out while it runs: frames, in order, and a summary document that patches build.
 * Source: specification 06 §1–§9.
 */

/** Coarse class of a frame; what `frameType` falls back to. */
export const FRAME_KINDS = ["stdout", "stderr", "event", "blob"] as const;
export type FrameKind = (typeof FRAME_KINDS)[number];

/** How a frame is kept. Stored by position in this list: append only. */
export const FRAME_MODES = ["durable", "summary", "best_effort"] as const;
export type FrameMode = (typeof FRAME_MODES)[number];

/** What ended an attempt, and with it its stream. */
export const STREAM_CLOSE_REASONS = [
  "attempt_success",
  "attempt_failure",
  "attempt_cancelled",
  "lease_expired",
  "lease_revoked",
  "reclaimed",
  "expired",
  "suspension_timeout",
  "dependency_impossible",
  "max_reclaims_exceeded",
] as const;
export type StreamCloseReason = (typeof STREAM_CLOSE_REASONS)[number];

export const TAIL_VISIBILITIES = ["all", "excludeBestEffort"] as const;
export type TailVisibility = (typeof TAIL_VISIBILITIES)[number];

export interface AppendedFrame {
  /** The frame's id, `<ms>-<n>`: strictly increasing per attempt. */
  readonly streamId: string;
  /** Frames ever appended to this stream, of all modes, up to this one. Trimming never lowers it. */
  readonly frameCount: number;
  /** Of the summary after this frame's patch. */
  readonly summaryVersion?: number;
}

export interface StreamFrame {
  readonly id: string;
  /**
   * In sorted order: `encoding` (`utf8`, or `base64` where the payload is not valid UTF-8 and has to be shown as text),
   * `frame_type`, `mode`, `payload`, `source`, `ts`; where set also `correlation_id`, `seq`, `summary_version`, `ttl_ms`.
   */
  readonly fields: Readonly<Record<string, string | Uint8Array>>;
  /** Exactly the bytes that were appended. */
  readonly payload: Uint8Array;
}

/** A page of one stream. Frames and close marker are of one moment. */
export interface StreamFrames {
  readonly frames: readonly StreamFrame[];
  /** Present once the attempt has ended. No frame comes after that. */
  readonly closedAtMs?: number;
  readonly closedReason?: StreamCloseReason;
  /** Pass it as `after` to go on behind this page; it has moved past frames that were not visible. */
  readonly nextCursor: string;
  /** Frames behind the cursor have been trimmed: the reader gets what is retained. */
  readonly gap: boolean;
  /** More frames stand in the range than this page holds. */
  readonly truncated: boolean;
  /**
   * Of all the stream, how many frames of the visible modes have not been trimmed, where the read asked for it. A best-effort
   * frame whose time is over counts until newer ones crowd it out.
   */
  readonly retainedCount?: number;
}

export interface SummaryDocument {
  /** UTF-8 JSON, an object. */
  readonly documentJson: Uint8Array;
  /** Patches accepted so far, from 1. The document is what exactly these made. */
  readonly version: number;
  readonly patchKind: "jsonMergePatch";
  readonly lastUpdatedMs: number;
  readonly firstAppliedMs: number;
}
