/** What the first boot fixes outlives a store that is emptied under its processes: they write it down again. */
import type { EngineBackend } from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import { openClient, removeKeys } from "@flowfabric/valkey-testing";
import { afterAll, afterEach, beforeEach, expect, inject, test } from "vitest";

const url = inject("valkeyUrl");
const prefix = `settings-${process.pid}`;
const partitions = { flow: 12, budget: 3, quota: 5 };
const client = openClient(url);
let backend: EngineBackend;
beforeEach(async () => {
  backend = await valkeyBackend({ url, prefix, cells: 3, partitions });
});
afterEach(async () => {
  await backend.close();
  await removeKeys(client, prefix);
});
afterAll(() => client.disconnect());

const job = { executionKind: "k" };
const claim = {
  workerId: "w",
  workerInstanceId: "w1",
  lanes: ["default"],
  max: 1,
  leaseTtlMs: 60_000,
};

async function expectAsMade(): Promise<void> {
  await expect(valkeyBackend({ url, prefix, cells: 4 })).rejects.toMatchObject({
    code: "invalid_input",
    detail: { field: "cells", reason: expect.stringContaining("cells 3") },
  });
  await expect(
    valkeyBackend({ url, prefix, partitions: { ...partitions, flow: 13 } }),
  ).rejects.toMatchObject({ detail: { field: "partitions" } });
  await using other = await valkeyBackend({ url, prefix });
  expect(other.partitions).toMatchObject(partitions);
}

const SIGNS = {
  "a submission": () => backend.createExecution(job),
  "many submissions": () => backend.submitMany({ items: [job, job] }),
  "a claim": () => backend.claimMany(claim),
};

test.each(Object.entries(SIGNS))(
  "after %s they are there again",
  async (_name, sign) => {
    await backend.createExecution(job);
    await backend.claimMany(claim);
    await removeKeys(client, prefix);

    await sign();

    await expectAsMade();
  },
);

test("a worker that waits has them written as soon as somebody brings work", async () => {
  await backend.createExecution(job);
  await backend.claimMany(claim);
  const parked = backend.claimMany({ ...claim, maxWaitMs: 30_000 });
  // The server knows that it listens.
  await new Promise((resolve) => setTimeout(resolve, 300));
  await using other = await valkeyBackend({ url, prefix });
  await removeKeys(client, prefix);

  await other.createExecution(job);

  expect((await parked).claimed).toHaveLength(1);
  await expectAsMade();
});

test("where somebody was there first with others, the process is told to open the store anew", async () => {
  await backend.createExecution(job);
  await backend.claimMany(claim);
  await removeKeys(client, prefix);
  await using other = await valkeyBackend({ url, prefix, cells: 4 });

  for (const call of [
    () => backend.createExecution(job),
    () => backend.claimMany(claim),
  ])
    await expect(call()).rejects.toMatchObject({
      code: "invalid_input",
      detail: {
        field: "cells",
        reason: expect.stringContaining("cells 4, not 3"),
      },
    });
  await other.createExecution(job);
});
