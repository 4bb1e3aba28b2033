/** A call is one function call in the server, however many items it has, and waiting costs next to none. Counted by the server. */
import { setTimeout as pause } from "node:timers/promises";

import {
  allOfWaitpoints,
  type ClaimedExecution,
  type EngineBackend,
  type Handle,
} from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import {
  clusterNodes,
  infoField,
  openClient,
  startOwnCluster,
  startRestartableValkey,
  withClient,
  type OwnCluster,
  type RestartableServer,
} from "@flowfabric/valkey-testing";
import { compareIdle } from "@flowfabric/test-servers";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";

const CALLS = 40;
const BATCH = 16;
const PORTIONS_PER_SECOND = 4;
const IDLE_CALLS_PER_SECOND = 0.2;
const IDLE_MS = 10_000;
/** A claim that finds nothing has come to rest by then. */
const PARKED_MS = 3_000;
const KEY = { kid: "k1", secretHex: "0f".repeat(32) };

// Its own, for it counts all that a server is called.
let server: RestartableServer;
let cluster: OwnCluster;
let observer: Redis;
beforeAll(async () => {
  cluster = await startOwnCluster();
  server = await startRestartableValkey({ settings: { appendonly: "no" } });
  observer = openClient(server.url) as Redis;
});
afterAll(async () => {
  observer.disconnect();
  await server.stop();
  await cluster.stop();
});

const job = { executionKind: "trip", inputPayload: Buffer.alloc(100) };
const retried = { ...job, policy: { retryPolicy: { maxRetries: 3 } } };
const claimOf = (max: number) => ({
  workerId: "trips",
  workerInstanceId: "trips",
  lanes: ["default"],
  max,
  leaseTtlMs: 60_000,
});

const submitSome = (backend: EngineBackend, count: number) =>
  backend.submitMany({ items: Array.from({ length: count }, () => job) });

async function held(
  backend: EngineBackend,
  count: number,
): Promise<ClaimedExecution[]> {
  await submitSome(backend, count);
  const { claimed } = await backend.claimMany(claimOf(count));
  expect(claimed).toHaveLength(count);
  return claimed;
}

/** What has to be there for a call is made by `prepare`, which is not counted. */
interface Case<Prepared> {
  prepare(backend: EngineBackend): Promise<Prepared>;
  call(backend: EngineBackend, prepared: Prepared): Promise<unknown>;
}
const define = <Prepared>(one: Case<Prepared>) => one as Case<unknown>;
const heldOne = async (backend: EngineBackend) => (await held(backend, 1))[0]!;
const nothing = async () => {};

const DURABLE = { kind: "durable" } as const;
const LIVE = { kind: "bestEffortLive", ttlMs: 10_000 } as const;
const PATCHING = {
  bytes: Buffer.from('{"a":[]}'),
  mode: { kind: "durableSummary", patchKind: "jsonMergePatch" },
} as const;

const suspend = async (
  backend: EngineBackend,
  handle: Handle,
  count: number,
  timeoutMs?: number,
) => {
  const keys = Array.from({ length: count }, (_unused, key) => `key ${key}`);
  return backend.suspend({
    handle,
    suspensionId: crypto.randomUUID(),
    waitpoints: keys.map((waitpointKey) => ({
      kind: "fresh",
      waitpointId: crypto.randomUUID(),
      waitpointKey,
    })),
    resumeCondition: allOfWaitpoints(keys),
    reasonCode: "waiting_for_signal",
    ...(timeoutMs === undefined
      ? {}
      : { timeoutAtMs: Date.now() + timeoutMs, timeoutBehavior: "expire" }),
  });
};

async function suspendedOne(backend: EngineBackend) {
  const { executionId, handle } = await heldOne(backend);
  const outcome = await suspend(backend, handle, 1);
  if (outcome.kind !== "suspended") throw new Error("not suspended");
  return { executionId, details: outcome.details, handle: outcome.handle };
}

