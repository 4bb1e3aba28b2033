/** What only this store has of streams: its keys, its channels, and what waiting costs the server. */
import { setTimeout as pause } from "node:timers/promises";

import type {
  ClaimedExecution,
  EngineBackend,
  Frame,
  StreamFrames,
} from "@flowfabric/core";
import { valkeyBackend, type ValkeyOptions } from "@flowfabric/valkey";
import {
  infoField,
  openClient,
  startRestartableValkey,
  type RestartableServer,
} from "@flowfabric/valkey-testing";
import type { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";

import { newPrefix } from "./stores.js";

// Its own, for it counts all that a server is called.
let server: RestartableServer;
let client: Redis;
beforeAll(async () => {
  server = await startRestartableValkey({ settings: { appendonly: "no" } });
  client = openClient(server.url) as Redis;
});
afterAll(async () => {
  client.disconnect();
  await server.stop();
});

const opened: EngineBackend[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((backend) => backend.close()));
});

async function open(prefix: string, options: Partial<ValkeyOptions> = {}) {
  const backend = await valkeyBackend({
    url: server.url,
    prefix,
    testClock: true,
    ...options,
  });
  opened.push(backend);
  return backend;
}

const baseOf = (prefix: string) => `${prefix}:{0}`;
const passTime = (prefix: string, ms: number) =>
  client.hincrby(baseOf(prefix), "clock", ms);

const LEASE_TTL_MS = 600_000;

async function running(
  backend: EngineBackend,
  policy: object = {},
): Promise<ClaimedExecution> {
  await backend.createExecution({ executionKind: "k", policy });
  const { claimed } = await backend.claimMany({
    workerId: "w",
    workerInstanceId: "w-1",
    lanes: ["default"],
    max: 1,
    leaseTtlMs: LEASE_TTL_MS,
  });
  return claimed[0]!;
}

const frame = (text: string, mode?: Frame["mode"]): Frame => ({
  bytes: Buffer.from(text),
  ...(mode === undefined ? {} : { mode }),
});
const PATCH = { kind: "durableSummary", patchKind: "jsonMergePatch" } as const;
const LIVE = { kind: "bestEffortLive", ttlMs: 60_000 } as const;

const tail = (
  backend: EngineBackend,
  { executionId, attemptIndex }: ClaimedExecution,
  more: { blockMs?: number; signal?: AbortSignal; after?: string } = {},
): Promise<StreamFrames> =>
  backend.tailStream({
    executionId,
    attemptIndex,
    after: "0-0",
    countLimit: 10,
    blockMs: 20_000,
    ...more,
  });

async function keysOf(prefix: string, family: string): Promise<string[]> {
  const keys = await client.keysBuffer(`${baseOf(prefix)}:${family}:*`);
  return keys.map((key) => key.toString("latin1"));
}

async function callsOf(command: string): Promise<number> {
  const stats = infoField(
    await client.info("commandstats"),
    `cmdstat_${command}`,
  );
  return Number(/calls=(\d+)/.exec(stats ?? "calls=0")![1]);
}

test("an execution that puts nothing out has no keys for it, and what is purged leaves none", async () => {
  const prefix = newPrefix();
  const backend = await open(prefix);
  const policy = { streamPolicy: { retentionTtlMs: 1_000 } };
  const silent = await running(backend, policy);
  expect(await keysOf(prefix, "s")).toEqual([]);
  const loud = await running(backend, {
    ...policy,
    retryPolicy: { maxRetries: 3, backoff: { type: "fixed", delayMs: 0 } },
  });
  const all = [frame("a"), frame("{}", PATCH), frame("b", LIVE)];
  await backend.appendFrames({ handle: loud.handle, frames: all });
  await backend.fail({
    handle: loud.handle,
    reason: { message: "once more" },
    classification: "transient",
  });
  const { claimed } = await backend.claimMany({
    workerId: "w",
    workerInstanceId: "w-1",
    lanes: ["default"],
    max: 1,
    leaseTtlMs: LEASE_TTL_MS,
  });
  const { handle } = claimed[0]!;
  await backend.appendFrames({ handle, frames: all });
  expect(await keysOf(prefix, "s")).toHaveLength(1);
  expect(await keysOf(prefix, "f")).toHaveLength(6);
  // They are no index, and no record that would lack one.
  expect(await backend.reconcileExecutionIndex({})).toEqual({
    processed: 0,
    errors: 0,
  });

  await backend.completeMany({
    items: [{ handle }, { handle: silent.handle }],
  });
  await passTime(prefix, 1_000);
  expect(await backend.sweep({ name: "retention_trimmer" })).toMatchObject({
    processed: 2,
    more: false,
  });
  for (const family of ["s", "f", "x", "d"])
    expect(await keysOf(prefix, family), family).toEqual([]);
});

