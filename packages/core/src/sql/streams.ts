/** Rows of the tables of streams. */
import {
  NEW_STREAM,
  type StoredFrame,
  type StreamMeta,
} from "../rules/frames.js";
import { endOfArchived, type AttemptEnd } from "../rules/stream-close.js";
import {
  cutPage,
  toStreamFrames,
  type FrameRange,
} from "../rules/stream-pages.js";
import { HOME } from "../state.js";
import { FRAME_MODES, type SummaryDocument } from "../streams.js";
import type { StreamPage } from "../tails.js";
import { attemptEndOf, type AttemptEndFacts } from "./attempts.js";
import type { ArchivedAttempt } from "../records/attempts.js";
import { parseJson } from "../records/values.js";
import type { ExecutionRow } from "./rows.js";

/** Of `streams`, in the order of {@link STREAM_COLUMNS}. */
export interface StreamRow {
  readonly last_ms: number;
  readonly last_n: number;
  readonly frame_count: number;
  readonly total_bytes: number;
  /** How many durable frames are kept; fixed by the first append. */
  readonly durable_kept: number;
  readonly durable: number;
  readonly summary: number;
  readonly best_effort: number;
  readonly durable_trimmed_ms: number;
  readonly durable_trimmed_n: number;
  readonly summary_trimmed_ms: number;
  readonly summary_trimmed_n: number;
  readonly best_effort_trimmed_ms: number;
  readonly best_effort_trimmed_n: number;
  readonly caller_seq: number | null;
  readonly caller_ms: number | null;
  readonly caller_n: number | null;
  readonly caller_count: number | null;
  readonly caller_version: number | null;
  readonly rate_hz: number | null;
  readonly best_effort_at: number | null;
}

export const STREAM_COLUMNS = [
  "last_ms",
  "last_n",
  "frame_count",
  "total_bytes",
  "durable_kept",
  "durable",
  "summary",
  "best_effort",
  "durable_trimmed_ms",
  "durable_trimmed_n",
  "summary_trimmed_ms",
  "summary_trimmed_n",
  "best_effort_trimmed_ms",
  "best_effort_trimmed_n",
  "caller_seq",
  "caller_ms",
  "caller_n",
  "caller_count",
  "caller_version",
  "rate_hz",
  "best_effort_at",
] as const satisfies readonly (keyof StreamRow)[];

export function toStreamMeta(row: StreamRow | undefined): StreamMeta {
  if (row === undefined) return NEW_STREAM;
  return {
    lastId: { ms: row.last_ms, n: row.last_n },
    frameCount: row.frame_count,
    totalBytes: row.total_bytes,
    retained: {
      durable: row.durable,
      summary: row.summary,
      best_effort: row.best_effort,
    },
    trimmedThrough: {
      durable: { ms: row.durable_trimmed_ms, n: row.durable_trimmed_n },
      summary: { ms: row.summary_trimmed_ms, n: row.summary_trimmed_n },
      best_effort: {
        ms: row.best_effort_trimmed_ms,
        n: row.best_effort_trimmed_n,
      },
    },
    caller:
      row.caller_seq === null
        ? undefined
        : {
            seq: row.caller_seq,
            lastId: { ms: row.caller_ms!, n: row.caller_n! },
            frameCount: row.caller_count!,
            summaryVersion: row.caller_version!,
          },
    bestEffort:
      row.rate_hz === null
        ? undefined
        : { rateHz: row.rate_hz, appendedAtMs: row.best_effort_at! },
  };
}

export function toStreamRow(meta: StreamMeta, durableKept: number): StreamRow {
  const { lastId, retained, trimmedThrough, caller, bestEffort } = meta;
  return {
    last_ms: lastId.ms,
    last_n: lastId.n,
    frame_count: meta.frameCount,
    total_bytes: meta.totalBytes,
    durable_kept: durableKept,
    durable: retained.durable,
    summary: retained.summary,
    best_effort: retained.best_effort,
    durable_trimmed_ms: trimmedThrough.durable.ms,
    durable_trimmed_n: trimmedThrough.durable.n,
    summary_trimmed_ms: trimmedThrough.summary.ms,
    summary_trimmed_n: trimmedThrough.summary.n,
    best_effort_trimmed_ms: trimmedThrough.best_effort.ms,
    best_effort_trimmed_n: trimmedThrough.best_effort.n,
    caller_seq: caller?.seq ?? null,
    caller_ms: caller?.lastId.ms ?? null,
    caller_n: caller?.lastId.n ?? null,
    caller_count: caller?.frameCount ?? null,
    caller_version: caller?.summaryVersion ?? null,
    rate_hz: bestEffort?.rateHz ?? null,
    best_effort_at: bestEffort?.appendedAtMs ?? null,
  };
}

