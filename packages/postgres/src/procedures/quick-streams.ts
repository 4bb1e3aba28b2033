/**
 * Appends of any number of holders by one statement, each with any number of frames. It is {@link planAppend} in SQL:
 * the store's clock decides about ids and about the rate of best-effort frames, and only the statement has it. What a
 * patch makes of the summary is worked out before, from what this process remembers; the statement writes only where the
 * summary is still that. What it passes over goes the slow way, which names the refusal.
 */
import {
  DURABLE_FRAMES_KEPT_DEFAULT,
  formatFrameId,
  FRAME_MODES,
  frameModeOf,
  isEngineError,
  modesVisibleTo,
  patchDocument,
  SUMMARY_FRAMES_KEPT,
  type AppendedFrame,
  type FrameMode,
  type HandlePayload,
  type ParsedFrame,
  type TailVisibility,
} from "@flowfabric/core";
import { FRAME_COLUMNS, STREAM_COLUMNS } from "@flowfabric/core/sql";

import { few } from "../dialect.js";
import { notified } from "../notifier.js";
import type { Store } from "../store.js";
import { streamName } from "../stream-names.js";
import type { HeldSummary } from "./held-streams.js";
import { toPolicy } from "./policy.js";
import { FENCED, fenceRecord, type FenceRecord } from "./quick-outcomes.js";

export interface Append {
  readonly own: HandlePayload;
  readonly frames: readonly ParsedFrame[];
}

/** Nothing in the places of those that need a closer look. At most one for each execution. */
export async function appendQuickly(
  store: Store,
  appends: readonly Append[],
): Promise<(AppendedFrame[] | undefined)[]> {
  const plans = appends.map((append) => planQuickly(store, append));
  const plain = plans.filter((plan) => plan !== undefined);
  if (plain.length === 0) return plans.map(() => undefined);
  const frames = plain.flatMap(({ frames }, place) =>
    frames.map((frame) => ({ ...frame, place })),
  );
  const [answer] = await store.db.query<{ appended: string | null }>(
    APPEND,
    JSON.stringify(plain.map(({ record }, place) => ({ ...record, place }))),
    JSON.stringify(frames.map(({ payload: _bytes, ...frame }) => frame)),
    frames.map(({ payload }) => Buffer.from(payload)),
    ...store.db.notifier.values(
      new Map(
        plain.flatMap(({ append }) =>
          namesToTell(append).map((name): [string, number] => [name, 0]),
        ),
      ),
    ),
  );
  const written = new Map(
    (JSON.parse(answer!.appended ?? "[]") as Written[]).map((one) => [
      one[0],
      one,
    ]),
  );
  let place = 0;
  return plans.map((plan) => {
    if (plan === undefined) return undefined;
    const one = written.get(place++);
    if (one === undefined) {
      store.heldStreams.forget(plan.append.own);
      return undefined;
    }
    const [, , , , durableKept] = one;
    const { summary } = plan;
    store.heldStreams.remember(plan.append.own, { durableKept, summary });
    ringAppendedHere(store, plan.append);
    return outcomesOf(plan, one);
  });
}

/** The first frame's id, how many frames the stream had before, and how many durable ones it keeps. */
type Written = [
  place: number,
  ms: number,
  n: number,
  frameCount: number,
  durableKept: number,
];

/** Wakes tails of this process that can see what was appended. */
export function ringAppendedHere(store: Store, append: Append): void {
  const { executionId, attemptIndex } = append.own;
  store.tails.ringAppendedHere(executionId, attemptIndex, (visibility) =>
    isSeen(append, visibility),
  );
}

/** Under which names others wait for what is appended. */
export function namesToTell(append: Append): string[] {
  return (["all", "excludeBestEffort"] as const)
    .filter((visibility) => isSeen(append, visibility))
    .map((visibility) => streamName(append.own.executionId, visibility));
}

function isSeen({ frames }: Append, visibility: TailVisibility): boolean {
  const seen = modesVisibleTo(visibility);
  return frames.some((frame) => seen.includes(frameModeOf(frame)));
}

interface QuickPlan {
  readonly append: Append;
  readonly record: AppendRecord;
  readonly frames: readonly GivenFrame[];
  /** Once it is written. */
  readonly summary: HeldSummary | undefined;
}