test("what a purge by an older version left of streams is found, and nothing else goes", async () => {
  const prefix = newPrefix();
  const backend = await open(prefix);
  const claims: ClaimedExecution[] = [];
  for (let n = 0; n < 20; n++) {
    const claimed = await running(backend);
    claims.push(claimed);
    await backend.appendFrames({
      handle: claimed.handle,
      frames: [frame("a"), frame("b", LIVE)],
    });
  }
  const records = await client.keysBuffer(`${baseOf(prefix)}:x:*`);
  await client.del(...records.slice(0, 5));
  const found = await backend.reconcileExecutionIndex({});
  // Of each its streams, the frames of two modes, and the places in the list of all and among held leases.
  expect(found).toEqual({ processed: 5 * 5, errors: 0 });
  expect(await keysOf(prefix, "s")).toHaveLength(15);
  expect(await keysOf(prefix, "f")).toHaveLength(30);
  expect(await backend.reconcileExecutionIndex({})).toEqual({
    processed: 0,
    errors: 0,
  });
});

test("a summary or stream that cannot be read is told, and stays as it is", async () => {
  const prefix = newPrefix();
  const backend = await open(prefix);
  const claimed = await running(backend);
  const { handle } = claimed;
  const append = (one: Frame) => backend.appendFrame({ handle, frame: one });
  await append(frame('{"a":1}', PATCH));
  const [key] = (await client.keysBuffer(`${baseOf(prefix)}:s:*`)) as [Buffer];
  for (const document of ["{", "[]", "", Buffer.from([0x7b, 0xff])]) {
    await client.hset(key, "0d", document);
    for (const call of [
      () => append(frame('{"b":1}', PATCH)),
      () => backend.readSummary(claimed),
    ])
      await expect(call()).rejects.toMatchObject({
        code: "corruption",
        detail: { context: "summary" },
      });
    expect(await client.hgetBuffer(key, "0d")).toEqual(Buffer.from(document));
  }
  // Whoever had stored something else is merged into.
  await client.hset(key, "0d", '{"else":[]}');
  await append(frame('{"b":1}', PATCH));
  const { documentJson } = (await backend.readSummary(claimed))!;
  expect(Buffer.from(documentJson).toString()).toBe('{"else":[],"b":1}');
  await append(frame("x"));

  await client.hset(key, "0", "no stream");
  for (const call of [
    () => append(frame("y")),
    () => backend.readStream({ ...claimed, countLimit: 1 }),
  ])
    await expect(call()).rejects.toMatchObject({ code: "corruption" });
  expect(await client.hget(key, "0")).toBe("no stream");
});

test("patches of several calls at once keep their order, and so does what comes behind them", async () => {
  const backend = await open(newPrefix());
  const claimed = await running(backend);
  const { handle } = claimed;
  const texts = Array.from({ length: 60 }, (_unused, n) =>
    n % 3 === 2 ? `${n}` : `{"n":${n},"k${n % 7}":${n}}`,
  );
  const answers = await Promise.all(
    texts.map((text, n) =>
      backend.appendFrame({
        handle,
        frame: frame(text, n % 3 === 2 ? undefined : PATCH),
      }),
    ),
  );
  expect(answers.map(({ frameCount }) => frameCount)).toEqual(
    texts.map((_text, n) => n + 1),
  );
  const page = await backend.readStream({ ...claimed, countLimit: 100 });
  expect(
    page.frames.map(({ payload }) => Buffer.from(payload).toString()),
  ).toEqual(texts);
  const { version } = (await backend.readSummary(claimed))!;
  expect(version).toBe(40);
});

test("a process lets so many tails wait and no more", async () => {
  const backend = await open(newPrefix(), { parkedTailsMax: 3 });
  const claimed = await running(backend);
  const abort = new AbortController();
  const { signal } = abort;
  const waiting = [1, 2, 3].map(() => tail(backend, claimed, { signal }));
  await pause(100);
  await expect(tail(backend, claimed)).rejects.toMatchObject({
    code: "resource_exhausted",
    detail: { pool: "stream_ops", max: 3 },
  });
  // Neither reads nor looks without waiting count.
  await backend.readStream({ ...claimed, countLimit: 1 });
  await tail(backend, claimed, { blockMs: 0 });
  abort.abort();
  await Promise.all(waiting);
  const again = tail(backend, claimed);
  await backend.complete({ handle: claimed.handle });
  expect((await again).closedReason).toBe("attempt_success");
});

