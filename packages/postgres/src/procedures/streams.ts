/** The stream of one attempt: writing what an append has decided, and reading pages. */
import {
  checkCallerSeq,
  DURABLE_FRAMES_KEPT_DEFAULT,
  FRAME_MODES,
  frameModeOf,
  isEngineError,
  isRefusal,
  modesVisibleTo,
  parseExecutionId,
  patchDocument,
  planAppend,
  repeatedOutcomes,
  STREAM_PAGE_BYTES_MAX,
  type AppendedFrame,
  type AppendPlan,
  type ExecutionId,
  type FrameId,
  type FrameMode,
  type FrameRange,
  type HandlePayload,
  type ParsedFrame,
  type PerMode,
  type Refusal,
  type StreamPage,
} from "@flowfabric/core";
import {
  FRAME_COLUMNS,
  STREAM_COLUMNS,
  toFrameRow,
  toStoredFrame,
  toStreamMeta,
  toStreamPage,
  toStreamRow,
  type ExecutionRow,
  type FrameRow,
  type StreamFound,
  type StreamRow,
  type SummaryRow,
} from "@flowfabric/core/sql";

import type { Database } from "../db.js";
import { few } from "../dialect.js";
import type { Session } from "../session.js";
import type { Store } from "../store.js";
import type { HeldStream } from "./held-streams.js";
import { readPolicy } from "./policy.js";

export interface Appended {
  readonly outcomes: AppendedFrame[];
  /** Nothing where the call was known already. */
  readonly after: HeldStream | undefined;
}

/** Appends to the stream of the attempt that runs; the fence was checked. */
export async function appendFrames(
  tx: Session,
  row: ExecutionRow,
  frames: readonly ParsedFrame[],
  nowMs: number,
): Promise<Appended | Refusal> {
  const stored = await tx.get<StreamRow>(READ_STREAM, row.seq, row.attempt);
  const meta = toStreamMeta(stored);
  const verdict = checkCallerSeq(meta.caller?.seq, frames);
  if (isRefusal(verdict)) return verdict;
  if (verdict === "repeat")
    return {
      outcomes: repeatedOutcomes(meta.caller!, frames),
      after: undefined,
    };

  const durableKept =
    stored?.durable_kept ??
    (await readPolicy(tx, row)).streamPolicy?.retentionMaxlen ??
    DURABLE_FRAMES_KEPT_DEFAULT;
  const summary = await patchSummary(tx, row, frames, nowMs);
  if (isRefusal(summary)) return summary;

  const plan = planAppend(meta, frames, {
    nowMs,
    durableKept,
    summaryVersion: summary?.before ?? 0,
  });
  insertFrames(tx, row, plan);
  const trimmed = await trim(tx, row, plan);
  const trimmedThrough = { ...meta.trimmedThrough, ...trimmed };
  const after = toStreamRow({ ...plan.meta, trimmedThrough }, durableKept);
  tx.run(
    SAVE_STREAM,
    row.seq,
    row.attempt,
    ...STREAM_COLUMNS.map((column) => after[column]),
  );
  return {
    outcomes: plan.outcomes,
    after: { durableKept, summary: summary?.after },
  };
}

/** @returns nothing where no summary is concerned */
async function patchSummary(
  tx: Session,
  row: ExecutionRow,
  frames: readonly ParsedFrame[],
  nowMs: number,
): Promise<
  | { before: number; after: NonNullable<HeldStream["summary"]> }
  | undefined
  | Refusal
> {
  const patches = frames
    .filter((frame) => frameModeOf(frame) === "summary")
    .map(({ bytes }) => bytes);
  if (patches.length === 0) return undefined;
  const stored = await tx.get<SummaryRow>(READ_SUMMARY, row.seq, row.attempt);
  let document: string;
  try {
    document = patchDocument(stored?.document, patches);
  } catch (error) {
    if (isEngineError(error)) return { refused: error };
    throw error;
  }
  const before = stored?.version ?? 0;
  const version = before + patches.length;
  tx.run(SAVE_SUMMARY, row.seq, row.attempt, document, version, nowMs, nowMs);
  return { before, after: { version, document } };
}

