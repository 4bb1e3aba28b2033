/** What time brings about where there is much of it, and where the keys are not as the library left them. */
import { EARLIEST, type EngineBackend } from "@flowfabric/core";
import { valkeyBackend, type ValkeyOptions } from "@flowfabric/valkey";
import { openClient, removeKeys } from "@flowfabric/valkey-testing";
import type { Redis } from "ioredis";
import { afterAll, afterEach, expect, inject, test } from "vitest";

import { newPrefix } from "./stores.js";

const url = inject("valkeyUrl");
const client = openClient(url) as Redis;
const HOUR_MS = 3_600_000;
const worker = {
  workerId: "w",
  workerInstanceId: "w1",
  lanes: ["default"],
  max: 100,
  leaseTtlMs: 10_000,
};

const opened: { backend: EngineBackend; prefix: string }[] = [];

async function open(options: Partial<ValkeyOptions> = {}) {
  const prefix = newPrefix();
  const backend = await valkeyBackend({
    ...options,
    url,
    prefix,
    testClock: true,
  });
  opened.push({ backend, prefix });
  const base = `${prefix}:{0}`;
  const passTime = (ms: number) => client.hincrby(base, "clock", ms);
  return { backend, base, passTime };
}

afterEach(async () => {
  for (const { backend, prefix } of opened.splice(0)) {
    await backend.close();
    await removeKeys(client, prefix);
  }
});
afterAll(() => client.disconnect());

async function submitMany(
  backend: EngineBackend,
  count: number,
  input: object = {},
): Promise<void> {
  for (let left = count; left > 0; left -= 1_000)
    await backend.submitMany({
      items: Array.from({ length: Math.min(left, 1_000) }, () => ({
        executionKind: "k",
        ...input,
      })),
      atomicity: "perItem",
    });
}

async function claimAll(backend: EngineBackend): Promise<void> {
  while ((await backend.claimMany(worker)).claimed.length > 0);
}

/** Names of keys have bytes in them that are no text. */
async function keysOf(base: string): Promise<Buffer[]> {
  const keys: Buffer[] = [];
  let cursor = "0";
  do {
    const [next, page] = await client.scanBuffer(
      cursor,
      "MATCH",
      `${base}:*`,
      "COUNT",
      1_000,
    );
    keys.push(...page);
    cursor = next.toString();
  } while (cursor !== "0");
  return keys;
}

const named = (base: string, pattern: RegExp) => (key: Buffer) =>
  pattern.test(key.toString("latin1").slice(base.length));

async function indexesOf(base: string): Promise<Buffer[]> {
  return (await keysOf(base))
    .filter(named(base, /^:(h:|g:|t$|all$)/))
    .sort((a, b) => Buffer.compare(a, b));
}

async function entriesOf(indexes: readonly Buffer[]) {
  return await Promise.all(
    indexes.map(
      (key) =>
        client.callBuffer("ZRANGE", key, 0, -1, "WITHSCORES") as Promise<
          Buffer[]
        >,
    ),
  );
}

/** Something in every index. */
async function fill(backend: EngineBackend): Promise<void> {
  await submitMany(backend, 150, {
    tags: { a: "1", b: "x y" },
    executionDeadlineAtMs: Date.now() + HOUR_MS,
  });
  await submitMany(backend, 50, { delayUntilMs: Date.now() + 2 * HOUR_MS });
  const { claimed } = await backend.claimMany({ ...worker, max: 50 });
  for (const { handle } of claimed.slice(0, 20))
    await backend.complete({ handle });
  for (const { executionId } of claimed.slice(20, 30))
    await backend.revokeLease({ executionId, reason: "r", hold: true });
  await backend.claimForWorker({
    ...worker,
    laneId: "default",
    grantTtlMs: 60_000,
  });
}

test("lost indexes are built again from the records, entry by entry as they were", async () => {
  const { backend, base } = await open();
  await fill(backend);
  const indexes = await indexesOf(base);
  const before = await entriesOf(indexes);
  const count = before.flat(2).length / 2;
  for (const key of indexes) await client.del(key);

  expect(await backend.reconcileExecutionIndex({})).toEqual({
    processed: count,
    errors: 0,
  });
  expect(await entriesOf(await indexesOf(base))).toEqual(before);
  expect(await backend.reconcileExecutionIndex({})).toEqual({
    processed: 0,
    errors: 0,
  });
});

