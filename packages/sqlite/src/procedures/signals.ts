/** One signal to one waitpoint, once its sender was found entitled: repeats, limits, and what it does to the condition. */
import {
  advance,
  effectiveResumeDelayMs,
  effectiveSignalLimit,
  HOME,
  isRefusal,
  isTerminalHome,
  judgeSignal,
  matchLeaves,
  type Advance,
  type BufferedEvaluation,
  type DeliverSignalResult,
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
  uuidToBytes,
  waitpointState,
  type BufferedSignalRow,
  type ExecutionRow,
  type Signal,
  type SignalRow,
  type SuspensionRow,
  type WaitpointRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution } from "./executions.js";
import { markLapsedIfDue, promoteIfDue, ringAfterCommit } from "./lifecycle.js";
import { appendEvent, appendFeedEvent } from "./log.js";
import { readPolicy } from "./policy.js";
import { resumeSuspended } from "./resuming.js";
import { readOpenSuspension, saveProgress } from "./suspensions.js";
import { countSignal } from "./waitpoints.js";

export function deliver(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  waitpoint: WaitpointRow,
  signal: Signal,
  nowMs: number,
): DeliverSignalResult | Refusal {
  const earlier = findEarlier(tx, row, waitpoint, signal, nowMs);
  if (earlier !== undefined)
    return noteRepeat(store, tx, row, waitpoint, signal, earlier, nowMs);
  const suspension =
    row.home === HOME.suspended ? readOpenSuspension(tx, row) : undefined;

  const judged = judgeSignal({
    terminal: isTerminalHome(row.home),
    waitpointState: waitpointState(waitpoint, nowMs),
    awaited:
      suspension !== undefined &&
      waitpoint.suspension !== null &&
      Buffer.compare(suspension.id, waitpoint.suspension) === 0,
    signals: row.signals ?? 0,
    limit: effectiveSignalLimit(
      readPolicy(tx, row).maxSignalsPerExecution,
      signal.maxSignalsPerExecution,
    ),
  });
  if (isRefusal(judged)) return judged;

  // What only time had changed is written first, so that every store tells the same story.
  promoteIfDue(tx, row, nowMs);
  markLapsedIfDue(tx, row, nowMs);
  const result =
    judged === "buffer"
      ? BUFFERED
      : evaluate(tx, row, suspension!, waitpoint, signal, nowMs);
  accept(tx, row, waitpoint, signal, result, nowMs);
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  const { signalId } = signal;
  return { kind: "accepted", signalId, effect: result.effect };
}

type Result = Pick<Advance, "effect" | "counted">;

const BUFFERED: Result = {
  effect: "buffered_for_pending_waitpoint",
  counted: [],
};

interface Earlier {
  readonly position: number;
  readonly id: Uint8Array;
  readonly repeats: number;
}

/** The same signal by its id, for good; or by its key, while that is remembered. */
function findEarlier(
  tx: Session,
  row: ExecutionRow,
  waitpoint: WaitpointRow,
  { signalId, idempotencyKey = "" }: Signal,
  nowMs: number,
): Earlier | undefined {
  return (
    tx.get<Earlier>(FIND_SIGNAL, row.seq, uuidToBytes(signalId)) ??
    (idempotencyKey === ""
      ? undefined
      : tx.get<Earlier>(
          FIND_BY_KEY,
          row.seq,
          waitpoint.id,
          idempotencyKey,
          nowMs,
        ))
  );
}

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
    tx.afterCommit(() => store.wakeups.ring());
  }
  tx.run(COUNT_REPEAT, earlier.position);
  return { kind: "duplicate", existingSignalId };
}

/** Holds the signal against the condition; where that is satisfied, the execution is runnable behind it. */
function evaluate(
  tx: Session,
  row: ExecutionRow,
  suspension: SuspensionRow,
  waitpoint: WaitpointRow,
  signal: Signal,
  nowMs: number,
): Result {
  const { waitpoint_key: waitpointKey } = waitpoint;
  const { signalName, sourceType, sourceIdentity } = signal;
  const condition = readCondition(suspension);
  const match = matchLeaves(condition, { waitpointKey, signalName });
  const known =
    match.sourceLeaves.length === 0
      ? []
      : tx
          .all<{ leaf: number }>(
            LEAVES_OF_SOURCE,
            row.seq,
            sourceType,
            sourceIdentity,
          )
          .map(({ leaf }) => leaf);
  const { effect, counted, progress } = advance(
    condition,
    readProgress(suspension),
    match,
    waitpointKey,
    known,
  );

  if (effect === "resume_condition_satisfied") {
    const delayMs = effectiveResumeDelayMs(
      readResumePolicy(suspension).resumeDelayMs,
      signal.resumeDelayMs,
    );
    const closer = uuidToBytes(signal.signalId);
    resumeSuspended(
      tx,
      row,
      { closeReason: "resumed", trigger: "signal", closer },
      delayMs,
      nowMs,
    );
  } else if (counted.length > 0) {
    saveProgress(tx, row, progress);
    const sources = counted
      .filter((leaf) => match.sourceLeaves.includes(leaf))
      .map((leaf) => ({ leaf, sourceType, sourceIdentity }));
    recordSources(tx, row, sources);
  }
  return { effect, counted };
}