test("so many reads are under way at once; looks of tails wait for their turn and leave some room", async () => {
  const backend = await open(newPrefix());
  const claimed = await running(backend);
  const read = () => backend.readStream({ ...claimed, countLimit: 1 });
  const looks = Array.from({ length: 500 }, () =>
    tail(backend, claimed, { blockMs: 0 }),
  );
  const reads = await Promise.allSettled(Array.from({ length: 20 }, read));
  expect(reads.filter(({ status }) => status === "fulfilled")).toHaveLength(16);
  expect(reads.at(-1)).toMatchObject({
    reason: {
      code: "resource_exhausted",
      detail: { pool: "stream_ops", max: 64 },
    },
  });
  await Promise.all(looks);
  await Promise.all(Array.from({ length: 64 }, read));
});

test("without push, or with it broken, a tail hears within about a second all the same", async () => {
  const prefix = newPrefix();
  const writer = await open(prefix);
  for (const broken of [false, true]) {
    const reader = await open(prefix, { push: broken });
    const claimed = await running(writer);
    const waiting = tail(reader, claimed);
    await pause(300);
    // Until it listens again, nobody tells it.
    if (broken) await client.call("CLIENT", "KILL", "TYPE", "pubsub");
    const startedAtMs = performance.now();
    await writer.appendFrame({ handle: claimed.handle, frame: frame("x") });
    expect((await waiting).frames).toHaveLength(1);
    expect(performance.now() - startedAtMs).toBeLessThan(2_500);
  }
});

test("any number of parked tails cost one call a second, and nothing is looked at for what others put out", async () => {
  const prefix = newPrefix();
  const backend = await open(prefix);
  const claims: ClaimedExecution[] = [];
  for (let n = 0; n < 200; n++) claims.push(await running(backend));
  const loud = await running(backend);
  const abort = new AbortController();
  const waiting = claims.map((claimed) =>
    tail(backend, claimed, { signal: abort.signal }),
  );
  await pause(1_500);

  const before = await callsOf("fcall");
  const seconds = 3;
  for (let n = 0; n < 30; n++) {
    await backend.appendFrame({ handle: loud.handle, frame: frame("x") });
    await pause((seconds * 1_000) / 30);
  }
  const calls = (await callsOf("fcall")) - before - 30;
  expect(calls).toBeGreaterThanOrEqual(seconds - 1);
  expect(calls).toBeLessThanOrEqual(seconds + 1);
  abort.abort();
  await Promise.all(waiting);
});

test("channels that nobody waits for are given up, and come back", async () => {
  const prefix = newPrefix();
  const backend = await open(prefix);
  const claimed = await running(backend);
  const channels = async () =>
    (await client.pubsub("CHANNELS", `${baseOf(prefix)}!stream:*`)) as string[];
  for (let round = 0; round < 2; round++) {
    const abort = new AbortController();
    const waiting = tail(backend, claimed, { signal: abort.signal });
    await pause(200);
    expect(await channels()).toHaveLength(1);
    abort.abort();
    await waiting;
    // A reader comes back to where it was.
    expect(await channels()).toHaveLength(1);
    await pause(2_500);
    expect(await channels()).toEqual([]);
  }
  const waiting = tail(backend, claimed);
  await pause(200);
  const startedAtMs = performance.now();
  await backend.complete({ handle: claimed.handle });
  expect((await waiting).closedReason).toBe("attempt_success");
  expect(performance.now() - startedAtMs).toBeLessThan(500);
});

test("at the memory limit frames are refused whole, and what ends goes on", async () => {
  const backend = await open(newPrefix());
  const claimed = await running(backend);
  const { handle } = claimed;
  await backend.appendFrame({ handle, frame: frame("x") });
  await client.config("SET", "maxmemory", "1mb");
  try {
    await expect(
      backend.appendFrames({ handle, frames: [frame("y"), frame("z")] }),
    ).rejects.toMatchObject({
      code: "transport",
      detail: { message: expect.stringContaining("memory limit") as unknown },
    });
    const page = await backend.readStream({ ...claimed, countLimit: 10 });
    expect(page.frames).toHaveLength(1);
    const waiting = tail(backend, claimed, { after: page.nextCursor });
    await backend.complete({ handle });
    expect((await waiting).closedReason).toBe("attempt_success");
  } finally {
    await client.config("SET", "maxmemory", "0");
  }
});