test("entries that lead nowhere go, wrong ones are set right, a portion at a time", async () => {
  const { backend, base } = await open();
  await fill(backend);
  const indexes = await indexesOf(base);
  const before = await entriesOf(indexes);
  for (const key of indexes) {
    const [first] = await client.zrangeBuffer(key, "0", "0");
    await client.zincrby(key, 3, first!);
    await client.zadd(key, 5, Buffer.alloc(18, 7));
  }

  let processed = 0;
  for (let rounds = 0; rounds < 2; rounds++)
    for (;;) {
      const portion = await backend.sweep({
        name: "index_reconciler",
        limit: 5,
      });
      processed += portion.processed;
      if (!portion.more) break;
    }
  expect(processed).toBe(2 * indexes.length);
  expect(await entriesOf(indexes)).toEqual(before);
});

test("records that cannot be read are counted, and hold nothing else up", async () => {
  const { backend, base, passTime } = await open();
  await submitMany(backend, 50, {
    executionDeadlineAtMs: Date.now() + HOUR_MS,
  });
  const records = (await keysOf(base)).filter(named(base, /^:x:/));
  await client.set(records[0]!, "");
  await client.set(records[1]!, "no record");
  await client.del(records[2]!);
  await client.hset(records[2]!, "of", "another kind");
  expect(await backend.reconcileExecutionIndex({})).toEqual({
    processed: 0,
    errors: 3,
  });

  await passTime(HOUR_MS + 1_000);
  await backend.claimMany({ ...worker, lanes: ["another"] });
  expect(await client.zcard(`${base}:h:1:end`)).toBe(47);
  await passTime(24 * HOUR_MS);
  expect(await backend.trimRetention({})).toBe(47);
});

test("a purged execution leaves no key behind", async () => {
  const { backend, base, passTime } = await open();
  const payload = Buffer.alloc(1_000);
  await backend.createExecution({
    executionKind: "k",
    inputPayload: payload,
    idempotencyKey: "key",
    tags: { a: "1" },
    policy: {
      retryPolicy: { maxRetries: 30, backoff: { type: "fixed", delayMs: 0 } },
    },
  });
  // Long enough a history to lie beside the record.
  for (let n = 0; n < 20; n++) {
    const { claimed } = await backend.claimMany(worker);
    const { handle } = claimed[0]!;
    if (n === 19) await backend.complete({ handle, payload });
    else
      await backend.fail({
        handle,
        reason: { message: "no" },
        classification: "transient",
      });
  }
  await passTime(24 * HOUR_MS);
  expect(await backend.trimRetention({})).toBe(1);
  const left = (await keysOf(base)).filter(
    named(base, /^:([xdirvkghtgwqu]:|[tp]$|all$)/),
  );
  expect(left.map(String)).toEqual([]);
});

test("feeds keep so many events and so long, to the event", async () => {
  const { backend, base, passTime } = await open({
    feedEventsMax: 100,
    feedRetentionMs: 60_000,
  });
  const trim = () => backend.sweep({ name: "event_trimmer" });
  await submitMany(backend, 80);
  const { claimed } = await backend.claimMany({ ...worker, max: 80 });
  for (const { handle } of claimed) await backend.complete({ handle });
  const feed = await backend.subscribeCompletion({ cursor: EARLIEST });
  const reader = feed[Symbol.asyncIterator]();
  const first = (await reader.next()).value!;

  expect(await trim()).toMatchObject({ processed: 1, more: false });
  expect(await client.xlen(`${base}:e`)).toBe(100);
  expect(await trim()).toMatchObject({ processed: 0, more: false });
  // Claims went first, so that all ends but none of what came before are among the last hundred.
  await backend.subscribeCompletion({ cursor: first.cursor });
  await passTime(59_000);
  expect(await trim()).toMatchObject({ processed: 0 });
  await passTime(1_000);
  expect(await trim()).toMatchObject({ processed: 1, more: false });
  expect(await client.xlen(`${base}:e`)).toBe(0);
  await expect(
    backend.subscribeCompletion({ cursor: first.cursor }),
  ).rejects.toMatchObject({ code: "cursor_expired" });
  await reader.return?.();
});