interface AppendRecord extends FenceRecord {
  /** For a new stream. */
  readonly kept: number | null;
  readonly first_seq: number | null;
  readonly last_seq: number | null;
  readonly frames: number;
  readonly bytes: number;
  readonly durable_given: number;
  readonly summary_given: number;
  readonly best_effort_given: number;
  /** What the summary must be for this to be true, and what it becomes; nothing where no patch is given. */
  readonly version: number | null;
  readonly document: string | null;
  /** Of the best-effort frames, in their order. */
  readonly ttls: readonly number[];
  readonly floors: readonly number[];
  readonly ceilings: readonly number[];
  readonly alphas: readonly number[];
}

interface GivenFrame {
  /** Its place among the call's frames, and among those of its mode, from 1. */
  readonly i: number;
  readonly nth: number;
  readonly mode: number;
  readonly frame_type: string;
  readonly correlation_id: string | null;
  readonly caller_seq: number | null;
  readonly ttl_ms: number | null;
  readonly payload: Uint8Array;
}

/** Nothing where a patch has to be refused: the slow way finds out in which order of checks. */
function planQuickly(store: Store, append: Append): QuickPlan | undefined {
  const { own, frames } = append;
  const held = store.heldStreams.find(own);
  const kept = held?.durableKept ?? keptByPolicy(store, own);
  const modes = frames.map(frameModeOf);
  const count = (mode: FrameMode) => modes.filter((one) => one === mode).length;
  const patches = count("summary");
  const version = held?.summary?.version ?? 0;
  let document: string | null = null;
  if (patches > 0)
    try {
      document = patchDocument(
        held?.summary?.document,
        frames
          .filter((_frame, index) => modes[index] === "summary")
          .map(({ bytes }) => bytes),
      );
    } catch (error) {
      if (isEngineError(error)) return undefined;
      throw error;
    }
  const live = frames.flatMap(({ mode }) =>
    mode.kind === "bestEffortLive" ? [mode] : [],
  );
  const sofar: Record<FrameMode, number> = {
    durable: 0,
    summary: 0,
    best_effort: 0,
  };
  return {
    append,
    record: {
      ...fenceRecord(own),
      kept: kept ?? null,
      first_seq: frames[0]!.seq ?? null,
      last_seq: frames.at(-1)!.seq ?? null,
      frames: frames.length,
      bytes: frames.reduce((sum, { bytes }) => sum + bytes.length, 0),
      durable_given: count("durable"),
      summary_given: patches,
      best_effort_given: live.length,
      version: patches > 0 ? version : null,
      document,
      ttls: live.map(({ ttlMs }) => ttlMs),
      floors: live.map(({ maxlenFloor }) => maxlenFloor),
      ceilings: live.map(({ maxlenCeiling }) => maxlenCeiling),
      alphas: live.map(({ emaAlpha }) => emaAlpha),
    },
    frames: frames.map((frame, i) => ({
      i,
      nth: ++sofar[modes[i]!],
      mode: FRAME_MODES.indexOf(modes[i]!),
      frame_type: frame.frameType,
      correlation_id: frame.correlationId ?? null,
      caller_seq: frame.seq ?? null,
      ttl_ms: frame.mode.kind === "bestEffortLive" ? frame.mode.ttlMs : null,
      payload: frame.bytes,
    })),
    summary:
      document === null
        ? held?.summary
        : { version: version + patches, document },
  };
}

/** Nothing where this process did not take the lease: the stream's own row may tell. */
function keptByPolicy(store: Store, own: HandlePayload): number | undefined {
  const lease = store.leases.find(own);
  if (lease === undefined) return undefined;
  return (
    toPolicy(lease.policy).streamPolicy?.retentionMaxlen ??
    DURABLE_FRAMES_KEPT_DEFAULT
  );
}

function outcomesOf(
  { record, frames }: QuickPlan,
  [, ms, firstN, countBefore]: Written,
): AppendedFrame[] {
  return frames.map(({ i, nth, mode }) => ({
    streamId: formatFrameId({ ms, n: firstN + i }),
    frameCount: countBefore + i + 1,
    ...(FRAME_MODES[mode] === "summary"
      ? { summaryVersion: record.version! + nth }
      : {}),
  }));
}

