/**
 * Does the engine cost anything against a plain loop on the same database, written by hand?
 *
 * Both submit, claim and complete the same number of jobs with the same payload and the same small result, at the same
 * durability, in turns on the same machine. The loop does it as such a loop does, one job after the other, a commit for each
 * step; the engine as its users do, with 16 in flight, so that a group shares a commit. The engine also keeps a history, fences
 * every write and checks every input; the loop does none of it.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";

import { sqliteBackend } from "@flowfabric/sqlite";

import {
  claimOf,
  claimSome,
  IN_FLIGHT,
  insist,
  jobOf,
  PAYLOAD_BYTES,
  payloadOf,
} from "../engine/jobs.js";
import { inFlight } from "../in-flight.js";
import { median } from "../statistics.js";
import { PlainLoop } from "./plain-loop.js";

export interface PlainLoopScale {
  readonly jobs: number;
  readonly pairs: number;
}

/** Times of one run over all jobs. */
export interface RunTimes {
  readonly submitMs: number;
  readonly claimAndCompleteMs: number;
  readonly totalMs: number;
}

export interface Pair {
  readonly plain: RunTimes;
  readonly engine: RunTimes;
}

export interface PlainLoopFigures {
  readonly durability: Durability;
  readonly jobs: number;
  readonly pairs: readonly Pair[];
  /** Median over the pairs of what the plain loop took, by what the engine took: above 1 the engine is faster. */
  readonly submitRatio: number;
  readonly claimAndCompleteRatio: number;
  readonly totalRatio: number;
}

export type Durability = "full" | "normal";

const RESULT = Buffer.from('{"ok":true}');
const LEASE_TTL_MS = 60_000;

export async function comparePlainLoop(
  durability: Durability,
  directory: string,
  { jobs, pairs: pairCount }: PlainLoopScale,
  report: (pair: Pair) => void,
): Promise<PlainLoopFigures> {
  const payload = payloadOf(PAYLOAD_BYTES);
  const onePair = async (count: number): Promise<Pair> => ({
    plain: await inNewDirectory(directory, (own) =>
      runPlainLoop(own, durability, count, payload),
    ),
    engine: await inNewDirectory(directory, (own) =>
      runEngine(own, durability, count, payload),
    ),
  });

  await onePair(Math.ceil(jobs / 5));
  const pairs: Pair[] = [];
  while (pairs.length < pairCount) {
    const pair = await onePair(jobs);
    report(pair);
    pairs.push(pair);
  }
  const ratio = (part: keyof RunTimes) =>
    median(pairs.map(({ plain, engine }) => plain[part] / engine[part]));
  return {
    durability,
    jobs,
    pairs,
    submitRatio: ratio("submitMs"),
    claimAndCompleteRatio: ratio("claimAndCompleteMs"),
    totalRatio: ratio("totalMs"),
  };
}

function runPlainLoop(
  directory: string,
  durability: Durability,
  count: number,
  payload: Uint8Array,
): RunTimes {
  const loop = new PlainLoop(join(directory, "plain.db"), durability, "bench");
  const startMs = performance.now();
  for (let n = 0; n < count; n++) loop.insert(payload);

  const submittedMs = performance.now();
  let done = 0;
  for (
    let job = loop.claim(LEASE_TTL_MS);
    job !== undefined;
    job = loop.claim(LEASE_TTL_MS)
  ) {
    insist(loop.complete(job, RESULT), "a completion was refused");
    done++;
  }
  const endMs = performance.now();
  insist(done === count, `${done} of ${count} done`);
  loop.close();
  return timesOf(startMs, submittedMs, endMs);
}

async function runEngine(
  directory: string,
  durability: Durability,
  count: number,
  payload: Uint8Array,
): Promise<RunTimes> {
  const path = join(directory, "engine.db");
  await using backend = await sqliteBackend({ path, durability });
  const job = jobOf(payload);
  const startMs = performance.now();
  await inFlight(IN_FLIGHT, count, () => backend.createExecution(job));

  const submittedMs = performance.now();
  let done = 0;
  let claimed = await claimSome(backend, IN_FLIGHT);
  while (claimed.length > 0) {
    const answer = await backend.completeAndClaim({
      items: claimed.map(({ handle }) => ({ handle, payload: RESULT })),
      claim: claimOf(IN_FLIGHT),
    });
    insist(
      answer.results.every(({ kind }) => kind === "completed"),
      "a completion was refused",
    );
    done += answer.results.length;
    claimed = answer.claimed;
  }
  const endMs = performance.now();
  insist(done === count, `${done} of ${count} done`);
  return timesOf(startMs, submittedMs, endMs);
}

function timesOf(
  startMs: number,
  submittedMs: number,
  endMs: number,
): RunTimes {
  return {
    submitMs: submittedMs - startMs,
    claimAndCompleteMs: endMs - submittedMs,
    totalMs: endMs - startMs,
  };
}

async function inNewDirectory<Answer>(
  parent: string,
  use: (directory: string) => Answer | Promise<Answer>,
): Promise<Answer> {
  const own = await mkdtemp(join(parent, "flowfabric-bench-"));
  try {
    return await use(own);
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}
