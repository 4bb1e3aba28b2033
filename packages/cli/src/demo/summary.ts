/** The figures of a run, from the histories of its files. */
import { formatCount, formatDuration, plural } from "../output.js";
import type { FileHistory } from "./history.js";
import type { Kill } from "./kill.js";

export interface RunFacts {
  readonly folder: string;
  /** Where the work is kept, for people. */
  readonly store: string;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly leaseTtlMs: number;
  readonly slotsPerWorker: number;
  /** By instance id, workers of earlier runs not included. */
  readonly workerNames: ReadonlyMap<string, string>;
  readonly kill: Kill | undefined;
  readonly files: readonly FileHistory[];
}

export interface WorkerCount {
  readonly name: string;
  readonly completed: number;
  readonly failed: number;
  readonly lost: number;
  readonly killed: boolean;
}

interface Percentiles {
  readonly p50: number;
  readonly p99: number;
}

export interface Summary {
  readonly fresh: number;
  readonly continued: number;
  readonly reused: number;
  readonly completed: number;
  readonly failed: readonly FileHistory[];
  readonly words: number;
  readonly bytes: number;
  /** Attempts, retries and takeovers of this run. */
  readonly attempts: number;
  readonly retries: number;
  readonly recovered: number;
  /** From the kill to the start of the last attempt that made up for it. */
  readonly recoveryMs: number | undefined;
  readonly pickup: Percentiles | undefined;
  /** From one attempt's end to the next start in the same place of the same worker. */
  readonly turnaround: Percentiles | undefined;
  readonly executionsPerSecond: number | undefined;
  readonly workers: readonly WorkerCount[];
}

export function summarise(facts: RunFacts): Summary {
  const { files, kill, workerNames } = facts;
  const ran = files.filter(({ origin }) => origin !== "reused");
  const attempts = ran
    .flatMap((file) => file.attempts)
    .filter(({ instanceId }) => workerNames.has(instanceId));
  const analyses = files.flatMap(({ analysis }) => analysis ?? []);
  return {
    fresh: ran.filter(({ origin }) => origin === "new").length,
    continued: ran.filter(({ origin }) => origin === "continued").length,
    reused: files.length - ran.length,
    completed: files.filter(({ state }) => state === "completed").length,
    failed: files.filter(({ state }) => state !== "completed"),
    words: sum(analyses.map(({ words }) => words)),
    bytes: sum(analyses.map(({ bytes }) => bytes)),
    attempts: attempts.length,
    retries: attempts.filter(({ type }) => type === "retry").length,
    recovered: attempts.filter(({ type }) => type === "reclaim").length,
    recoveryMs: recoveryMs(ran, kill),
    pickup: percentiles(ran.flatMap(({ pickupsMs }) => pickupsMs)),
    turnaround: percentiles(turnarounds(facts)),
    executionsPerSecond: rate(ran, attempts),
    workers: [...workerNames].map(([instanceId, name]) => {
      const own = attempts.filter(
        (attempt) => attempt.instanceId === instanceId,
      );
      const count = (...outcomes: string[]) =>
        own.filter(({ outcome }) => outcomes.includes(outcome)).length;
      return {
        name,
        completed: count("completed"),
        failed: count("failed", "retried"),
        lost: count("lost"),
        killed: kill?.instanceId === instanceId,
      };
    }),
  };
}

function recoveryMs(
  files: readonly FileHistory[],
  kill: Kill | undefined,
): number | undefined {
  if (kill === undefined) return undefined;
  const starts = files
    .filter(({ executionId }) => kill.held.includes(executionId))
    .flatMap(({ attempts }) => attempts)
    .filter(({ type }) => type === "reclaim")
    .map(({ startedAtMs }) => startedAtMs);
  return starts.length === 0 ? undefined : Math.max(...starts) - kill.atMs;
}

/**
 * How long a place of a worker stood empty between two attempts. Only counted while there was something to claim:
 * up to the first start of the last file.
 */
function turnarounds(facts: RunFacts): number[] {
  const gaps: number[] = [];
  const busyUntilMs = Math.max(
    ...facts.files
      .filter(({ origin }) => origin !== "reused")
      .map(({ attempts }) => attempts[0]?.startedAtMs ?? 0),
  );
  for (const lane of placesOf(facts).values())
    for (const place of lane)
      for (const [at, { startedAtMs }] of place.entries()) {
        const before = place[at - 1]?.endedAtMs;
        if (before !== undefined && startedAtMs <= busyUntilMs)
          gaps.push(Math.max(0, startedAtMs - before));
      }
  return gaps;
}