const MODE = {
  durable: FRAME_MODES.indexOf("durable"),
  summary: FRAME_MODES.indexOf("summary"),
  best_effort: FRAME_MODES.indexOf("best_effort"),
};

/** Of the modes that lose frames: how many the stream had, got and keeps, and what it had lost before. */
const LOSSES = FRAME_MODES.map(
  (mode) =>
    `(${MODE[mode]}, ${mode}, ${mode}_given, ${mode}_after, ${mode}_trimmed_ms, ${mode}_trimmed_n)`,
).join(", ");

const TRIMMED_AFTER = FRAME_MODES.map(
  (mode) => `
      coalesce(${mode}_loss.ms, p.${mode}_trimmed_ms) AS ${mode}_lost_ms, coalesce(${mode}_loss.n, p.${mode}_trimmed_n) AS ${mode}_lost_n`,
).join(",");
const LOSS_OF_EACH = FRAME_MODES.map(
  (mode) => `
    LEFT JOIN lost AS ${mode}_loss ON ${mode}_loss.place = p.place AND ${mode}_loss.mode = ${MODE[mode]}`,
).join("");

/** What each column of a stream is after the append, said of \`a\`. */
const AFTER: { readonly [C in (typeof STREAM_COLUMNS)[number]]: string } = {
  last_ms: "a.ms",
  last_n: "a.n + a.frames - 1",
  frame_count: "a.frame_count + a.frames",
  total_bytes: "a.total_bytes + a.bytes",
  durable_kept: "a.durable_kept",
  durable: "a.durable_after",
  summary: "a.summary_after",
  best_effort: "a.best_effort_after",
  durable_trimmed_ms: "a.durable_lost_ms",
  durable_trimmed_n: "a.durable_lost_n",
  summary_trimmed_ms: "a.summary_lost_ms",
  summary_trimmed_n: "a.summary_lost_n",
  best_effort_trimmed_ms: "a.best_effort_lost_ms",
  best_effort_trimmed_n: "a.best_effort_lost_n",
  caller_seq: "coalesce(a.last_seq, a.caller_seq)",
  caller_ms: "CASE WHEN a.last_seq IS NULL THEN a.caller_ms ELSE a.ms END",
  caller_n:
    "CASE WHEN a.last_seq IS NULL THEN a.caller_n ELSE a.n + a.frames - 1 END",
  caller_count:
    "CASE WHEN a.last_seq IS NULL THEN a.caller_count ELSE a.frame_count + a.frames END",
  caller_version:
    "CASE WHEN a.last_seq IS NULL THEN a.caller_version ELSE coalesce(a.version, 0) + a.summary_given END",
  rate_hz: "a.rate_after",
  best_effort_at: "a.sized_at",
};

/** Before the first append; other columns are unset. */
const BEFORE: Partial<typeof AFTER> = {
  last_ms: "0",
  last_n: "0",
  frame_count: "0",
  total_bytes: "0",
  durable_kept: "given.kept",
  durable: "0",
  summary: "0",
  best_effort: "0",
  durable_trimmed_ms: "0",
  durable_trimmed_n: "0",
  summary_trimmed_ms: "0",
  summary_trimmed_n: "0",
  best_effort_trimmed_ms: "0",
  best_effort_trimmed_n: "0",
};

/**
 * The execution's row is locked and not written: whoever ends the attempt waits, or is waited for. The stream's row is
 * locked to be read as it is now; the frames are seen as the statement's snapshot has them, so it goes on only where that
 * has the same frames.
 */