function insertFrames(
  tx: Session,
  row: ExecutionRow,
  { frames }: AppendPlan,
): void {
  const rows = frames.map(toFrameRow);
  tx.run(
    INSERT_FRAMES,
    row.seq,
    row.attempt,
    JSON.stringify(rows.map(({ payload: _bytes, ...one }) => one)),
    rows.map(({ payload }) => Buffer.from(payload)),
  );
}

/** @returns the last frame that each mode has lost */
async function trim(
  tx: Session,
  row: ExecutionRow,
  { excess }: AppendPlan,
): Promise<Partial<PerMode<FrameId>>> {
  const trimmed: { [M in FrameMode]?: FrameId } = {};
  for (const [code, mode] of FRAME_MODES.entries()) {
    if (excess[mode] === 0) continue;
    const last = (await tx.get<FrameId>(
      LAST_OF_OLDEST,
      row.seq,
      row.attempt,
      code,
      excess[mode] - 1,
    ))!;
    tx.run(DELETE_THROUGH, row.seq, row.attempt, code, last.ms, last.n);
    trimmed[mode] = last;
  }
  return trimmed;
}

/** What somebody wants to see of a stream. */
export interface PageWanted {
  readonly executionId: ExecutionId;
  readonly namespace?: string | undefined;
  readonly attempt: number;
  readonly range: FrameRange;
  readonly countLimit: number;
}

/** Whatever changes what a tail would be answered changes one of these. */
export interface Standing {
  readonly events: number;
  readonly last_ms: number | null;
  readonly last_n: number | null;
}

export function standingOf({ events, last_ms, last_n }: Standing): string {
  return [events, last_ms, last_n].join();
}

export interface PageRead extends StreamPage {
  readonly standing: string;
  /** Of the lease, where that closes the stream and nobody has written it down. */
  readonly lapsedAtMs: number | undefined;
}

/** Frames and close marker of one moment, for each that is wanted; by one statement. */
export async function readPages(
  db: Database,
  wanted: readonly PageWanted[],
): Promise<PageRead[]> {
  const rows = await db.query<PageRow>(
    READ_PAGES,
    JSON.stringify(
      wanted.map(
        ({ executionId, namespace, attempt, range, countLimit }, place) => {
          const { partition, uuid } = parseExecutionId(executionId)!;
          return {
            place,
            id: uuid,
            partition,
            namespace: namespace ?? null,
            attempt,
            after_ms: range.after.ms,
            after_n: range.after.n,
            to_ms: range.to.ms,
            to_n: range.to.n,
            modes: modesVisibleTo(range.visibility).map((mode) =>
              FRAME_MODES.indexOf(mode),
            ),
            most: countLimit + 1,
          };
        },
      ),
    ),
  );
  const heads = new Map<number, Head>();
  const frames = new Map<number, FrameRow[]>();
  for (const { place, head, ...frame } of rows) {
    if (head !== null) {
      heads.set(place, JSON.parse(head) as Head);
      frames.set(place, []);
    } else frames.get(place)!.push(frame);
  }
  return wanted.map(({ attempt, range, countLimit }, place) => {
    const head = heads.get(place);
    const page = toStreamPage(
      head && foundBy(head, attempt),
      range,
      (frames.get(place) ?? []).map(toStoredFrame),
      countLimit,
      head?.at ?? 0,
    );
    const { lapsesInMs } = page;
    const hasLapsed = lapsesInMs !== undefined && lapsesInMs <= 0;
    return {
      ...page,
      standing: head === undefined ? "" : standingOf(head),
      lapsedAtMs: hasLapsed ? head!.lease_expires_at! : undefined,
    };
  });
}

function foundBy(head: Head, attempt: number): StreamFound {
  return {
    row: head,
    attempt,
    stream: head.last_ms === null ? undefined : head,
    archived: head.record,
  };
}

