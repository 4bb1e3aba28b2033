/**
 * How many statements one call takes. Each is a trip to the server and back, and the trip is most of what a call costs
 * where the server stands elsewhere. Counted in a process that has been at work for a while: the first calls also read
 * what is kept in memory from then on.
 */
import { deepStrictEqual } from "node:assert/strict";

import type { ClaimedExecution, EngineBackend } from "@flowfabric/core";

import { apart, type RecordingPool } from "./statements.js";

export interface RoundTrips {
  readonly name: string;
  readonly calls: number;
  /** For all calls, maintenance left out. */
  readonly statements: number;
  /** What one call took at most. */
  readonly most: number;
  /** Portions of maintenance beside the calls: transactions of their own. */
  readonly portions: number;
  readonly tookMs: number;
}

const CALLS = 40;
const WARM_UP_CALLS = 10;
const BATCH = 16;
const LANE = "default";

/** What has to be there for a call is made by `prepare`, which is not counted. */
interface Case<Prepared> {
  readonly name: string;
  prepare(backend: EngineBackend): Promise<Prepared>;
  call(backend: EngineBackend, prepared: Prepared): Promise<unknown>;
}

type Count = (
  backend: EngineBackend,
  log: RecordingPool,
) => Promise<RoundTrips>;

const job = {
  laneId: LANE,
  executionKind: "trip",
  inputPayload: Buffer.alloc(100),
};
const retried = { ...job, policy: { retryPolicy: { maxRetries: 3 } } };

const claimOf = (max: number) => ({
  workerId: "trips",
  workerInstanceId: "trips",
  lanes: [LANE],
  max,
  leaseTtlMs: 60_000,
});

async function submitSome(
  backend: EngineBackend,
  count: number,
): Promise<void> {
  await backend.submitMany({
    items: Array.from({ length: count }, () => job),
  });
}

async function held(
  backend: EngineBackend,
  count: number,
): Promise<ClaimedExecution[]> {
  await submitSome(backend, count);
  const { claimed } = await backend.claimMany(claimOf(count));
  deepStrictEqual(claimed.length, count, "a claim found too little");
  return claimed;
}

async function heldOne(backend: EngineBackend): Promise<ClaimedExecution> {
  return (await held(backend, 1))[0]!;
}

const nothing = async () => {};

const COUNTS: readonly Count[] = [
  counted({
    name: "submit",
    prepare: nothing,
    call: (backend) => backend.createExecution(job),
  }),
  counted({
    name: "submit with a key",
    prepare: nothing,
    call: (backend) =>
      backend.createExecution({ ...job, idempotencyKey: crypto.randomUUID() }),
  }),
  counted({
    name: `submitMany of ${BATCH}`,
    prepare: nothing,
    call: (backend) => submitSome(backend, BATCH),
  }),
  counted({
    name: "claim of 1",
    prepare: (backend) => submitSome(backend, 1),
    call: (backend) => backend.claimMany(claimOf(1)),
  }),
  counted({
    name: `claim of ${BATCH}`,
    prepare: (backend) => submitSome(backend, BATCH),
    call: (backend) => backend.claimMany(claimOf(BATCH)),
  }),
  counted({
    name: "renew",
    prepare: heldOne,
    call: (backend, { handle }) => backend.renew({ handle }),
  }),
  counted({
    name: "progress",
    prepare: heldOne,
    call: (backend, { handle }) => backend.progress({ handle, percent: 50 }),
  }),
  counted({
    name: "complete",
    prepare: heldOne,
    call: (backend, { handle }) => backend.complete({ handle }),
  }),
  counted({
    name: "complete with a result",
    prepare: heldOne,
    call: (backend, { handle }) =>
      backend.complete({ handle, payload: Buffer.alloc(100) }),
  }),
  counted({
    name: "fail",
    prepare: heldOne,
    call: (backend, { handle }) =>
      backend.fail({
        handle,
        reason: { message: "no" },
        classification: "permanent",
      }),
  }),
  counted({
    name: "fail with a retry left",
    prepare: async (backend) => {
      await backend.createExecution(retried);
      const { claimed } = await backend.claimMany(claimOf(1));
      return claimed[0]!;
    },
    call: (backend, { handle }) =>
      backend.fail({
        handle,
        reason: { message: "no" },
        classification: "transient",
      }),
  }),
  ...[1, BATCH].map((count) =>
    counted({
      name: `completeAndClaim of ${count}`,
      prepare: async (backend) => {
        const claimed = await held(backend, count);
        await submitSome(backend, count);
        return claimed.map(({ handle }) => ({ handle }));
      },
      call: async (backend, items) => {
        const answer = await backend.completeAndClaim({
          items,
          claim: claimOf(count),
        });
        deepStrictEqual(
          [answer.results.length, answer.claimed.length],
          [count, count],
          "less was done than there is work for",
        );
      },
    }),
  ),
];

/**
 * @param open opens a store on the pool that it is given
 * @param log the pool, with as few connections as suffice: each has to warm up
 */
export async function countRoundTrips(
  open: (pool: RecordingPool["pool"]) => Promise<EngineBackend>,
  log: RecordingPool,
): Promise<RoundTrips[]> {
  await using backend = await open(log.pool);
  const all: RoundTrips[] = [];
  for (const count of COUNTS) all.push(await count(backend, log));
  return all;
}

function counted<Prepared>({ name, prepare, call }: Case<Prepared>): Count {
  return async (backend, log) => {
    for (let n = 0; n < WARM_UP_CALLS; n++)
      await call(backend, await prepare(backend));
    let statements = 0;
    let most = 0;
    let portions = 0;
    const startMs = performance.now();
    for (let n = 0; n < CALLS; n++) {
      const prepared = await prepare(backend);
      // What was rung meanwhile goes out first.
      await new Promise((resolve) => setTimeout(resolve, 5));
      log.take();
      await call(backend, prepared);
      // And what the call leaves to be sent behind it is counted with it.
      await new Promise((resolve) => setTimeout(resolve, 5));
      const { alone, transactions } = apart(log.take());
      statements += alone.length;
      most = Math.max(most, alone.length);
      portions += transactions;
    }
    return {
      name,
      calls: CALLS,
      statements,
      most,
      portions,
      tookMs: performance.now() - startMs,
    };
  };
}
