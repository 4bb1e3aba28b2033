/** The stream of one attempt: writing what an append has decided, and reading a page of it. */
import {
  checkCallerSeq,
  compareFrameIds,
  frameModeOf,
  FRAME_MODES,
  isEngineError,
  isRefusal,
  modesVisibleTo,
  patchDocument,
  planAppend,
  repeatedOutcomes,
  STREAM_PAGE_BYTES_MAX,
  DURABLE_FRAMES_KEPT_DEFAULT,
  type AppendedFrame,
  type AppendPlan,
  type FrameId,
  type FrameMode,
  type FrameRange,
  type ParsedFrame,
  type PerMode,
  type Refusal,
  type StoredFrame,
  type StreamPage,
} from "@flowfabric/core";
import {
  effectiveNow,
  FRAME_COLUMNS,
  STREAM_COLUMNS,
  toFrameRow,
  toStoredFrame,
  toStreamMeta,
  toStreamPage,
  toStreamRow,
  type ExecutionRow,
  type FrameRow,
  type StreamRow,
  type SummaryRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import { readPolicy } from "./policy.js";

/** Rows per look, so that long frames are never all in memory before the page is full. */
const CHUNK_ROWS = 256;

/** Appends to the stream of the attempt that runs; the fence was checked. */
export function appendFrames(
  tx: Session,
  row: ExecutionRow,
  frames: readonly ParsedFrame[],
  nowMs: number,
): AppendedFrame[] | Refusal {
  const stored = readStreamRow(tx, row.seq, row.attempt);
  const meta = toStreamMeta(stored);
  const verdict = checkCallerSeq(meta.caller?.seq, frames);
  if (isRefusal(verdict)) return verdict;
  if (verdict === "repeat") return repeatedOutcomes(meta.caller!, frames);

  const durableKept =
    stored?.durable_kept ??
    readPolicy(tx, row).streamPolicy?.retentionMaxlen ??
    DURABLE_FRAMES_KEPT_DEFAULT;
  const summaryVersion = patchSummary(tx, row, frames, nowMs);
  if (isRefusal(summaryVersion)) return summaryVersion;

  const plan = planAppend(meta, frames, { nowMs, durableKept, summaryVersion });
  for (const frame of plan.frames) insertFrame(tx, row, frame);
  const trimmedThrough = { ...meta.trimmedThrough, ...trim(tx, row, plan) };
  const after = toStreamRow({ ...plan.meta, trimmedThrough }, durableKept);
  tx.run(
    SAVE_STREAM,
    row.seq,
    row.attempt,
    tx.get<{ value: number }>(COUNT_CHANGE)!.value,
    ...STREAM_COLUMNS.map((column) => after[column]),
  );
  return plan.outcomes;
}

/** @returns the summary's version before the call, which is 0 where no summary is concerned */
function patchSummary(
  tx: Session,
  row: ExecutionRow,
  frames: readonly ParsedFrame[],
  nowMs: number,
): number | Refusal {
  const patches = frames
    .filter((frame) => frameModeOf(frame) === "summary")
    .map(({ bytes }) => bytes);
  if (patches.length === 0) return 0;
  const summary = readSummaryRow(tx, row.seq, row.attempt);
  let document: string;
  try {
    document = patchDocument(summary?.document, patches);
  } catch (error) {
    if (isEngineError(error)) return { refused: error };
    throw error;
  }
  const version = summary?.version ?? 0;
  tx.run(
    SAVE_SUMMARY,
    row.seq,
    row.attempt,
    document,
    version + patches.length,
    nowMs,
    nowMs,
  );
  return version;
}

function insertFrame(tx: Session, row: ExecutionRow, frame: StoredFrame): void {
  const values = toFrameRow(frame);
  tx.run(
    INSERT_FRAME,
    row.seq,
    row.attempt,
    ...FRAME_COLUMNS.map((column) => values[column]),
  );
}

/** @returns the last frame that each mode has lost */
function trim(
  tx: Session,
  row: ExecutionRow,
  { excess }: AppendPlan,
): Partial<PerMode<FrameId>> {
  const trimmed: { [M in FrameMode]?: FrameId } = {};
  for (const [code, mode] of FRAME_MODES.entries()) {
    if (excess[mode] === 0) continue;
    const last = tx.get<FrameId>(
      LAST_OF_OLDEST,
      row.seq,
      row.attempt,
      code,
      excess[mode] - 1,
    )!;
    tx.run(DELETE_THROUGH, row.seq, row.attempt, code, last.ms, last.n);
    trimmed[mode] = last;
  }
  return trimmed;
}

/** Frames and close marker of one moment; an execution that is not there has neither. */
export function readPage(
  tx: Session,
  row: ExecutionRow | undefined,
  attempt: number,
  range: FrameRange,
  countLimit: number,
): StreamPage {
  if (row === undefined)
    return toStreamPage(undefined, range, [], countLimit, tx.now());
  const now = effectiveNow(row, tx.now());
  const stream = readStreamRow(tx, row.seq, attempt);
  const { lastId, retained } = toStreamMeta(stream);
  // What the stream has never had, or has lost, need not be looked for.
  const modes =
    compareFrameIds(range.after, lastId) < 0
      ? modesVisibleTo(range.visibility).filter((mode) => retained[mode])
      : [];
  const frames =
    modes.length === 0
      ? []
      : readFrames(tx, row, attempt, range, modes, countLimit, now);
  const archived =
    attempt === row.attempt && row.attempt_id !== null
      ? undefined
      : tx.get<{ record: string }>(READ_ARCHIVED, row.seq, attempt)?.record;
  const found = { row, attempt, stream, archived };
  return toStreamPage(found, range, frames, countLimit, now);
}

/** Up to one frame or one chunk more than a page holds. */
function readFrames(
  tx: Session,
  row: ExecutionRow,
  attempt: number,
  { after, to }: FrameRange,
  modes: readonly FrameMode[],
  countLimit: number,
  nowMs: number,
): StoredFrame[] {
  const sql = PAGES[modes.join("+")]!;
  const frames: StoredFrame[] = [];
  let bytes = 0;
  let last = after;
  while (frames.length <= countLimit && bytes <= STREAM_PAGE_BYTES_MAX) {
    const wanted = Math.min(CHUNK_ROWS, countLimit + 1 - frames.length);
    const bounds = [row.seq, attempt, last.ms, last.n, to.ms, to.n, nowMs];
    const rows = tx.all<FrameRow>(sql, ...modes.flatMap(() => bounds), wanted);
    for (const one of rows) {
      frames.push(toStoredFrame(one));
      bytes += one.payload.length;
    }
    if (rows.length < wanted) return frames;
    last = frames.at(-1)!.id;
  }
  return frames;
}

function readStreamRow(
  tx: Session,
  seq: number,
  attempt: number,
): StreamRow | undefined {
  return tx.get<StreamRow>(READ_STREAM, seq, attempt);
}

export function readSummaryRow(
  tx: Session,
  seq: number,
  attempt: number,
): SummaryRow | undefined {
  return tx.get<SummaryRow>(READ_SUMMARY, seq, attempt);
}

export const READ_STREAM = `
  SELECT ${STREAM_COLUMNS.join(", ")}
  FROM streams
  WHERE seq = ? AND attempt = ?`;

const COUNT_CHANGE = `
  UPDATE settings
  SET value = value + 1
  WHERE name = 'stream_changes'
  RETURNING value`;

const SAVE_STREAM = `
  INSERT INTO streams (seq, attempt, changed, ${STREAM_COLUMNS.join(", ")})
  VALUES (?, ?, ?${", ?".repeat(STREAM_COLUMNS.length)})
  ON CONFLICT (seq, attempt) DO UPDATE
  SET changed = excluded.changed, ${STREAM_COLUMNS.map((column) => `${column} = excluded.${column}`).join(", ")}`;

export const READ_SUMMARY = `
  SELECT document, version, first_applied_at, last_updated_at
  FROM summaries
  WHERE seq = ? AND attempt = ?`;

const SAVE_SUMMARY = `
  INSERT INTO summaries (seq, attempt, document, version, first_applied_at, last_updated_at)
  VALUES (?, ?, ?, ?, ?, ?)
  ON CONFLICT (seq, attempt) DO UPDATE
  SET document = excluded.document, version = excluded.version, last_updated_at = excluded.last_updated_at`;

const INSERT_FRAME = `
  INSERT INTO frames (seq, attempt, ${FRAME_COLUMNS.join(", ")})
  VALUES (?, ?${", ?".repeat(FRAME_COLUMNS.length)})`;

export const LAST_OF_OLDEST = `
  SELECT ms, n
  FROM frames
  WHERE seq = ? AND attempt = ? AND mode = ?
  ORDER BY ms, n
  LIMIT 1 OFFSET ?`;

export const DELETE_THROUGH = `
  DELETE FROM frames
  WHERE seq = ? AND attempt = ? AND mode = ? AND (ms, n) <= (?, ?)`;

const READ_ARCHIVED = `
  SELECT record
  FROM attempts
  WHERE seq = ? AND attempt = ?`;

/** One range per mode, merged in the order of their ids; each takes the same bounds. */
const page = (modes: readonly FrameMode[]) => `
  ${modes
    .map(
      (mode) => `SELECT ${FRAME_COLUMNS.join(", ")}
  FROM frames
  WHERE mode = ${FRAME_MODES.indexOf(mode)} AND seq = ? AND attempt = ? AND (ms, n) > (?, ?) AND (ms, n) <= (?, ?)
    AND (ttl_ms IS NULL OR ms + ttl_ms >= ?)`,
    )
    .join("\n  UNION ALL\n  ")}
  ORDER BY ms, n
  LIMIT ?`;

/** By the modes that are wanted. */
export const PAGES: Readonly<Record<string, string>> = Object.fromEntries(
  [
    ["durable"],
    ["summary"],
    ["best_effort"],
    ["durable", "summary"],
    ["durable", "best_effort"],
    ["summary", "best_effort"],
    ["durable", "summary", "best_effort"],
  ].map((modes) => [modes.join("+"), page(modes as FrameMode[])]),
);