test("lost work that is held hides none behind it", async () => {
  const { backend, passTime } = await open();
  await submitMany(backend, 300);
  for (let n = 0; n < 3; n++)
    for (const { executionId } of (await backend.claimMany(worker)).claimed)
      await backend.revokeLease({ executionId, reason: "r", hold: true });
  await submitMany(backend, 1, { delayUntilMs: Date.now() + 1_000 });
  await passTime(1_000);
  const { claimed, nextDueInMs } = await backend.claimMany(worker);
  expect(claimed).toHaveLength(1);
  expect(nextDueInMs).toBe(worker.leaseTtlMs);
});

test("sweeps get behind any number of lost executions that wait to be claimed", async () => {
  const { backend, passTime } = await open();
  await submitMany(backend, 2_500);
  await claimAll(backend);
  await submitMany(backend, 500, { delayUntilMs: Date.now() + 20_000 });
  await passTime(30_000);
  const sweep = async (name: "lease_expiry" | "delayed_promoter") => {
    let processed = 0;
    for (let calls = 1; ; calls++) {
      const portion = await backend.sweep({ name, limit: 1_000 });
      processed += portion.processed;
      expect(calls).toBeLessThan(10);
      if (!portion.more) return processed;
    }
  };
  expect(await sweep("lease_expiry")).toBe(2_500);
  expect(await sweep("delayed_promoter")).toBe(500);
  expect(await sweep("delayed_promoter")).toBe(0);
});

test("one parked claim brings all that has fallen due to its end, whatever its lanes", async () => {
  const { backend, passTime } = await open();
  await submitMany(backend, 600);
  await claimAll(backend);
  await submitMany(backend, 300, { delayUntilMs: Date.now() + 20_000 });
  await submitMany(backend, 300, {
    laneId: "late",
    executionDeadlineAtMs: Date.now() + 20_000,
  });
  await passTime(30_000);
  // Behind the last portion of the claims above.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const giveUp = new AbortController();
  const parked = backend.claimMany({
    ...worker,
    lanes: ["another"],
    maxWaitMs: 30_000,
    signal: giveUp.signal,
  });
  const left = async () => {
    const { processed } = await backend.sweep({
      name: "lease_expiry",
      limit: 1,
    });
    return processed;
  };
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  giveUp.abort();
  await parked;
  expect(await left()).toBe(0);
  for (const name of ["delayed_promoter", "execution_deadline"] as const)
    expect(await backend.sweep({ name }), name).toMatchObject({ processed: 0 });
});

test("workers are listed and forgotten in pages, however many namespaces an instance lives in", async () => {
  const { backend, base, passTime } = await open();
  const register = (workerInstanceId: string, namespace: string) =>
    backend.registerWorker({
      workerId: "w",
      workerInstanceId,
      namespace,
      lanes: ["l"],
      livenessTtlMs: 60_000,
    });
  const ids = Array.from({ length: 250 }, (_unused, n) => `i${1_000 + n}`);
  for (const [n, id] of ids.entries()) await register(id, `n${n % 2}`);
  for (const namespace of ["n1", "n2"]) await register(ids[6]!, namespace);
  const seen: string[] = [];
  let after: string | undefined;
  do {
    const page = await backend.listWorkers({ after, limit: 7 });
    seen.push(...page.entries.map((entry) => entry.workerInstanceId));
    after = page.nextCursor;
  } while (after !== undefined);
  expect(seen).toEqual([...ids.slice(0, 6), ids[6], ids[6], ...ids.slice(6)]);
  expect(await backend.listWorkers({ namespace: "n1", limit: 126 })).toEqual({
    entries: expect.objectContaining({ length: 126 }),
  });

  await passTime(60_000);
  let forgotten = 0;
  for (;;) {
    const portion = await backend.sweep({ name: "worker_registry_ttl_sweep" });
    forgotten += portion.processed;
    if (!portion.more) break;
  }
  expect(forgotten).toBe(252);
  expect(await client.exists(`${base}:workers`, `${base}:instances`)).toBe(0);
});
