/**
 * How many statements one call takes, and how many trips to the server and back a transaction: the trip is most of what a
 * call costs where the server stands elsewhere. Counted in a process that has been at work for a while: the first calls also read
 * what is kept in memory from then on.
 */
import { deepStrictEqual } from "node:assert/strict";

import type {
  ClaimedExecution,
  DeliverSignalInput,
  EngineBackend,
  Frame,
} from "@flowfabric/core";

import { apart, type RecordingPool } from "./statements.js";

export interface RoundTrips {
  readonly name: string;
  readonly calls: number;
  /** For all calls, transactions left out: here they are maintenance. */
  readonly statements: number;
  /** For all calls, with whatever ran beside them. */
  readonly trips: number;
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

function frameOf(kind: "durable" | "durableSummary" | "bestEffortLive"): Frame {
  const bytes = Buffer.from('{"a":1}');
  switch (kind) {
    case "durableSummary":
      return { bytes, mode: { kind, patchKind: "jsonMergePatch" } };
    case "bestEffortLive":
      return { bytes, mode: { kind, ttlMs: 10_000 } };
    case "durable":
      return { bytes, mode: { kind } };
  }
}
const FRAMES = [
  frameOf("durable"),
  frameOf("durableSummary"),
  frameOf("bestEffortLive"),
];

async function written(
  backend: EngineBackend,
): Promise<Pick<ClaimedExecution, "executionId" | "attemptIndex">> {
  const { handle, executionId, attemptIndex } = await heldOne(backend);
  await backend.appendFrames({ handle, frames: FRAMES });
  return { executionId, attemptIndex };
}

const nothing = async () => {};

const keys = { kid: "trips", secretHex: "0f".repeat(32) };

async function suspend(
  backend: EngineBackend,
  { handle }: ClaimedExecution,
): Promise<Signal> {
  const { details } = await backend.suspend({
    handle,
    suspensionId: crypto.randomUUID(),
    waitpoints: [
      { kind: "fresh", waitpointId: crypto.randomUUID(), waitpointKey: "go" },
    ],
    resumeCondition: {
      kind: "single",
      waitpointKey: "go",
      matcher: { kind: "wildcard" },
    },
    reasonCode: "waiting_for_signal",
    idempotencyKey: crypto.randomUUID(),
  });
  return details;
}

type Signal = Pick<DeliverSignalInput, "waitpointId" | "waitpointToken">;

async function signal(
  backend: EngineBackend,
  { executionId }: ClaimedExecution,
  { waitpointId, waitpointToken }: Signal,
): Promise<void> {
  const { kind } = await backend.deliverSignal({
    executionId,
    waitpointId,
    waitpointToken,
    signalId: crypto.randomUUID(),
    signalName: "go",
    idempotencyKey: crypto.randomUUID(),
  });
  deepStrictEqual(kind, "accepted");
}

const makeWaitpoint = (backend: EngineBackend, { handle }: ClaimedExecution) =>
  backend.createWaitpoint({
    handle,
    waitpointKey: "go",
    expiresInMs: 60_000,
  });

/** Transactions of several statements each. */
const TRANSACTIONS: readonly Count[] = [
  counted({
    name: "createWaitpoint",
    prepare: heldOne,
    call: makeWaitpoint,
  }),
  counted({
    name: "suspend",
    prepare: heldOne,
    call: suspend,
  }),
  counted({
    name: "complete behind a waitpoint",
    prepare: async (backend) => {
      const claimed = await heldOne(backend);
      await makeWaitpoint(backend, claimed);
      return claimed;
    },
    call: (backend, { handle }) => backend.complete({ handle }),
  }),
];

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
    name: "claim of a resumed one",
    prepare: async (backend) => {
      const claimed = await heldOne(backend);
      await signal(backend, claimed, await suspend(backend, claimed));
    },
    call: (backend) => backend.claimMany(claimOf(1)),
  }),
  counted({
    name: "a signal that is kept",
    prepare: async (backend) => {
      const claimed = await heldOne(backend);
      const { waitpointId, hmacToken } = await makeWaitpoint(backend, claimed);
      return [claimed, { waitpointId, waitpointToken: hmacToken }] as const;
    },
    call: (backend, prepared) => signal(backend, ...prepared),
  }),
  counted({
    name: "a signal that resumes",
    prepare: async (backend) => {
      const claimed = await heldOne(backend);
      return [claimed, await suspend(backend, claimed)] as const;
    },
    call: (backend, prepared) => signal(backend, ...prepared),
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
  counted({
    name: "appendFrame",
    prepare: heldOne,
    call: (backend, { handle }) =>
      backend.appendFrame({ handle, frame: frameOf("durable") }),
  }),
  counted({
    name: "appendFrames of each mode",
    prepare: heldOne,
    call: (backend, { handle }) =>
      backend.appendFrames({ handle, frames: FRAMES }),
  }),
  counted({
    name: `appendFrame of ${BATCH} at once`,
    prepare: (backend) => held(backend, BATCH),
    call: (backend, claimed) =>
      Promise.all(
        claimed.map(({ handle }) =>
          backend.appendFrame({ handle, frame: frameOf("durable") }),
        ),
      ),
  }),
  counted({
    name: "readStream",
    prepare: written,
    call: async (backend, claimed) => {
      const { frames } = await backend.readStream({
        ...claimed,
        countLimit: 10,
      });
      deepStrictEqual(frames.length, FRAMES.length);
    },
  }),
  counted({
    name: "tailStream that need not wait",
    prepare: written,
    call: (backend, claimed) =>
      backend.tailStream({
        ...claimed,
        after: "0-0",
        blockMs: 1_000,
        countLimit: 10,
      }),
  }),
  counted({
    name: "readSummary",
    prepare: written,
    call: (backend, claimed) => backend.readSummary(claimed),
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
): Promise<{
  /** Of a single statement each, or of two for signals. */
  readonly plain: RoundTrips[];
  readonly transactions: RoundTrips[];
}> {
  await using backend = await open(log.pool);
  await backend.seedWaitpointHmacSecret(keys);
  const plain: RoundTrips[] = [];
  for (const count of COUNTS) plain.push(await count(backend, log));
  const transactions: RoundTrips[] = [];
  for (const count of TRANSACTIONS)
    transactions.push(await count(backend, log));
  return { plain, transactions };
}

function counted<Prepared>({ name, prepare, call }: Case<Prepared>): Count {
  return async (backend, log) => {
    for (let n = 0; n < WARM_UP_CALLS; n++)
      await call(backend, await prepare(backend));
    let statements = 0;
    let trips = 0;
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
      const sent = log.take();
      trips += sent.filter(({ isTrip }) => isTrip).length;
      const { alone, transactions } = apart(sent);
      statements += alone.length;
      most = Math.max(most, alone.length);
      portions += transactions;
    }
    return {
      name,
      calls: CALLS,
      statements,
      trips,
      most,
      portions,
      tookMs: performance.now() - startMs,
    };
  };
}
