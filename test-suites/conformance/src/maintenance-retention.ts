import type { EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import {
  bytes,
  completed,
  failed,
  HOUR_MS,
  lane,
  MINUTE_MS,
  running,
  submitted,
} from "./builders.js";
import { group } from "./harness.js";

const DAY_MS = 24 * HOUR_MS;

/** How long what has ended is kept. */
export const retentionConformance = group("retention", (test) => {
  const sweep = async (backend: EngineBackend) => {
    while ((await backend.sweep({ name: "retention_trimmer" })).more);
  };
  const exists = async (backend: EngineBackend, ref: { executionId: string }) =>
    (await backend.readExecutionState(ref)) !== undefined;

  test("what has ended is kept for a day, what has not for ever", async ({
    backend,
    passTime,
  }) => {
    const done = await completed(backend, {}, bytes("x"));
    const broken = await failed(backend);
    const waiting = await submitted(backend);
    await passTime(DAY_MS - MINUTE_MS);
    await sweep(backend);
    expect(await exists(backend, done)).toBe(true);
    await passTime(MINUTE_MS);
    await sweep(backend);
    expect(await exists(backend, done)).toBe(false);
    expect(await exists(backend, broken)).toBe(false);
    expect(await exists(backend, waiting)).toBe(true);
  });

  test("an execution's own time wins, shorter or longer, and hides no other", async ({
    backend,
    passTime,
  }) => {
    const keep = (retentionTtlMs: number) =>
      completed(backend, { policy: { streamPolicy: { retentionTtlMs } } });
    const long = await keep(7 * DAY_MS);
    const short = await keep(MINUTE_MS);
    const usual = await completed(backend);
    await passTime(MINUTE_MS);
    await sweep(backend);
    expect([
      await exists(backend, short),
      await exists(backend, usual),
      await exists(backend, long),
    ]).toEqual([false, true, true]);
    await passTime(DAY_MS);
    await sweep(backend);
    expect([await exists(backend, usual), await exists(backend, long)]).toEqual(
      [false, true],
    );
    await passTime(6 * DAY_MS);
    await sweep(backend);
    expect(await exists(backend, long)).toBe(false);
  });

  test("nothing of a purged execution is left", async ({
    backend,
    passTime,
  }) => {
    const laneId = lane();
    const input = {
      laneId,
      namespace: "shop",
      idempotencyKey: "key",
      tags: { a: "1" },
      // Remembered longer than the execution itself is kept.
      policy: { dedupWindowMs: 30 * DAY_MS },
    };
    const done = await completed(backend, input, bytes("x"));
    const ref = { executionId: done.executionId };
    await passTime(DAY_MS);
    await sweep(backend);

    expect(await backend.describeExecution(ref)).toBeUndefined();
    expect(await backend.getExecutionResult(ref)).toBeUndefined();
    expect(await backend.listAttempts(ref)).toEqual([]);
    expect(await backend.readEvents(ref)).toEqual({ events: [] });
    expect(await backend.listExecutions({ namespace: "shop" })).toEqual({
      executions: [],
    });
    const match = { all: [{ key: "a", value: "1" }] };
    expect(await backend.countByTags({ match })).toBe(0);
    await expectRefused(
      backend.readExecutionContext(ref),
      "execution_not_found",
    );
    await expectRefused(
      backend.complete({ handle: done.handle }),
      "execution_not_found",
    );
    // Key and id are free again.
    const again = await backend.createExecution({
      executionKind: "k",
      ...input,
      executionId: done.executionId,
    });
    expect(again.kind).toBe("created");
    expect(await backend.reconcileExecutionIndex({})).toEqual({
      processed: 0,
      errors: 0,
    });
  });

  test("trimming can be narrowed to a lane, a time and a number", async ({
    backend,
    passTime,
  }) => {
    const [a, b] = [lane(), lane()];
    for (let n = 0; n < 3; n++) await completed(backend, { laneId: a });
    const other = await completed(backend, { laneId: b });
    await running(backend, { laneId: a });
    await passTime(HOUR_MS);
    const trim = (retentionMs: number, batchSize = 100) =>
      backend.trimRetention({ laneId: a, retentionMs, batchSize });
    expect(await trim(2 * HOUR_MS)).toBe(0);
    expect(await trim(HOUR_MS, 2)).toBe(2);
    expect(await trim(HOUR_MS, 2)).toBe(1);
    expect(await trim(HOUR_MS, 2)).toBe(0);
    expect(await exists(backend, other)).toBe(true);
    const { executions } = await backend.listExecutions({ lanes: [a] });
    expect(executions).toHaveLength(1);
    for (const batchSize of [0, 1_001])
      await expectRefused(trim(0, batchSize), "invalid_input");
  });

  test("what is replayed is not trimmed for its earlier end", async ({
    backend,
    passTime,
  }) => {
    const done = await completed(backend);
    await backend.replayExecution(done);
    await passTime(2 * DAY_MS);
    await sweep(backend);
    expect(await exists(backend, done)).toBe(true);
  });

  test("feeds tell of an end after its execution is gone", async ({
    backend,
    passTime,
  }) => {
    const feed = await backend.subscribeCompletion({});
    const policy = { streamPolicy: { retentionTtlMs: 1_000 } };
    const { executionId } = await completed(backend, {
      policy,
      tags: { a: "1" },
    });
    await passTime(1_000);
    await sweep(backend);
    expect(await exists(backend, { executionId })).toBe(false);
    for await (const event of feed) {
      expect(event).toMatchObject({ executionId, tags: { a: "1" } });
      break;
    }
  });
});
