/** One signal to one waitpoint, once its sender was found entitled: repeats, and what it does to the condition. */
import {
  advance,
  effectiveResumeDelayMs,
  isRefusal,
  matchLeaves,
  type Advance,
  type BufferedEvaluation,
  type DeliverSignalResult,
  type LeafProgress,
  type Refusal,
  type SignalId,
} from "@flowfabric/core";
import {
  bytesToUuid,
  isMatch,
  leavesText,
  readCondition,
  readProgress,
  readResumePolicy,
  signalEventData,
  type BufferedSignalRow,
  waitpointStateCode,
  type ExecutionRow,
  type SignalRow,
  type WaitpointRow,
  type Signal,
} from "@flowfabric/core/sql";

import { few } from "../dialect.js";
import type { Session, SqlValue } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution } from "./executions.js";
import { markLapsedIfDue, promoteIfDue, ringAfterCommit } from "./lifecycle.js";
import { appendEvent, appendFeedEvent } from "./log.js";
import { leaveSuspension } from "./resuming.js";
import {
  earlierOf,
  judge,
  openSuspension,
  type Earlier,
  type Found,
} from "./signal-grounds.js";

/** Under the lock of the row. */
export function deliver(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  grounds: Found,
  signal: Signal,
  nowMs: number,
): DeliverSignalResult | Refusal {
  const earlier = earlierOf(grounds, nowMs);
  if (earlier !== undefined)
    return noteRepeat(
      store,
      tx,
      row,
      grounds.waitpoint,
      signal,
      earlier,
      nowMs,
    );
  const judged = judge(row, grounds, signal, nowMs);
  if (isRefusal(judged)) return judged;

  const { answer, delivery } = accept(tx, row, grounds, signal, judged, nowMs);
  ringAfterCommit(store, tx, row);
  tx.run(DELIVER, row.seq, ...delivery);
  return answer;
}

/**
 * Takes it in: changes the row, tells of it, and says what {@link DELIVERED} has to write beside them.
 */
export function accept(
  tx: Session,
  row: ExecutionRow,
  grounds: Found,
  signal: Signal,
  judged: "buffer" | "evaluate",
  nowMs: number,
): { answer: DeliverSignalResult; resumes: boolean; delivery: SqlValue[] } {
  // What only time had changed is written first, so that every store tells the same story.
  promoteIfDue(tx, row, nowMs);
  markLapsedIfDue(tx, row, nowMs);
  const result =
    judged === "buffer" ? BUFFERED : evaluate(row, grounds, signal, nowMs);
  const { signalId, sourceIdentity } = signal;
  const { effect } = result;
  row.signals = (row.signals ?? 0) + 1;
  row.mutated_at = nowMs;
  // Its event has the state that it led to.
  appendEvent(tx, row, "signal", nowMs, signal.actor, {
    transition: effect === "resume_condition_satisfied",
    reason: signal.signalName,
    data: signalEventData(signalId, grounds.waitpoint, sourceIdentity, effect),
  });
  saveExecution(tx, row);
  return {
    answer: { kind: "accepted", signalId, effect },
    resumes: effect === "resume_condition_satisfied",
    delivery: deliveryOf(row, signal, grounds.waitpoint, result, nowMs),
  };
}

interface Result extends Pick<Advance, "effect" | "counted"> {
  /** Where the condition has got ahead and is not satisfied yet. */
  readonly progress?: readonly LeafProgress[];
  /** Leaves that have counted its source now. */
  readonly sourceLeaves?: readonly number[];
}

const BUFFERED: Result = {
  effect: "buffered_for_pending_waitpoint",
  counted: [],
};

/** Told once per signal; the answer is the same each time. */
function noteRepeat(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  waitpoint: WaitpointRow,
  { sourceIdentity, actor }: Signal,
  earlier: Earlier,
  nowMs: number,
): DeliverSignalResult {
  const existingSignalId = bytesToUuid(earlier.id) as SignalId;
  if (earlier.repeats === 0) {
    appendFeedEvent(tx, row, "signal", nowMs, actor, {
      transition: false,
      data: signalEventData(
        existingSignalId,
        waitpoint,
        sourceIdentity,
        "deduped",
      ),
    });
    store.wakeups.ring(tx);
  }
  tx.run(COUNT_REPEAT, row.seq, earlier.n);
  return { kind: "duplicate", existingSignalId };
}