interface PageRow extends FrameRow {
  readonly place: number;
  /** In the first row of each place; that one has no frame. */
  readonly head: string | null;
}

type Head = StreamFound["row"] & {
  readonly at: number;
  readonly events: number;
  readonly record: string | null;
} & (StreamRow | { readonly last_ms: null; readonly last_n: null });

export function readSummaryOf(
  store: Store,
  {
    executionId,
    namespace,
    attemptIndex,
  }: {
    readonly executionId: ExecutionId;
    readonly namespace?: string | undefined;
    readonly attemptIndex: HandlePayload["attemptIndex"];
  },
): Promise<SummaryRow[]> {
  const { partition, uuid } = parseExecutionId(executionId)!;
  return store.db.query<SummaryRow>(
    FIND_SUMMARY,
    uuid,
    partition,
    namespace ?? null,
    attemptIndex,
  );
}

const READ_STREAM = `
  SELECT ${STREAM_COLUMNS.join(", ")}
  FROM streams
  WHERE seq = ? AND attempt = ?`;

const SAVE_STREAM = `
  INSERT INTO streams (seq, attempt, ${STREAM_COLUMNS.join(", ")})
  VALUES (?, ?${", ?".repeat(STREAM_COLUMNS.length)})
  ON CONFLICT (seq, attempt) DO UPDATE
  SET ${STREAM_COLUMNS.map((column) => `${column} = excluded.${column}`).join(", ")}`;

const READ_SUMMARY = `
  SELECT document, version, first_applied_at, last_updated_at
  FROM summaries
  WHERE seq = ? AND attempt = ?`;

const SAVE_SUMMARY = `
  INSERT INTO summaries (seq, attempt, document, version, first_applied_at, last_updated_at)
  VALUES (?, ?, ?, ?, ?, ?)
  ON CONFLICT (seq, attempt) DO UPDATE
  SET document = excluded.document, version = excluded.version, last_updated_at = excluded.last_updated_at`;

const INSERT_FRAMES = `
  INSERT INTO frames (seq, attempt, ${FRAME_COLUMNS.join(", ")})
  SELECT ?::BIGINT, ?::INTEGER, ${FRAME_COLUMNS.join(", ")}
  FROM ROWS FROM (
    json_to_recordset(?::JSON) AS (
      mode SMALLINT, ms BIGINT, n BIGINT, frame_type TEXT, correlation_id TEXT, caller_seq BIGINT, summary_version BIGINT,
      ttl_ms BIGINT
    ),
    unnest(?::BYTEA[])
  ) AS r (${FRAME_COLUMNS.join(", ")})`;

const LAST_OF_OLDEST = `
  SELECT ms, n
  FROM frames
  WHERE seq = ? AND attempt = ? AND mode = ?
  ORDER BY ms, n
  LIMIT 1 OFFSET ?`;

const DELETE_THROUGH = `
  DELETE FROM frames
  WHERE seq = ? AND attempt = ? AND mode = ? AND (ms, n) <= (?, ?)`;

const inNamespace = (wanted: string) => `(${wanted} IS NULL OR EXISTS (
      SELECT 1
      FROM routes
      WHERE routes.id = x.route AND routes.namespace = ${wanted}
    ))`;

const FIND_SUMMARY = `
  SELECT y.document, y.version, y.first_applied_at, y.last_updated_at
  FROM (SELECT ?::UUID AS id, ?::INTEGER AS partition, ?::TEXT AS namespace, ?::INTEGER AS attempt) AS wanted
  JOIN executions AS x ON x.id = wanted.id AND x.partition = wanted.partition
  JOIN summaries AS y ON y.seq = x.seq AND y.attempt = wanted.attempt
  WHERE ${inNamespace("wanted.namespace")}`;

/**
 * A row with all but the frames, and one for each frame. The modes of a stream are ranges of their own, each read from
 * behind what it has lost: the index entries of what was trimmed may still be there, and nobody walks past them. A page
 * ends with the frame that is too many bytes.
 */
