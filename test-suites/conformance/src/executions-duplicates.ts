import { formatExecutionId, type CreateExecutionInput } from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes } from "./assertions.js";
import { bytes, completed, lane, submitted, uuid } from "./builders.js";
import { group } from "./harness.js";

const DAY_MS = 86_400_000;

/** What makes a repeated submission recognisable. */
export const duplicatesConformance = group("repeated submissions", (test) => {
  test("a repeated idempotency key answers the first execution and writes nothing", async ({
    backend,
  }) => {
    const laneId = lane();
    const input = {
      executionKind: "k",
      laneId,
      idempotencyKey: "order-1",
      inputPayload: bytes("a"),
      tags: { a: "1" },
    };
    const first = await backend.createExecution(input);
    const second = await backend.createExecution(input);

    expect(second).toEqual({
      kind: "duplicate",
      executionId: first.executionId,
      mismatch: false,
    });
    expect(await eventTypes(backend, first.executionId)).toEqual(["created"]);
    const { executions } = await backend.listExecutions({ lanes: [laneId] });
    expect(executions).toEqual([first.executionId]);
  });

  test("a key is one key, whatever partitions the callers' own ids lie in", async ({
    backend,
  }) => {
    const laneId = lane();
    const input = { executionKind: "k", laneId, idempotencyKey: "key" };
    const idIn = (partition: number) =>
      formatExecutionId(partition, uuid()) as never;

    const answers = await Promise.all(
      Array.from({ length: 8 }, (_unused, partition) =>
        backend.createExecution({ ...input, executionId: idIn(partition) }),
      ),
    );
    const [created, ...more] = answers.filter(({ kind }) => kind === "created");
    expect(more).toEqual([]);
    const { executionId } = created!;
    const later = [
      await backend.createExecution(input),
      ...(await backend.submitMany({
        items: [{ ...input, executionId: idIn(9) }, input],
      })),
    ];

    for (const answer of [...answers, ...later])
      expect(answer).toMatchObject({ executionId });
    const { executions } = await backend.listExecutions({ lanes: [laneId] });
    expect(executions).toEqual([executionId]);
  });

  test("a duplicate says when anything it asks for differs", async ({
    backend,
  }) => {
    const base = {
      executionKind: "k",
      laneId: lane(),
      idempotencyKey: "key",
      inputPayload: bytes("a"),
      tags: { a: "1" },
      policy: { maxReplayCount: 2 },
    };
    await backend.createExecution(base);
    const changes: Partial<CreateExecutionInput>[] = [
      { executionKind: "other" },
      { inputPayload: bytes("b") },
      { policy: { maxReplayCount: 3 } },
      { tags: { a: "2" } },
      { priority: 1 },
      { delayUntilMs: 1 },
      { executionDeadlineAtMs: 9_000_000_000_000 },
      { creatorIdentity: "me" },
    ];
    for (const change of changes) {
      expect(
        await backend.createExecution({ ...base, ...change }),
        JSON.stringify(change),
      ).toMatchObject({ kind: "duplicate", mismatch: true });
    }
    // The order of an object's fields asks for nothing else.
    expect(
      await backend.createExecution({
        ...base,
        policy: { maxReplayCount: 2 },
        tags: { a: "1" },
      }),
    ).toMatchObject({ mismatch: false });
  });

  test("a key counts within its namespace and lane", async ({ backend }) => {
    const input = {
      executionKind: "k",
      idempotencyKey: "key",
      namespace: "one",
      laneId: "lane-one",
    };
    const kinds = [];
    for (const scope of [
      {},
      { laneId: "lane-two" },
      { namespace: "two" },
      { namespace: "two" },
      {},
    ])
      kinds.push((await backend.createExecution({ ...input, ...scope })).kind);
    expect(kinds).toEqual([
      "created",
      "created",
      "created",
      "duplicate",
      "duplicate",
    ]);
  });

  test("a key is remembered for the policy's window, by default for a day", async ({
    backend,
    passTime,
  }) => {
    const submit = async (dedupWindowMs?: number) =>
      (
        await backend.createExecution({
          executionKind: "k",
          laneId: `window-${dedupWindowMs}`,
          idempotencyKey: "key",
          ...(dedupWindowMs === undefined ? {} : { policy: { dedupWindowMs } }),
        })
      ).kind;
    expect([await submit(), await submit(60_000), await submit(0)]).toEqual([
      "created",
      "created",
      "created",
    ]);
    expect([await submit(), await submit(60_000), await submit(0)]).toEqual([
      "duplicate",
      "duplicate",
      "created",
    ]);
    await passTime(60_000);
    expect([await submit(), await submit(60_000)]).toEqual([
      "duplicate",
      "created",
    ]);
    await passTime(DAY_MS - 60_000);
    expect(await submit()).toBe("created");
  });

  test("an empty key is no key", async ({ backend }) => {
    const input = { executionKind: "k", idempotencyKey: "" };
    await backend.createExecution(input);
    expect((await backend.createExecution(input)).kind).toBe("created");
  });

  test("an id that exists is a duplicate, whatever became of it", async ({
    backend,
  }) => {
    const { executionId, laneId } = await completed(backend);
    const input = { executionId, laneId, executionKind: "test" };
    expect(await backend.createExecution(input)).toEqual({
      kind: "duplicate",
      executionId,
      mismatch: false,
    });
    expect(
      await backend.createExecution({ ...input, executionKind: "other" }),
    ).toMatchObject({ kind: "duplicate", mismatch: true });
    expect(await backend.readExecutionState({ executionId })).toBe("completed");
  });

  test("a repeat is found before its policy is looked at", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    expect(
      await backend.createExecution({
        executionId,
        laneId,
        executionKind: "test",
        policy: { retryPolicy: "often" } as never,
      }),
    ).toEqual({ kind: "duplicate", executionId, mismatch: true });
  });

  test("a thousand submissions at once with one key make one execution", async (bench) => {
    const { backend } = bench;
    const second = await bench.reopen();
    const laneId = lane();
    const answers = await Promise.all(
      Array.from({ length: 1_000 }, (_unused, n) =>
        (n % 2 === 0 ? backend : second).createExecution({
          executionKind: "k",
          laneId,
          idempotencyKey: "once",
        }),
      ),
    );
    expect(answers.filter((answer) => answer.kind === "created")).toHaveLength(
      1,
    );
    expect(new Set(answers.map((answer) => answer.executionId)).size).toBe(1);
    const { executions } = await backend.listExecutions({ lanes: [laneId] });
    expect(executions).toHaveLength(1);
  });
});