/** Holds the signal against the condition; where that is satisfied, the execution is runnable behind it. */
function evaluate(
  row: ExecutionRow,
  grounds: Found,
  { signalName, resumeDelayMs }: Signal,
  nowMs: number,
): Result {
  const suspension = openSuspension(row, grounds)!;
  const { waitpoint_key: waitpointKey } = grounds.waitpoint;
  const condition = readCondition(suspension);
  const match = matchLeaves(condition, { waitpointKey, signalName });
  const { effect, counted, progress } = advance(
    condition,
    readProgress(suspension),
    match,
    waitpointKey,
    grounds.leavesOfSource,
  );
  if (effect === "resume_condition_satisfied") {
    const delayMs = effectiveResumeDelayMs(
      readResumePolicy(suspension).resumeDelayMs,
      resumeDelayMs,
    );
    leaveSuspension(row, delayMs, nowMs);
    return { effect, counted };
  }
  if (counted.length === 0) return { effect, counted };
  const sourceLeaves = counted.filter((leaf) =>
    match.sourceLeaves.includes(leaf),
  );
  return { effect, counted, progress, sourceLeaves };
}

/** The values of {@link DELIVERED}. */
function deliveryOf(
  row: ExecutionRow,
  signal: Signal,
  waitpoint: WaitpointRow,
  { effect, counted, progress, sourceLeaves = [] }: Result,
  nowMs: number,
): SqlValue[] {
  const { idempotencyKey = "", dedupTtlMs } = signal;
  const isRemembered = idempotencyKey !== "" && dedupTtlMs > 0;
  return [
    row.signals!,
    signal.signalId,
    waitpoint.id,
    signal.signalName,
    signal.signalCategory,
    signal.sourceType,
    signal.sourceIdentity,
    signal.correlationId,
    signal.payloadEncoding,
    signal.targetScope,
    signal.createdAtMs ?? nowMs,
    nowMs,
    effect,
    leavesText(counted),
    signal.payload ?? null,
    isRemembered ? idempotencyKey : null,
    isRemembered ? Math.min(nowMs + dedupTtlMs, Number.MAX_SAFE_INTEGER) : null,
    isMatch(effect) ? 1 : 0,
    progress === undefined ? null : JSON.stringify(progress),
    JSON.stringify(sourceLeaves),
  ];
}

/** With the name that it is written by. */
export interface BufferedRow extends BufferedSignalRow {
  readonly n: number;
}

/** In the order of acceptance. */
export async function readBufferedSignals(
  tx: Session,
  row: ExecutionRow,
  waitpointId: string,
): Promise<BufferedRow[]> {
  if (row.signals === null) return [];
  return await tx.all<BufferedRow>(BUFFERED_SIGNALS, row.seq, waitpointId);
}

/** Writes what became of buffered signals. @returns how many matched */
export function saveEvaluation(
  tx: Session,
  row: ExecutionRow,
  { results }: BufferedEvaluation,
  signals: readonly BufferedRow[],
): number {
  if (results.length > 0)
    tx.run(
      SAVE_RESULTS,
      JSON.stringify(
        results.map(({ effect, counted }, index) => ({
          n: signals[index]!.n,
          effect,
          leaves: leavesText(counted),
        })),
      ),
      row.seq,
    );
  return results.filter(({ effect }) => isMatch(effect)).length;
}

export function recordSources(
  tx: Session,
  row: ExecutionRow,
  sources: BufferedEvaluation["sources"],
): void {
  if (sources.length === 0) return;
  tx.run(INSERT_SOURCES, row.seq, JSON.stringify(sources));
}

/** Those that counted for one of these waitpoints, in the order of acceptance. */
export async function readContributors(
  tx: Session,
  row: ExecutionRow,
  waitpointIds: readonly string[],
): Promise<SignalRow[]> {
  return await tx.all<SignalRow>(CONTRIBUTORS, row.seq, waitpointIds);
}

const COUNT_REPEAT = `
  UPDATE signals
  SET repeats = repeats + 1
  WHERE seq = ? AND n = ?`;

const ACTIVE = waitpointStateCode("active");
const CLOSED = waitpointStateCode("closed");

/**
 * A signal and what it changes but for the execution's row and the log, where the row is among \`taken\`. A key takes the
 * place of one that has lapsed. A satisfied condition closes its suspension with its waitpoints, and needs to know of
 * sources no more; pending waitpoints stay, for their attempt goes on. One statement changes a row once: its own waitpoint
 * is counted as it is closed.
 */