/** Stores it; its event has the state that it led to. */
function accept(
  tx: Session,
  row: ExecutionRow,
  waitpoint: WaitpointRow,
  signal: Signal,
  { effect, counted }: Result,
  nowMs: number,
): void {
  const { signalId, sourceIdentity, idempotencyKey = "" } = signal;
  row.signals = (row.signals ?? 0) + 1;
  row.mutated_at = nowMs;
  const position = appendEvent(tx, row, "signal", nowMs, signal.actor, {
    transition: effect === "resume_condition_satisfied",
    reason: signal.signalName,
    data: signalEventData(signalId, waitpoint, sourceIdentity, effect),
  });
  tx.run(
    INSERT_SIGNAL,
    position,
    row.seq,
    uuidToBytes(signalId),
    waitpoint.id,
    signal.signalName,
    signal.signalCategory,
    signal.sourceType,
    sourceIdentity,
    signal.correlationId,
    signal.payloadEncoding,
    signal.targetScope,
    signal.createdAtMs ?? nowMs,
    nowMs,
    effect,
    leavesText(counted),
    signal.payload ?? null,
  );
  if (idempotencyKey !== "" && signal.dedupTtlMs > 0)
    tx.run(
      REMEMBER_KEY,
      row.seq,
      waitpoint.id,
      idempotencyKey,
      position,
      Math.min(nowMs + signal.dedupTtlMs, Number.MAX_SAFE_INTEGER),
    );
  countSignal(tx, waitpoint, isMatch(effect), nowMs);
}

/** With the name that it is written by. */
export interface BufferedRow extends BufferedSignalRow {
  readonly position: number;
}

export function readBufferedSignals(
  tx: Session,
  { seq, id, signals }: WaitpointRow,
): BufferedRow[] {
  return signals === 0 ? [] : tx.all<BufferedRow>(BUFFERED_SIGNALS, seq, id);
}

/** Writes what became of buffered signals. @returns how many matched */
export function saveEvaluation(
  tx: Session,
  { results }: BufferedEvaluation,
  signals: readonly BufferedRow[],
): number {
  for (const [index, { effect, counted }] of results.entries())
    tx.run(SAVE_RESULT, effect, leavesText(counted), signals[index]!.position);
  return results.filter(({ effect }) => isMatch(effect)).length;
}

export function recordSources(
  tx: Session,
  row: ExecutionRow,
  sources: BufferedEvaluation["sources"],
): void {
  for (const { leaf, sourceType, sourceIdentity } of sources)
    tx.run(INSERT_SOURCE, row.seq, sourceType, sourceIdentity, leaf);
}

/** Those that counted for one of these waitpoints, in the order of acceptance. */
export function readContributors(
  tx: Session,
  row: ExecutionRow,
  waitpointIds: readonly string[],
): SignalRow[] {
  const found = waitpointIds.flatMap((id) =>
    tx.all<SignalRow & { position: number }>(
      CONTRIBUTORS,
      row.seq,
      uuidToBytes(id),
    ),
  );
  return found.sort((a, b) => a.position - b.position);
}

export const FIND_SIGNAL = `
  SELECT position, id, repeats
  FROM signals
  WHERE seq = ? AND id = ?`;

export const FIND_BY_KEY = `
  SELECT s.position, s.id, s.repeats
  FROM signal_keys AS k
  JOIN signals AS s ON s.position = k.position
  WHERE k.seq = ? AND k.waitpoint = ? AND k.signal_key = ? AND k.expires_at > ?`;

const COUNT_REPEAT = `
  UPDATE signals
  SET repeats = repeats + 1
  WHERE position = ?`;

const INSERT_SIGNAL = `
  INSERT INTO signals
    (position, seq, id, waitpoint, name, category, source_type, source_identity, correlation_id, encoding, scope, created_at,
      accepted_at, effect, leaves, payload)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;

/** Takes the place of a key that has lapsed. */
const REMEMBER_KEY = `
  INSERT INTO signal_keys (seq, waitpoint, signal_key, position, expires_at)
  VALUES (?, ?, ?, ?, ?)
  ON CONFLICT (seq, waitpoint, signal_key) DO UPDATE
  SET position = excluded.position, expires_at = excluded.expires_at`;

export const LEAVES_OF_SOURCE = `
  SELECT leaf
  FROM signal_sources
  WHERE seq = ? AND source_type = ? AND source_identity = ?`;

const INSERT_SOURCE = `
  INSERT INTO signal_sources (seq, source_type, source_identity, leaf)
  VALUES (?, ?, ?, ?)`;

export const BUFFERED_SIGNALS = `
  SELECT position, id, name AS signalName, source_type AS sourceType, source_identity AS sourceIdentity
  FROM signals
  WHERE seq = ? AND waitpoint = ?
  ORDER BY position`;

const SAVE_RESULT = `
  UPDATE signals
  SET effect = ?, leaves = ?
  WHERE position = ?`;

export const CONTRIBUTORS = `
  SELECT position, id, name, category, source_type, source_identity, correlation_id, accepted_at, payload
  FROM signals
  WHERE seq = ? AND waitpoint = ? AND leaves IS NOT NULL
  ORDER BY position`;
