import { isEngineError } from "@flowfabric/core";
import { expect, test } from "vitest";
import { z } from "zod";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import { defineExecution } from "../src/definition.js";
import { openStore, pause, withFaults } from "./store.js";

const Sum = defineExecution({
  kind: "sum",
  input: z.array(z.number()),
  output: z.object({ total: z.number().transform(String) }),
});

async function open() {
  const store = await openStore();
  const faults = withFaults(store.backend);
  return { ...store, faults, client: new Client(faults) };
}

test("completed: the output side of the validator, and when", async () => {
  const { backend, client } = await open();
  await using conn = await connect({ backend });
  const { executionId } = await client.submit(Sum, { input: [1, 2] });
  await (await conn.claimNext())?.complete(Sum, { total: 3 });

  const end = await client.result(Sum, { executionId });

  expect(end).toEqual({
    kind: "completed",
    output: { total: "3" },
    completedAtMs: expect.closeTo(Date.now(), -5) as number,
  });
  const untyped = await client.result({ executionId });
  expect(
    untyped.kind === "completed" && new TextDecoder().decode(untyped.output),
  ).toBe('{"total":3}');
});

test("no result, an empty result and every byte come back as they went", async () => {
  const { backend, client } = await open();
  await using conn = await connect({ backend });
  const all = Uint8Array.from({ length: 256 }, (_, index) => index);
  const outputs = [undefined, new Uint8Array(), all];

  for (const output of outputs) {
    const { executionId } = await client.submit({ executionKind: "raw" });
    await (await conn.claimNext())?.complete(output);
    const end = await client.result({ executionId });
    if (end.kind !== "completed") expect.unreachable(end.kind);
    expect(end.output && [...end.output]).toEqual(output && [...output]);
  }
});

test("failed, cancelled and expired tell why", async () => {
  const { backend, client, passTime } = await open();
  await using conn = await connect({ backend, maxConcurrentTasks: 9 });
  const submit = () => client.submit(Sum, { input: [] });

  const failed = await submit();
  await (await conn.claimNext())?.fail({ reason: "no", category: "permanent" });
  const cancelled = await submit();
  await client.cancel({ executionId: cancelled.executionId, reason: "late" });
  const expired = await client.submit(Sum, {
    input: [],
    executionDeadlineAtMs: Date.now() + 5_000,
  });
  passTime(6_000);

  expect(await client.result(Sum, failed)).toEqual({
    kind: "failed",
    reason: "no",
    category: "permanent",
  });
  expect(await client.result(Sum, cancelled)).toEqual({
    kind: "cancelled",
    reason: "late",
  });
  // Claims drive the engine.
  const query = { executionId: expired.executionId, timeoutMs: 300 };
  let end = await client.result(Sum, query);
  while (end.kind === "pending") {
    await conn.claimNext();
    end = await client.result(Sum, query);
  }
  expect(end).toEqual({ kind: "expired", reason: "execution_deadline" });
});

test("pending when the time is up; zero reads once", async () => {
  const { client, faults } = await open();
  const { executionId } = await client.submit(Sum, { input: [] });

  expect(await client.result(Sum, { executionId, timeoutMs: 50 })).toEqual({
    kind: "pending",
    publicState: "waiting",
  });
  faults.clear();
  expect(await client.result(Sum, { executionId, timeoutMs: 0 })).toEqual({
    kind: "pending",
    publicState: "waiting",
  });
  expect(faults.calls()).toEqual(["readExecutionInfo"]);
});

test("an unknown execution is an error, not a wait", async () => {
  const { client } = await open();

  await expect(
    client.result({
      executionId: "{fp:0}:01900000-0000-7000-8000-000000000000",
    }),
  ).rejects.toSatisfy((e) => isEngineError(e, "execution_not_found"));
});

test("an output that does not fit its definition is an error at result", async () => {
  const { backend, client } = await open();
  await using conn = await connect({ backend });
  const { executionId } = await client.submit(Sum, { input: [] });
  await (await conn.claimNext())?.complete({ total: "not a number" });

  await expect(client.result(Sum, { executionId })).rejects.toMatchObject({
    code: "payload_decode",
    detail: { at: "result" },
  });
});

test("woken by push well before the next re-read", async () => {
  const { backend, client } = await open();
  await using conn = await connect({ backend });
  const { executionId } = await client.submit(Sum, { input: [] });
  const task = await conn.claimNext();
  const waiting = client.result(Sum, { executionId });
  await pause(50);

  const completedAt = performance.now();
  await task?.complete(Sum, { total: 0 });
  await waiting;

  expect(performance.now() - completedAt).toBeLessThan(900);
});

test("with the feed cut, the re-read of each second finds it", async () => {
  const { backend, client, faults } = await open();
  await using conn = await connect({ backend });
  faults.loseCalls("subscribeCompletion", Infinity);
  const { executionId } = await client.submit(Sum, { input: [] });
  const waiting = client.result(Sum, { executionId });
  await pause(50);

  await (await conn.claimNext())?.complete(Sum, { total: 0 });

  expect(await waiting).toMatchObject({ kind: "completed" });
});

test("a thousand waiters share one feed", async () => {
  const { backend, client, faults } = await open();
  await using conn = await connect({ backend });
  const { executionId } = await client.submit(Sum, { input: [] });
  const waiting = Array.from({ length: 1_000 }, () =>
    client.result(Sum, { executionId }),
  );
  await pause(100);

  await (await conn.claimNext())?.complete(Sum, { total: 7 });
  const ends = await Promise.all(waiting);

  expect(new Set(ends.map(({ kind }) => kind))).toEqual(new Set(["completed"]));
  expect(faults.callsOf("subscribeCompletion")).toHaveLength(1);
});

test("aborting ends the wait with the signal's reason", async () => {
  const { client } = await open();
  const { executionId } = await client.submit(Sum, { input: [] });
  const abort = new AbortController();
  const waiting = client.result(Sum, { executionId }, abort);
  await pause(20);

  abort.abort(new Error("enough"));

  await expect(waiting).rejects.toThrow("enough");
});

test("disposing the client ends its waits", async () => {
  const { client } = await open();
  const { executionId } = await client.submit(Sum, { input: [] });
  const waiting = client.result(Sum, { executionId });
  const refused = expect(waiting).rejects.toSatisfy((e) =>
    isEngineError(e, "unavailable"),
  );
  await pause(20);

  await client[Symbol.asyncDispose]();

  await refused;
});

test("while waiting, a store out of reach is asked again", async () => {
  const { backend, client, faults } = await open();
  await using conn = await connect({ backend });
  const { executionId } = await client.submit(Sum, { input: [] });
  const waiting = client.result(Sum, { executionId, timeoutMs: 20_000 });
  await pause(20);
  faults.loseCalls("readExecutionInfo", 2);

  await (await conn.claimNext())?.complete(Sum, { total: 1 });

  expect(await waiting).toMatchObject({ kind: "completed" });
});
