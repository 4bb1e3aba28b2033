/** What suspensions leave in the store: nothing for those that never wait, little for those that do, and nothing at the end. */
import type { EngineBackend, SuspendInput } from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import { openClient, removeKeys } from "@flowfabric/valkey-testing";
import type { Redis } from "ioredis";
import { afterAll, afterEach, expect, inject, test } from "vitest";

import { newPrefix } from "./stores.js";

const url = inject("valkeyUrl");
const client = openClient(url) as Redis;
/** What one that waits on a single waitpoint may take beside its record. */
const BYTES_MAX = 1_200;

const opened: { backend: EngineBackend; prefix: string }[] = [];
async function open() {
  const prefix = newPrefix();
  const backend = await valkeyBackend({ url, prefix, testClock: true });
  opened.push({ backend, prefix });
  await backend.seedWaitpointHmacSecret({
    kid: "k1",
    secretHex: "0f".repeat(32),
  });
  const base = `${prefix}:{0}`;
  const passTime = (ms: number) => client.hincrby(base, "clock", ms);
  /** Names of those that suspensions make, without the id in them. */
  const kept = async () =>
    (await client.keysBuffer(`${base}:*`))
      .map((key) => key.toString("latin1").slice(base.length + 1))
      .flatMap((name) => /^[wqu](?=:)|^p$/.exec(name) ?? [])
      .sort();
  return { backend, base, passTime, kept };
}
afterEach(async () => {
  for (const { backend, prefix } of opened.splice(0)) {
    await backend.close();
    await removeKeys(client, prefix);
  }
});
afterAll(() => client.disconnect());

async function running(backend: EngineBackend, policy: object = {}) {
  await backend.createExecution({ executionKind: "k", policy });
  const { claimed } = await backend.claimMany({
    workerId: "w",
    workerInstanceId: "w-1",
    lanes: ["default"],
    max: 1,
    leaseTtlMs: 600_000,
  });
  return claimed[0]!;
}

const countOfSources = {
  kind: "composite",
  body: {
    kind: "count",
    n: 2,
    countKind: "distinctSources",
    waitpoints: ["a"],
  },
} as const;

/** On one fresh waitpoint, with a pending one beside it and a signal that does not suffice. */
async function suspended(
  backend: EngineBackend,
  change: Partial<SuspendInput> = {},
  policy: object = {},
) {
  const { handle, executionId } = await running(backend, policy);
  await backend.createWaitpoint({
    handle,
    waitpointKey: "spare",
    expiresInMs: 600_000,
  });
  const { details } = await backend.suspend({
    handle,
    suspensionId: crypto.randomUUID(),
    waitpoints: [
      { kind: "fresh", waitpointId: crypto.randomUUID(), waitpointKey: "a" },
    ],
    resumeCondition: countOfSources,
    reasonCode: "waiting_for_signal",
    idempotencyKey: "once",
    ...change,
  });
  await backend.deliverSignal({
    executionId,
    waitpointId: details.waitpointId,
    waitpointToken: details.waitpointToken,
    signalId: crypto.randomUUID(),
    signalName: "go",
    idempotencyKey: "vote",
    payload: Buffer.alloc(1_000, 0xff),
  });
  return executionId;
}

test("an execution that never waited has nothing beside its record, and a purged one neither", async () => {
  const { backend, kept } = await open();
  const { handle } = await running(backend);
  await backend.complete({ handle });
  expect(await kept()).toEqual([]);

  const executionId = await suspended(
    backend,
    {},
    { streamPolicy: { retentionTtlMs: 0 } },
  );
  expect(await kept()).toEqual(["p", "q", "u", "w"]);
  await backend.cancelExecution({ executionId, reason: "r" });
  // Which source has counted is of no use any more, and no time is waited for.
  expect(await kept()).toEqual(["q", "w"]);
  await backend.trimRetention({});
  expect(await kept()).toEqual([]);
});

test("it resumes without what it waited with", async () => {
  const { backend, kept } = await open();
  const executionId = await suspended(backend);
  await backend.resumeExecution({ executionId });
  expect(await kept()).toEqual(["p", "q", "w"]);
});

test("the place and the timer of a suspended execution are built again", async () => {
  const { backend, base } = await open();
  const timeoutAtMs = (await backend.serverTimeMs()) + 90_000;
  await suspended(backend, { timeoutAtMs });
  const indexes = [`${base}:h:suspended`, `${base}:t`];
  const entries = () =>
    Promise.all(
      indexes.map((key) => client.zrangeBuffer(key, "0", "-1", "WITHSCORES")),
    );
  const before = await entries();
  expect(before.map((each) => each.length)).toEqual([2, 2]);
  await client.del(indexes);
  expect(await backend.reconcileExecutionIndex({})).toEqual({
    processed: 2,
    errors: 0,
  });
  expect(await entries()).toEqual(before);
  for (const key of indexes) {
    await client.zincrby(key, 7, before[0]![0]!);
    await client.zadd(key, 5, Buffer.alloc(18, 7));
  }
  await backend.reconcileExecutionIndex({});
  expect(await entries()).toEqual(before);
});

test("a suspension that cannot be read is told to be so, and holds no other up", async () => {
  const { backend, base, passTime } = await open();
  const timeoutAtMs = (await backend.serverTimeMs()) + 1_000;
  const broken = await suspended(backend, { timeoutAtMs });
  const [key] = await client.keysBuffer(`${base}:w:*`);
  await client.hset(key!, "s", "no suspension");
  await suspended(backend, { timeoutAtMs });
  await passTime(2_000);
  expect(await backend.sweep({ name: "suspension_timeout" })).toMatchObject({
    processed: 1,
  });
  await expect(
    backend.expireSuspension({ executionId: broken }),
  ).rejects.toMatchObject({ code: "corruption" });
});

test("one that waits takes little more", async () => {
  const { backend, base } = await open();
  const { handle } = await running(backend);
  await backend.suspend({
    handle,
    suspensionId: crypto.randomUUID(),
    waitpoints: [
      { kind: "fresh", waitpointId: crypto.randomUUID(), waitpointKey: "a" },
    ],
    resumeCondition: {
      kind: "single",
      waitpointKey: "a",
      matcher: { kind: "wildcard" },
    },
    reasonCode: "waiting_for_signal",
  });
  const [key] = await client.keysBuffer(`${base}:w:*`);
  const bytes = Number(await client.call("MEMORY", "USAGE", key!));
  console.log(`${bytes} bytes for each suspended execution`);
  expect(bytes).toBeLessThan(BYTES_MAX);
});