export interface PlacedAttempt {
  readonly file: FileHistory;
  readonly index: number;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
}

/** Attempts of this run, by worker and by the place they took among those that ran at once. */
export function placesOf(facts: RunFacts): Map<string, PlacedAttempt[][]> {
  const { kill, workerNames, endedAtMs: runEndMs } = facts;
  const workers = new Map<string, PlacedAttempt[][]>(
    [...workerNames.keys()].map((instanceId) => [instanceId, []]),
  );
  const attempts = facts.files
    .flatMap((file) => file.attempts.map((attempt) => ({ file, attempt })))
    .sort((a, b) => a.attempt.startedAtMs - b.attempt.startedAtMs);
  for (const { file, attempt } of attempts) {
    const places = workers.get(attempt.instanceId);
    if (places === undefined) continue;
    const { index, startedAtMs } = attempt;
    // The store learns of a killed worker late; what it held ended with it.
    const endedAtMs =
      attempt.outcome === "lost" && kill?.instanceId === attempt.instanceId
        ? Math.max(kill.atMs, startedAtMs)
        : (attempt.endedAtMs ?? runEndMs);
    const free = places.find(
      (place) => (place.at(-1)?.endedAtMs ?? 0) <= startedAtMs,
    );
    const placed = { file, index, startedAtMs, endedAtMs };
    if (free === undefined) places.push([placed]);
    else free.push(placed);
  }
  return workers;
}

function rate(
  ran: readonly FileHistory[],
  attempts: readonly { startedAtMs: number; endedAtMs: number | undefined }[],
): number | undefined {
  if (attempts.length === 0) return undefined;
  const fromMs = Math.min(...attempts.map(({ startedAtMs }) => startedAtMs));
  const toMs = Math.max(
    ...attempts.map(({ startedAtMs, endedAtMs }) => endedAtMs ?? startedAtMs),
  );
  return (ran.length * 1_000) / Math.max(1, toMs - fromMs);
}

/** Nearest rank. */
function percentiles(values: readonly number[]): Percentiles | undefined {
  if (values.length === 0) return undefined;
  const sorted = values.toSorted((a, b) => a - b);
  const rank = (share: number) =>
    sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { p50: rank(0.5), p99: rank(0.99) };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function percentilesText({ p50, p99 }: Percentiles): string {
  return `p50 ${formatDuration(p50)}, p99 ${formatDuration(p99)}`;
}

/** Name and value per line, the same in the terminal and in the report. */
export function summaryRows(
  facts: RunFacts,
  summary: Summary,
): readonly (readonly [name: string, value: string])[] {
  const { kill } = facts;
  const rows: [string, string][] = [
    [
      "Executions",
      `${formatCount(facts.files.length)}, the declared poison included: ${formatCount(summary.reused)} reused, ${formatCount(summary.fresh)} new${summary.continued > 0 ? `, ${formatCount(summary.continued)} continued from an earlier run` : ""}`,
    ],
    [
      "Ended",
      `${formatCount(summary.completed)} completed, ${formatCount(summary.failed.length)} failed`,
    ],
    ["Words", formatCount(summary.words)],
  ];
  if (summary.attempts === 0) return rows;
  rows.push([
    "Attempts",
    `${formatCount(summary.attempts)}, of which ${plural(summary.retries, "retry", "retries")} and ${formatCount(summary.recovered)} taken over from a dead worker`,
  ]);
  if (summary.pickup !== undefined)
    rows.push([
      "Pickup",
      `${percentilesText(summary.pickup)} (claimable to claimed, the time in line included)`,
    ]);
  if (summary.turnaround !== undefined)
    rows.push([
      "Turnaround",
      `${percentilesText(summary.turnaround)} (a worker's place: one end to the next start)`,
    ]);
  if (summary.executionsPerSecond !== undefined)
    rows.push([
      "Rate",
      `${summary.executionsPerSecond.toFixed(1)} executions per second (paced on purpose)`,
    ]);
  if (kill !== undefined)
    rows.push([
      "Killed",
      `${kill.worker} (pid ${kill.pid}) with kill -9 after ${formatDuration(kill.atMs - facts.startedAtMs)}, holding ${formatCount(kill.held.length)}${summary.recoveryMs === undefined ? "" : `; all of it ran elsewhere after ${formatDuration(summary.recoveryMs)} (lease: ${formatDuration(facts.leaseTtlMs)})`}`,
    ]);
  return rows;
}