/** Of `frames`, behind the stream that it belongs to. */
export interface FrameRow {
  /** Index in {@link FRAME_MODES}. */
  readonly mode: number;
  readonly ms: number;
  readonly n: number;
  readonly frame_type: string;
  readonly correlation_id: string | null;
  readonly caller_seq: number | null;
  readonly summary_version: number | null;
  readonly ttl_ms: number | null;
  readonly payload: Uint8Array;
}

export const FRAME_COLUMNS = [
  "mode",
  "ms",
  "n",
  "frame_type",
  "correlation_id",
  "caller_seq",
  "summary_version",
  "ttl_ms",
  "payload",
] as const satisfies readonly (keyof FrameRow)[];

export function toStoredFrame(row: FrameRow): StoredFrame {
  return {
    id: { ms: row.ms, n: row.n },
    mode: FRAME_MODES[row.mode]!,
    frameType: row.frame_type,
    payload: row.payload,
    correlationId: row.correlation_id ?? undefined,
    seq: row.caller_seq ?? undefined,
    summaryVersion: row.summary_version ?? undefined,
    ttlMs: row.ttl_ms ?? undefined,
  };
}

export function toFrameRow(frame: StoredFrame): FrameRow {
  return {
    mode: FRAME_MODES.indexOf(frame.mode),
    ms: frame.id.ms,
    n: frame.id.n,
    frame_type: frame.frameType,
    correlation_id: frame.correlationId ?? null,
    caller_seq: frame.seq ?? null,
    summary_version: frame.summaryVersion ?? null,
    ttl_ms: frame.ttlMs ?? null,
    payload: frame.payload,
  };
}

/** Of `summaries`. */
export interface SummaryRow {
  readonly document: string;
  readonly version: number;
  readonly first_applied_at: number;
  readonly last_updated_at: number;
}

export function toSummaryDocument(row: SummaryRow): SummaryDocument {
  return {
    documentJson: Buffer.from(row.document, "utf8"),
    version: row.version,
    patchKind: "jsonMergePatch",
    lastUpdatedMs: row.last_updated_at,
    firstAppliedMs: row.first_applied_at,
  };
}

/** A stream as its readers find it, with the record of its execution: all of one moment. */
export interface StreamFound {
  readonly row: AttemptEndFacts &
    Readonly<Pick<ExecutionRow, "attempt" | "attempt_id">>;
  readonly attempt: number;
  readonly stream: StreamRow | undefined;
  /** Of the attempt, where it was superseded. */
  readonly archived: string | null | undefined;
}

/**
 * @param found nothing where nobody knows the execution
 * @param read the first visible frames of the range, at least one more than the page may hold where there are more
 */
export function toStreamPage(
  found: StreamFound | undefined,
  range: FrameRange,
  read: readonly StoredFrame[],
  countLimit: number,
  nowMs: number,
): StreamPage {
  if (found === undefined)
    return {
      page: toStreamFrames(range, undefined, undefined, [], false),
      lapsesInMs: undefined,
    };
  const { row, attempt, stream } = found;
  const { frames, truncated } = cutPage(read, countLimit);
  const meta = toStreamMeta(stream);
  return {
    page: toStreamFrames(range, meta, endOf(found, nowMs), frames, truncated),
    lapsesInMs:
      row.home === HOME.active && attempt === row.attempt
        ? row.lease_expires_at! - nowMs
        : undefined,
  };
}

/** How the attempt ended: from the record where it is the current one, else from the archive. */
function endOf(
  { row, attempt, archived }: StreamFound,
  nowMs: number,
): AttemptEnd | undefined {
  if (row.attempt_id !== null && attempt === row.attempt)
    return attemptEndOf(row, nowMs);
  return archived === undefined || archived === null
    ? undefined
    : endOfArchived(parseJson<ArchivedAttempt>(archived, "attempt"));
}