const APPEND = `
  WITH RECURSIVE given AS MATERIALIZED (
    SELECT *
    FROM json_to_recordset(?::JSON) AS r (
      id UUID, partition INTEGER, attempt INTEGER, epoch BIGINT, lease UUID, attempt_id UUID, place INTEGER, kept INTEGER,
      first_seq BIGINT, last_seq BIGINT, frames INTEGER, bytes BIGINT, durable_given INTEGER, summary_given INTEGER,
      best_effort_given INTEGER, version BIGINT, document TEXT, ttls FLOAT8[], floors FLOAT8[], ceilings FLOAT8[],
      alphas FLOAT8[]
    )
    WHERE ${few("place")}
  ), given_frames AS MATERIALIZED (
    SELECT *
    FROM ROWS FROM (
      json_to_recordset(?::JSON) AS (
        place INTEGER, i INTEGER, nth INTEGER, mode SMALLINT, frame_type TEXT, correlation_id TEXT, caller_seq BIGINT,
        ttl_ms BIGINT
      ),
      unnest(?::BYTEA[])
    ) AS r (place, i, nth, mode, frame_type, correlation_id, caller_seq, ttl_ms, payload)
  ), locked AS MATERIALIZED (
    SELECT e.seq, e.home, e.attempt, e.epoch, e.lease, e.attempt_id, e.lease_expires_at, e.mutated_at,
      given.attempt AS own_attempt, given.epoch AS own_epoch, given.lease AS own_lease, given.attempt_id AS own_attempt_id,
      place
    FROM given
    JOIN executions AS e ON e.id = given.id AND e.partition = given.partition
    FOR NO KEY UPDATE OF e SKIP LOCKED
  ), clock AS MATERIALIZED (
    SELECT now_ms() AS now
    FROM (SELECT count(*) FROM locked) AS all_of_them
  ), held AS MATERIALIZED (
    SELECT seq, attempt, place, greatest(clock.now, mutated_at) AS at
    FROM locked, clock
    WHERE ${FENCED}
  ), newest AS MATERIALIZED (
    SELECT held.place, s.*
    FROM held
    JOIN streams AS s ON s.seq = held.seq AND s.attempt = held.attempt
    FOR NO KEY UPDATE OF s
  ), stood AS MATERIALIZED (
    SELECT held.seq, held.attempt, held.at, held.place, newest.place IS NULL AS is_new, given.first_seq, given.last_seq,
      given.frames, given.bytes, given.durable_given, given.summary_given, given.best_effort_given, given.version,
      given.document, given.ttls, given.floors, given.ceilings, given.alphas,
      ${STREAM_COLUMNS.map((column) => (BEFORE[column] === undefined ? `newest.${column}` : `coalesce(newest.${column}, ${BEFORE[column]}) AS ${column}`)).join(", ")}
    FROM held
    JOIN given ON given.place = held.place
    LEFT JOIN newest ON newest.place = held.place
    LEFT JOIN streams AS seen ON seen.seq = held.seq AND seen.attempt = held.attempt
    LEFT JOIN summaries ON summaries.seq = held.seq AND summaries.attempt = held.attempt
    WHERE seen.frame_count IS NOT DISTINCT FROM newest.frame_count
      AND coalesce(newest.durable_kept, given.kept) IS NOT NULL
      AND coalesce(given.first_seq > newest.caller_seq, TRUE)
      AND coalesce(given.version = coalesce(summaries.version, 0), TRUE)
  ), sized AS (
    SELECT place, 0 AS sized_frames, rate_hz AS rate_after, best_effort_at AS sized_at, best_effort AS best_effort_after
    FROM stood
    UNION ALL
    SELECT stood.place, sized_frames + 1, next.rate, at,
      least(
        best_effort_after + 1,
        least(ceilings[sized_frames + 1], greatest(floors[sized_frames + 1], ceil(next.rate * next.span)))
      )::INTEGER
    FROM sized
    JOIN stood ON stood.place = sized.place, LATERAL (
      SELECT span, CASE WHEN rate_after IS NULL THEN floors[sized_frames + 1] / span
        ELSE alphas[sized_frames + 1] * (1000::FLOAT8 / greatest(1, at - sized_at)::FLOAT8)
          + (1::FLOAT8 - alphas[sized_frames + 1]) * rate_after END AS rate
      FROM (SELECT (ttls[sized_frames + 1] / 1000::FLOAT8) * 2::FLOAT8 AS span) AS twice_its_time
    ) AS next
    WHERE sized_frames < best_effort_given
  ), planned AS MATERIALIZED (
    SELECT stood.*, rate_after, sized_at, best_effort_after,
      least(durable + durable_given, durable_kept) AS durable_after,
      least(summary + summary_given, ${SUMMARY_FRAMES_KEPT}) AS summary_after,
      greatest(at, last_ms) AS ms, CASE WHEN at > last_ms THEN 0 ELSE last_n + 1 END AS n
    FROM stood
    JOIN sized ON sized.place = stood.place AND sized_frames = best_effort_given
  ), losing AS MATERIALIZED (
    SELECT place, seq, attempt, ms, n, loss.mode, loss.had, loss.got, loss.keeps, loss.trimmed_ms, loss.trimmed_n
    FROM planned, LATERAL (VALUES ${LOSSES}) AS loss (mode, had, got, keeps, trimmed_ms, trimmed_n)
    WHERE had + got > keeps
  ), last_of_oldest AS MATERIALIZED (
    SELECT losing.*, oldest.ms AS last_ms, oldest.n AS last_n
    FROM losing, LATERAL (
      SELECT f.ms, f.n
      FROM frames AS f
      WHERE f.seq = losing.seq AND f.attempt = losing.attempt AND f.mode = losing.mode
        AND (f.ms, f.n) > (losing.trimmed_ms, losing.trimmed_n)
      ORDER BY f.ms, f.n
      LIMIT 1 OFFSET greatest(0, least(losing.had, losing.had + losing.got - losing.keeps) - 1)
    ) AS oldest
    WHERE losing.had > 0
  ), trimmed AS (
    DELETE FROM frames AS f
    USING last_of_oldest AS o
    WHERE f.seq = o.seq AND f.attempt = o.attempt AND f.mode = o.mode AND (f.ms, f.n) > (o.trimmed_ms, o.trimmed_n)
      AND (f.ms, f.n) <= (o.last_ms, o.last_n)
  ), lost AS MATERIALIZED (
    SELECT losing.place, losing.mode, CASE WHEN own.i IS NULL THEN o.last_ms ELSE losing.ms END AS ms,
      CASE WHEN own.i IS NULL THEN o.last_n ELSE losing.n + own.i END AS n
    FROM losing
    LEFT JOIN last_of_oldest AS o ON o.place = losing.place AND o.mode = losing.mode
    LEFT JOIN given_frames AS own ON own.place = losing.place AND own.mode = losing.mode
      AND own.nth = losing.got - losing.keeps
  ), written AS (
    INSERT INTO frames (seq, attempt, ${FRAME_COLUMNS.join(", ")})
    SELECT p.seq, p.attempt, f.mode, p.ms, p.n + f.i, f.frame_type, f.correlation_id, f.caller_seq,
      CASE f.mode WHEN ${MODE.summary} THEN p.version + f.nth END, f.ttl_ms, f.payload
    FROM planned AS p
    JOIN given_frames AS f ON f.place = p.place
    WHERE f.nth > CASE f.mode ${FRAME_MODES.map((mode) => `WHEN ${MODE[mode]} THEN p.${mode}_given - p.${mode}_after`).join(" ")} END
  ), after AS MATERIALIZED (
    SELECT p.*,${TRIMMED_AFTER}
    FROM planned AS p${LOSS_OF_EACH}
  ), changed AS (
    UPDATE streams AS s
    SET ${STREAM_COLUMNS.map((column) => `${column} = ${AFTER[column]}`).join(", ")}
    FROM after AS a
    WHERE NOT a.is_new AND s.seq = a.seq AND s.attempt = a.attempt
  ), begun AS (
    INSERT INTO streams (seq, attempt, ${STREAM_COLUMNS.join(", ")})
    SELECT a.seq, a.attempt, ${STREAM_COLUMNS.map((column) => AFTER[column]).join(", ")}
    FROM after AS a
    WHERE a.is_new
  ), patched AS (
    INSERT INTO summaries (seq, attempt, document, version, first_applied_at, last_updated_at)
    SELECT seq, attempt, document, version + summary_given, at, at
    FROM planned
    WHERE version IS NOT NULL
    ON CONFLICT (seq, attempt) DO UPDATE
    SET document = excluded.document, version = excluded.version, last_updated_at = excluded.last_updated_at
  ), notified AS (${notified("EXISTS (SELECT 1 FROM planned)")}
  )
  SELECT (SELECT json_agg(json_build_array(place, ms, n, frame_count, durable_kept))::TEXT FROM planned) AS appended,
    (SELECT count(*) FROM notified) AS notified`;
