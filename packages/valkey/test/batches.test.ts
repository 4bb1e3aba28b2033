/** Calls that are carried out together, and writes that the server puts off until many can be made: what becomes of each alone. */
import type { EngineBackend } from "@flowfabric/core";
import { executionIdForLane, parseExecutionId } from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import {
  infoField,
  openClient,
  removeKeys,
  startRestartableValkey,
} from "@flowfabric/valkey-testing";
import type { Redis } from "ioredis";
import { afterAll, afterEach, expect, inject, test } from "vitest";

import { newPrefix } from "./stores.js";

const url = inject("valkeyUrl");
const client = openClient(url) as Redis;
/** Has a key of its own. */
const LONG = Buffer.alloc(4_096, "long");

const opened: { backend: EngineBackend; prefix: string }[] = [];
async function open() {
  const prefix = newPrefix();
  const backend = await valkeyBackend({ url, prefix });
  opened.push({ backend, prefix });
  const keyOf = (executionId: string) => {
    const { uuid, partition } = parseExecutionId(executionId)!;
    const ref = Buffer.alloc(18);
    ref.write(uuid.replaceAll("-", ""), "hex");
    ref.writeUInt16BE(partition, 16);
    return Buffer.concat([Buffer.from(`${prefix}:{0}:x:`), ref]);
  };
  const spoil = (executionId: string) =>
    client.set(keyOf(executionId), "no record");
  const newId = () =>
    executionIdForLane("default", { partitions: backend.partitions });
  return { backend, spoil, newId };
}
afterEach(async () => {
  for (const { backend, prefix } of opened.splice(0)) {
    await backend.close();
    await removeKeys(client, prefix);
  }
});
afterAll(() => client.disconnect());

const job = { executionKind: "k", inputPayload: LONG };
const claimOf = (max: number) => ({
  workerId: "w",
  workerInstanceId: "w-1",
  lanes: ["default"],
  max,
  leaseTtlMs: 600_000,
});

test("submissions of one turn leave in two calls", async () => {
  // Its own, for it counts all that a server is called.
  const server = await startRestartableValkey({
    settings: { appendonly: "no" },
  });
  const observer = openClient(server.url) as Redis;
  try {
    await using backend = await valkeyBackend({ url: server.url });
    const calls = async () => {
      const stats = await observer.info("commandstats");
      return Number(
        /calls=(\d+)/.exec(infoField(stats, "cmdstat_fcall") ?? "")?.[1] ?? 0,
      );
    };
    await backend.createExecution(job);
    const before = await calls();

    const created = await Promise.all(
      Array.from({ length: 40 }, () => backend.createExecution(job)),
    );

    expect(new Set(created.map(({ kind }) => kind))).toEqual(
      new Set(["created"]),
    );
    expect((await calls()) - before).toBe(2);
  } finally {
    observer.disconnect();
    await server.stop();
  }
});

test("closing waits for what was submitted just before", async () => {
  const { backend } = await open();
  const submitted = backend.createExecution(job);
  await backend.close();
  expect(await submitted).toMatchObject({ kind: "created" });
});

test("of submissions that leave together, one whose id leads to what cannot be read fails alone", async () => {
  const { backend, spoil, newId } = await open();
  const ids = [newId(), newId(), newId()] as const;
  await spoil(ids[1]);

  const settled = await Promise.allSettled(
    ids.map((executionId) => backend.createExecution({ ...job, executionId })),
  );

  expect(settled).toMatchObject([
    { value: { kind: "created", executionId: ids[0] } },
    { reason: { code: "corruption" } },
    { value: { kind: "created", executionId: ids[2] } },
  ]);
  const items = [newId(), ids[1], newId()].map((executionId) => ({
    ...job,
    executionId,
  }));
  expect(
    await backend.submitMany({ items, atomicity: "perItem" }),
  ).toMatchObject([
    { kind: "created" },
    { kind: "rejected", code: "corruption" },
    { kind: "created" },
  ]);
});

test.each(["perItem", "allOrNothing"] as const)(
  "an item finds what one before it in the same call has brought: %s",
  async (atomicity) => {
    const { backend, newId } = await open();
    const executionId = newId();
    const other = { ...job, executionId, inputPayload: Buffer.alloc(4_096) };

    const results = await backend.submitMany({
      items: [{ ...job, executionId }, { ...job, executionId }, other],
      atomicity,
    });

    expect(results).toMatchObject([
      { kind: "created", executionId },
      { kind: "duplicate", executionId, mismatch: false },
      { kind: "duplicate", executionId, mismatch: true },
    ]);
    const { claimed } = await backend.claimMany(claimOf(2));
    expect(claimed).toHaveLength(1);
    expect(Buffer.from(claimed[0]!.context.inputPayload)).toEqual(LONG);
  },
);

test("more than one command of the server takes are written all the same", async () => {
  const { backend } = await open();
  const inputPayload = Buffer.alloc(129, "x");
  const items = Array.from({ length: 1_000 }, (_unused, n) => ({
    ...job,
    inputPayload,
    executionId: executionIdForLane("default", {
      partitions: backend.partitions,
      idempotencyKey: "all in one cell",
    }),
    creatorIdentity: `creator ${n}`,
  }));

  const results = await backend.submitMany({
    items,
    atomicity: "allOrNothing",
  });

  expect(results.every(({ kind }) => kind === "created")).toBe(true);
  let worked = 0;
  for (;;) {
    const { claimed } = await backend.claimMany(claimOf(100));
    if (claimed.length === 0) break;
    const ended = await backend.completeMany({
      items: claimed.map(({ handle }) => ({ handle })),
    });
    worked += ended.filter(({ kind }) => kind === "completed").length;
  }
  expect(worked).toBe(1_000);
});

test("what a call has ended before it fails stays ended", async () => {
  const { backend, spoil } = await open();
  await backend.submitMany({ items: [job, job, job] });
  const { claimed } = await backend.claimMany(claimOf(2));
  const [first, second] = claimed;
  await spoil(second!.executionId);

  await expect(
    backend.completeAndClaim({
      items: claimed.map(({ handle }) => ({ handle })),
      claim: claimOf(1),
    }),
  ).rejects.toMatchObject({ code: "corruption" });

  const state = await backend.readExecutionState({
    executionId: first!.executionId,
    namespace: "default",
  });
  expect(state).toBe("completed");
  // And from its index: nobody is offered it.
  const { claimed: rest } = await backend.claimMany(claimOf(3));
  expect(rest.map(({ executionId }) => executionId)).not.toContain(
    first!.executionId,
  );
});