const CASES: Readonly<Record<string, Case<unknown>>> = {
  submit: define({
    prepare: nothing,
    call: (backend) => backend.createExecution(job),
  }),
  "submit with a key": define({
    prepare: nothing,
    call: (backend) =>
      backend.createExecution({ ...job, idempotencyKey: crypto.randomUUID() }),
  }),
  "submitMany of 16": define({
    prepare: nothing,
    call: (backend) => submitSome(backend, BATCH),
  }),
  "claim of 16": define({
    prepare: (backend) => submitSome(backend, BATCH),
    call: (backend) => backend.claimMany(claimOf(BATCH)),
  }),
  renew: define({
    prepare: heldOne,
    call: (backend, { handle }) => backend.renew({ handle }),
  }),
  progress: define({
    prepare: heldOne,
    call: (backend, { handle }) => backend.progress({ handle, percent: 50 }),
  }),
  "append of 16 frames": define({
    prepare: heldOne,
    call: (backend, { handle }) =>
      backend.appendFrames({
        handle,
        frames: Array.from({ length: BATCH }, (_unused, n) => ({
          bytes: Buffer.alloc(100),
          mode: n % 2 === 0 ? DURABLE : LIVE,
        })),
      }),
  }),
  "append of patches": define({
    prepare: heldOne,
    call: (backend, { handle }) =>
      backend.appendFrames({ handle, frames: [PATCHING, PATCHING] }),
  }),
  "append of another patch": define({
    prepare: async (backend) => {
      const claimed = await heldOne(backend);
      await backend.appendFrame({ handle: claimed.handle, frame: PATCHING });
      return claimed;
    },
    call: (backend, { handle }) =>
      backend.appendFrame({ handle, frame: PATCHING }),
  }),
  "read of a stream": define({
    prepare: async (backend) => {
      const { handle, executionId, attemptIndex } = await heldOne(backend);
      const frames = [PATCHING, { bytes: Buffer.from("x"), mode: LIVE }];
      await backend.appendFrames({ handle, frames });
      return { executionId, attemptIndex };
    },
    call: async (backend, attempt) => {
      const page = await backend.readStream({ ...attempt, countLimit: 10 });
      expect(page.frames).toHaveLength(2);
    },
  }),
  complete: define({
    prepare: heldOne,
    call: (backend, { handle }) =>
      backend.complete({ handle, payload: Buffer.alloc(100) }),
  }),
  "fail with a retry left": define({
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
  createWaitpoint: define({
    prepare: heldOne,
    call: (backend, { handle }) =>
      backend.createWaitpoint({
        handle,
        waitpointKey: "a",
        expiresInMs: 1_000,
      }),
  }),
  "suspend on 16": define({
    prepare: heldOne,
    call: (backend, { handle }) => suspend(backend, handle, BATCH),
  }),
  deliverSignal: define({
    prepare: suspendedOne,
    call: async (backend, { executionId, details }) => {
      const { waitpointId, waitpointToken } = details;
      await backend.deliverSignal({
        executionId,
        waitpointId,
        waitpointToken,
        signalId: crypto.randomUUID(),
        signalName: "go",
      });
    },
  }),
  "claim of one that was resumed": define({
    prepare: async (backend) => {
      const { executionId } = await suspendedOne(backend);
      await backend.resumeExecution({ executionId });
    },
    call: async (backend) => {
      const { claimed } = await backend.claimMany(claimOf(1));
      expect(claimed).toHaveLength(1);
    },
  }),
  observeSignals: define({
    prepare: suspendedOne,
    call: (backend, { handle }) => backend.observeSignals({ handle }),
  }),
  listPendingWaitpoints: define({
    prepare: suspendedOne,
    call: (backend, { executionId }) =>
      backend.listPendingWaitpoints({ executionId }),
  }),
  listSuspended: define({
    prepare: suspendedOne,
    call: (backend) => backend.listSuspended({ limit: BATCH }),
  }),
  "completeAndClaim of 16": define({
    prepare: async (backend) => {
      const claimed = await held(backend, BATCH);
      await submitSome(backend, BATCH);
      return claimed.map(({ handle }) => ({ handle }));
    },
    call: async (backend, items) => {
      const { claimed } = await backend.completeAndClaim({
        items,
        claim: claimOf(BATCH),
      });
      expect(claimed).toHaveLength(BATCH);
    },
  }),
};

test.each(Object.entries(CASES))("%s is one call", async (name, one) => {
  await using backend = await openStore(name);
  await backend.seedWaitpointHmacSecret(KEY);
  for (let n = 0; n < 3; n++)
    await one.call(backend, await one.prepare(backend));

  let counted = 0;
  const startMs = performance.now();
  for (let n = 0; n < CALLS; n++) {
    const prepared = await one.prepare(backend);
    const before = await functionCalls();
    await one.call(backend, prepared);
    counted += (await functionCalls()) - before;
  }
  const seconds = (performance.now() - startMs) / 1_000;

  expect(counted).toBeGreaterThanOrEqual(CALLS);
  // Beside them a portion of maintenance now and then; one more, for the span may begin just before one.
  expect(counted - CALLS).toBeLessThanOrEqual(
    1 + seconds * PORTIONS_PER_SECOND,
  );
});

test("a claim that waits costs hardly a call", async () => {
  await using backend = await openStore("idle");
  await submitSome(backend, 1);
  await held(backend, 1);
  const waiting = backend.claimMany({
    ...claimOf(2),
    lanes: ["empty"],
    maxWaitMs: PARKED_MS + IDLE_MS,
  });
  // It begins with a claim and a look, and as soon as one is allowed a portion, beside another claim.
  await pause(PARKED_MS);
  const before = await functionCalls();

  const { claimed } = await waiting;

  expect(claimed).toEqual([]);
  const calls = (await functionCalls()) - before;
  expect(calls).toBeLessThanOrEqual((IDLE_MS / 1_000) * IDLE_CALLS_PER_SECOND);
});

test("thousands of suspended executions cost a claim that waits nothing", async () => {
  await using backend = await openStore("suspended");

  // A call is itself a command, beside those that it runs.
  const cost = await compareIdle(backend, 10_000, commands);

  console.log(JSON.stringify(cost));
  // Portions take turns at what they tidy, and not every turn finds the same to read. Any cost of theirs would be thousands.
  expect(cost.many).toBeLessThanOrEqual(2 * cost.none);
});

test("on a cluster no more: cells that were never used rest, and rings tell of what others bring", async () => {
  const open = () => valkeyBackend({ clusterNodes: clusterNodes(cluster.url) });
  await using backend = await open();
  await using other = await open();
  await held(backend, 1);
  const claim = { ...claimOf(2), lanes: ["default", "to come"] };
  const idle = backend.claimMany({
    ...claim,
    maxWaitMs: PARKED_MS + IDLE_MS,
  });
  // By then it is known what there is, and the servers know that it is listened.
  await pause(PARKED_MS);
  const before = await clusterCalls();

  expect((await idle).claimed).toEqual([]);
  expect((await clusterCalls()) - before).toBeLessThanOrEqual(
    (IDLE_MS / 1_000) * IDLE_CALLS_PER_SECOND,
  );

  const parked = backend.claimMany({ ...claim, maxWaitMs: 30_000 });
  await pause(300);
  const submittedAtMs = performance.now();
  // A cell that nobody has used before.
  const { executionId } = await other.createExecution({
    ...job,
    laneId: "to come",
  });
  expect((await parked).claimed).toMatchObject([{ executionId }]);
  expect(performance.now() - submittedAtMs).toBeLessThan(500);
});

test("a cell that gets its first work is driven as any other", async () => {
  const prefix = "first-work";
  const open = () =>
    valkeyBackend({ clusterNodes: clusterNodes(cluster.url), prefix });
  await using backend = await open();
  await using other = await open();
  await backend.claimMany({ ...claimOf(1), maxWaitMs: 1_000 });

  const parked = backend.claimMany({ ...claimOf(1), maxWaitMs: 5_000 });
  await pause(300);
  const submittedAtMs = performance.now();
  const { executionId } = await other.createExecution({
    ...job,
    laneId: "nobody's",
    policy: { timeoutPolicy: { executionDeadlineMs: 1_000 } },
  });
  let state: string | undefined;
  while (state !== "expired" && performance.now() - submittedAtMs < 10_000) {
    await pause(50);
    // Reads write nothing.
    state = (await other.describeExecution({ executionId }))?.publicState;
  }
  expect(performance.now() - submittedAtMs).toBeLessThan(2_500);
  expect(state).toBe("expired");
  await parked;
});

async function clusterCalls(): Promise<number> {
  let calls = 0;
  for (const node of cluster.servers) calls += await withClient(node, callsOf);
  return calls;
}

function openStore(name: string): Promise<EngineBackend> {
  return valkeyBackend({
    url: server.url,
    prefix: name.replaceAll(" ", "-"),
  });
}

const functionCalls = () => callsOf(observer);

/** By whomever, within functions as well. */
async function commands(): Promise<number> {
  const stats = await observer.info("commandstats");
  const counts = Array.from(
    stats.matchAll(/cmdstat_(\S+?):calls=(\d+)/g),
    ([, name, calls]) => (name === "info" ? 0 : Number(calls)),
  );
  return counts.reduce((sum, calls) => sum + calls, 0);
}

async function callsOf(client: Redis): Promise<number> {
  const stats = infoField(await client.info("commandstats"), "cmdstat_fcall");
  return Number(/calls=(\d+)/.exec(stats ?? "")?.[1] ?? 0);
}