export const DELIVERED = `
  delivery AS MATERIALIZED (
    SELECT taken.seq, d.*, effect = 'resume_condition_satisfied' AS resumes
    FROM taken, (
      SELECT ?::INTEGER AS n, ?::UUID AS id, ?::UUID AS waitpoint, ?::TEXT AS name, ?::TEXT AS category,
        ?::TEXT AS source_type, ?::TEXT AS source_identity, ?::TEXT AS correlation_id, ?::TEXT AS encoding, ?::TEXT AS scope,
        ?::BIGINT AS created_at, ?::BIGINT AS at, ?::TEXT AS effect, ?::TEXT AS leaves, ?::BYTEA AS payload,
        ?::TEXT AS signal_key, ?::BIGINT AS remembered_until, ?::INTEGER AS matched, ?::TEXT AS progress,
        ?::JSON AS source_leaves
    ) AS d
  ), signalled AS (
    INSERT INTO signals
      (seq, n, id, waitpoint, name, category, source_type, source_identity, correlation_id, encoding, scope, created_at,
        accepted_at, effect, leaves, payload)
    SELECT seq, n, id, waitpoint, name, category, source_type, source_identity, correlation_id, encoding, scope, created_at,
      at, effect, leaves, payload
    FROM delivery
  ), remembered AS (
    INSERT INTO signal_keys (seq, waitpoint, signal_key, n, expires_at)
    SELECT seq, waitpoint, signal_key, n, remembered_until
    FROM delivery
    WHERE signal_key IS NOT NULL
    ON CONFLICT (seq, waitpoint, signal_key) DO UPDATE
    SET n = excluded.n, expires_at = excluded.expires_at
  ), advanced AS (
    UPDATE suspensions AS s
    SET progress = coalesce(d.progress, s.progress), closed_at = CASE WHEN resumes THEN at END,
      close_reason = CASE WHEN resumes THEN 'resumed' END, resume_trigger = CASE WHEN resumes THEN 'signal' END,
      closer = CASE WHEN resumes THEN d.id END
    FROM delivery AS d
    WHERE s.seq = d.seq AND (resumes OR d.progress IS NOT NULL)
  ), sources AS (
    INSERT INTO signal_sources (seq, source_type, source_identity, leaf)
    SELECT seq, source_type, source_identity, leaf::INTEGER
    FROM delivery, json_array_elements_text(source_leaves) AS l (leaf)
  ), forgotten AS (
    DELETE FROM signal_sources AS counted
    USING delivery
    WHERE counted.seq = delivery.seq AND resumes
  ), counted AS (
    UPDATE waitpoints AS w
    SET signals = w.signals + own, matched = w.matched + d.matched * own,
      last_signal_at = CASE own WHEN 1 THEN at ELSE last_signal_at END,
      state = CASE WHEN resumes THEN ${CLOSED} ELSE state END, closed_at = CASE WHEN resumes THEN at ELSE closed_at END,
      close_reason = CASE WHEN resumes THEN 'resumed' ELSE close_reason END
    FROM delivery AS d, LATERAL (
      SELECT d.waitpoint AS id, 1 AS own
      UNION ALL
      SELECT id, 0
      FROM waitpoints AS closing
      WHERE resumes AND closing.seq = d.seq AND closing.state < 2 AND closing.state = ${ACTIVE} AND closing.id <> d.waitpoint
    ) AS touched
    WHERE w.seq = d.seq AND w.id = touched.id
  )`;

const DELIVER = `
  WITH taken AS MATERIALIZED (
    SELECT ?::BIGINT AS seq
  ), ${DELIVERED}
  SELECT 1`;

const INSERT_SOURCES = `
  INSERT INTO signal_sources (seq, source_type, source_identity, leaf)
  SELECT ?, "sourceType", "sourceIdentity", leaf
  FROM json_to_recordset(?::JSON) AS r ("sourceType" TEXT, "sourceIdentity" TEXT, leaf INTEGER)`;

const BUFFERED_SIGNALS = `
  SELECT n, id, name AS "signalName", source_type AS "sourceType", source_identity AS "sourceIdentity"
  FROM signals
  WHERE seq = ? AND waitpoint = ?
  ORDER BY n`;

const SAVE_RESULTS = `
  UPDATE signals AS s
  SET effect = r.effect, leaves = r.leaves
  FROM json_to_recordset(?::JSON) AS r (n INTEGER, effect TEXT, leaves TEXT)
  WHERE s.seq = ? AND s.n = r.n AND ${few("r.n")}`;

const CONTRIBUTORS = `
  SELECT id, name, category, source_type, source_identity, correlation_id, accepted_at, payload
  FROM signals
  WHERE seq = ? AND waitpoint = ANY(?::UUID[]) AND leaves IS NOT NULL
  ORDER BY n`;
