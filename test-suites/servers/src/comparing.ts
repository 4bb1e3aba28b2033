/** Does a store get slower as it fills? The same work on a large and on a small one, in turn, in one run. */
import { deepStrictEqual } from "node:assert/strict";

import type { ClaimedExecution, EngineBackend } from "@flowfabric/core";

export interface Comparison {
  readonly small: EngineBackend;
  readonly large: EngineBackend;
  readonly rounds: number;
  /**
   * Where a ratio is not above it, as many rounds follow again, up to five times: few of them say little on a machine that
   * has other things to do, and a store that did get slower stays below it.
   */
  readonly least?: number;
  /** Submitted, claimed and completed in each round of each store. */
  readonly jobs: number;
  readonly payloadBytes: number;
}

export interface Ratio {
  readonly name: keyof Rates;
  /** Per second, medians of all rounds. */
  readonly small: number;
  readonly large: number;
  /** Median over the rounds of large by small: what slows both at one time cancels out. */
  readonly ratio: number;
}

interface Rates {
  readonly submit: number;
  readonly claim: number;
  readonly complete: number;
}

const IN_FLIGHT = 16;
const TIMES_MAX = 5;

export async function compareRates(comparison: Comparison): Promise<Ratio[]> {
  const { small, large, rounds, least = 0 } = comparison;
  // Compiled code, plans and caches; and on the small one as many that wait as a claim takes.
  for (const backend of [small, large, small, large])
    await ratesOf(backend, comparison);
  const pairs: Pair[] = [];
  for (let times = 0; times < TIMES_MAX; times++) {
    for (let round = 0; round < rounds; round++)
      pairs.push(await pairOf(comparison, round % 2 === 0 ? small : large));
    if (ratiosOf(pairs).every(({ ratio }) => ratio > least)) break;
  }
  return ratiosOf(pairs);
}

interface Pair {
  readonly small: Rates;
  readonly large: Rates;
}

/** @param first changes from pair to pair, for the second may meet what the first has left to do */
async function pairOf(
  comparison: Comparison,
  first: EngineBackend,
): Promise<Pair> {
  const { small, large } = comparison;
  const ratesOfFirst = await ratesOf(first, comparison);
  return first === small
    ? { small: ratesOfFirst, large: await ratesOf(large, comparison) }
    : { large: ratesOfFirst, small: await ratesOf(small, comparison) };
}

function ratiosOf(pairs: readonly Pair[]): Ratio[] {
  return (["submit", "claim", "complete"] as const).map((name) => ({
    name,
    small: middle(pairs.map((pair) => pair.small[name])),
    large: middle(pairs.map((pair) => pair.large[name])),
    ratio: middle(pairs.map((pair) => pair.large[name] / pair.small[name])),
  }));
}

async function ratesOf(
  backend: EngineBackend,
  { jobs, payloadBytes }: Comparison,
): Promise<Rates> {
  const inputPayload = Buffer.alloc(payloadBytes, 1);
  const perSecond = async (work: () => Promise<void>) => {
    const startMs = performance.now();
    await work();
    return (jobs / (performance.now() - startMs)) * 1_000;
  };

  const submit = await perSecond(() =>
    inFlight(jobs, async () => {
      await backend.createExecution({ executionKind: "rate", inputPayload });
    }),
  );
  const claimed: ClaimedExecution[] = [];
  const claim = await perSecond(async () => {
    while (claimed.length < jobs) {
      const answer = await backend.claimMany({
        workerId: "rates",
        workerInstanceId: "rates",
        lanes: ["default"],
        max: Math.min(IN_FLIGHT, jobs - claimed.length),
        leaseTtlMs: 600_000,
      });
      deepStrictEqual(answer.claimed.length > 0, true, "no work was found");
      claimed.push(...answer.claimed);
    }
  });
  const complete = await perSecond(() =>
    inFlight(jobs, async (index) => {
      await backend.complete({ handle: claimed[index]!.handle });
    }),
  );
  return { submit, claim, complete };
}

async function inFlight(
  count: number,
  call: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const caller = async () => {
    while (next < count) await call(next++);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, caller));
}

function middle(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  const half = (sorted.length - 1) / 2;
  return (sorted[Math.floor(half)]! + sorted[Math.ceil(half)]!) / 2;
}
