/** What is chosen when a store is opened. */
import { expect, test } from "vitest";

import {
  newPath,
  open,
  openRaw,
  openWithConnection,
  refusalOf,
} from "./files.js";

test("durability decides how often SQLite waits for the disk; full is the default", async () => {
  const synchronous = async (durability: "full" | "normal" | undefined) => {
    const { connection } = await openWithConnection({
      path: newPath(),
      durability,
    });
    return connection.pragma("synchronous", { simple: true });
  };

  expect(await synchronous(undefined)).toBe(2);
  expect(await synchronous("full")).toBe(2);
  expect(await synchronous("normal")).toBe(1);
});

test("the partition counts of the first opening stay", async () => {
  const path = newPath();
  const partitions = { flow: 16, budget: 4, quota: 8 };
  const first = await open({ path, partitions });
  expect(first.partitions).toMatchObject(partitions);
  const { executionId } = await first.createExecution({ executionKind: "x" });
  await first.close();

  const later = await open({ path });
  expect(later.partitions).toMatchObject(partitions);
  expect(await later.describeExecution({ executionId })).toMatchObject({
    executionId,
  });
  expect(
    await refusalOf(open({ path, partitions: { ...partitions, flow: 256 } })),
  ).toMatchObject({
    code: "invalid_input",
    detail: { field: "partitions" },
  });
  expect((await open({ path, partitions })).partitions).toMatchObject(
    partitions,
  );
});

test("an option that is wrong or unknown is refused before a file is made", async () => {
  const path = newPath();
  for (const options of [
    { path: "" },
    { path, durability: "sometimes" as never },
    { path, busyTimeoutMs: -1 },
    { path, partitions: { flow: 0, budget: 1, quota: 1 } },
    { path, bussyTimeoutMs: 1 } as { path: string },
  ])
    expect(await refusalOf(open(options))).toMatchObject({
      code: "invalid_input",
    });

  expect(() => openRaw(path, { fileMustExist: true })).toThrow(
    /unable to open/,
  );
});

test("a store in memory is one for its connection only, and serves without a file", async () => {
  const one = await open({ path: ":memory:" });
  const other = await open({ path: ":memory:" });
  const parked = one.claimMany({
    workerId: "worker",
    workerInstanceId: "worker-1",
    lanes: ["default"],
    max: 1,
    leaseTtlMs: 30_000,
    maxWaitMs: 5_000,
  });

  const { executionId } = await one.createExecution({ executionKind: "x" });

  expect((await parked).claimed).toMatchObject([{ executionId }]);
  expect((await other.listExecutions({})).executions).toEqual([]);
});

test("finished executions are kept as long as the store says, or as long as their policy says", async () => {
  const clock = { offsetMs: 0 };
  const path = newPath();
  const backend = await open({ path, clock, retentionMs: 60_000 });
  const end = async (retentionTtlMs?: number) => {
    const { executionId } = await backend.createExecution({
      executionKind: "x",
      policy:
        retentionTtlMs === undefined
          ? {}
          : { streamPolicy: { retentionTtlMs } },
    });
    await backend.cancelExecution({ executionId, reason: "over" });
    return executionId;
  };
  const short = await end(1_000);
  const usual = await end();
  const long = await end(120_000);
  const left = async () => (await backend.listExecutions({})).executions;

  clock.offsetMs += 1_000;
  await backend.sweep({ name: "retention_trimmer" });
  expect(await left()).toEqual([usual, long]);
  clock.offsetMs += 59_000;
  await backend.sweep({ name: "retention_trimmer" });
  expect(await left()).toEqual([long]);
  clock.offsetMs += 60_000;
  await backend.sweep({ name: "retention_trimmer" });
  expect(await left()).toEqual([]);
  expect(short).not.toBe(usual);
});