const READ_PAGES = `
  WITH wanted AS MATERIALIZED (
    SELECT *
    FROM json_to_recordset(?::JSON) AS r (
      place INTEGER, id UUID, partition INTEGER, namespace TEXT, attempt INTEGER, after_ms BIGINT, after_n BIGINT,
      to_ms BIGINT, to_n BIGINT, modes SMALLINT[], most INTEGER
    )
    WHERE ${few("place")}
  ), clock AS MATERIALIZED (
    SELECT now_ms() AS now
  ), found AS MATERIALIZED (
    SELECT wanted.place, wanted.attempt AS wanted_attempt, after_ms, after_n, to_ms, to_n, modes, most,
      greatest(clock.now, x.mutated_at) AS at, x.seq, x.home, x.attempt, x.attempt_id, x.events, x.lease_expires_at,
      x.lost_at, x.completed_at, x.mutated_at, x.details, earlier.record, ${STREAM_COLUMNS.map((column) => `s.${column}`).join(", ")}
    FROM wanted
    JOIN executions AS x ON x.id = wanted.id AND x.partition = wanted.partition
    LEFT JOIN streams AS s ON s.seq = x.seq AND s.attempt = wanted.attempt
    LEFT JOIN attempts AS earlier ON earlier.seq = x.seq AND earlier.attempt = wanted.attempt, clock
    WHERE ${inNamespace("wanted.namespace")}
  ), ranges AS MATERIALIZED (
    SELECT place, seq, wanted_attempt, at, most, one.mode, to_ms, to_n,
      CASE WHEN (after_ms, after_n) < (trimmed_ms, trimmed_n) THEN trimmed_ms ELSE after_ms END AS from_ms,
      CASE WHEN (after_ms, after_n) < (trimmed_ms, trimmed_n) THEN trimmed_n ELSE after_n END AS from_n
    FROM found, LATERAL (VALUES ${FRAME_MODES.map((mode, code) => `(${code}, ${mode}, ${mode}_trimmed_ms, ${mode}_trimmed_n)`).join(", ")})
      AS one (mode, retained, trimmed_ms, trimmed_n)
    WHERE one.mode = ANY (modes) AND one.retained > 0 AND (after_ms, after_n) < (last_ms, last_n)
  )
  SELECT place, row_to_json(found)::TEXT AS head, NULL::SMALLINT AS mode, NULL::BIGINT AS ms, NULL::BIGINT AS n,
    NULL AS frame_type, NULL AS correlation_id, NULL::BIGINT AS caller_seq, NULL::BIGINT AS summary_version,
    NULL::BIGINT AS ttl_ms, NULL::BYTEA AS payload
  FROM found
  UNION ALL
  SELECT found.place, NULL, ${FRAME_COLUMNS.map((column) => `page.${column}`).join(", ")}
  FROM found, LATERAL (
    SELECT *, sum(octet_length(merged.payload)) OVER (ORDER BY merged.ms, merged.n) AS bytes
    FROM (
      SELECT of_mode.*
      FROM ranges, LATERAL (
        SELECT ${FRAME_COLUMNS.map((column) => `f.${column}`).join(", ")}
        FROM frames AS f
        WHERE f.seq = ranges.seq AND f.attempt = ranges.wanted_attempt AND f.mode = ranges.mode
          AND (f.ms, f.n) > (ranges.from_ms, ranges.from_n) AND (f.ms, f.n) <= (ranges.to_ms, ranges.to_n)
          AND (f.ttl_ms IS NULL OR f.ms + f.ttl_ms >= ranges.at)
        ORDER BY f.ms, f.n
        LIMIT ranges.most
      ) AS of_mode
      WHERE ranges.place = found.place
      ORDER BY of_mode.ms, of_mode.n
      LIMIT found.most
    ) AS merged
  ) AS page
  WHERE page.bytes - octet_length(page.payload) <= ${STREAM_PAGE_BYTES_MAX}
  ORDER BY place, head NULLS LAST, ms, n`;
