/** Other processes that hold the write lock: calls wait without stopping the event loop, or are refused whole. */
import { expect, test } from "vitest";

import {
  longestStall,
  newPath,
  open,
  pause,
  Peer,
  refusalOf,
  SCALE,
  tell,
} from "./files.js";

const STALL_MS_MAX = 200;

test("calls wait for another process's write lock, and the event loop goes on meanwhile", async () => {
  const path = newPath();
  const backend = await open({ path });
  const peer = new Peer();
  const lockMs = Math.max(1_000, 3_000 * SCALE);
  const read = await backend.createExecution({ executionKind: "read" });
  await peer.ask("lock", { path, ms: lockMs });
  const lockedAtMs = performance.now();

  const writes = Promise.all(
    Array.from({ length: 50 }, () =>
      backend.createExecution({ executionKind: "waits" }),
    ),
  );
  const stalls = longestStall(writes);
  // Readers need no lock.
  await backend.describeExecution({ executionId: read.executionId });
  expect(performance.now() - lockedAtMs).toBeLessThan(lockMs / 2);
  await writes;
  const waitedMs = performance.now() - lockedAtMs;

  tell(
    `waited ${waitedMs.toFixed(0)} ms for a lock of ${lockMs} ms; longest stall ${(await stalls).toFixed(1)} ms`,
  );
  expect(waitedMs).toBeGreaterThan(lockMs * 0.9);
  expect(await stalls).toBeLessThan(STALL_MS_MAX);
  const { executions } = await backend.listExecutions({});
  expect(executions).toHaveLength(51);
});

test("a lock held longer than busyTimeoutMs refuses what waits, and nothing of it is written", async () => {
  const path = newPath();
  const backend = await open({ path, busyTimeoutMs: 200 });
  const kept = await backend.createExecution({ executionKind: "kept" });
  const peer = new Peer();
  await peer.ask("lock", { path, ms: 1_000 });
  const startedAtMs = performance.now();

  const refused = await Promise.all(
    Array.from({ length: 10 }, () =>
      refusalOf(backend.createExecution({ executionKind: "refused" })),
    ),
  );

  expect(performance.now() - startedAtMs).toBeLessThan(1_000);
  for (const refusal of refused) {
    expect(refusal).toMatchObject({
      code: "retry_exhausted",
      kind: "Contention",
      retryable: true,
    });
  }
  const later = await retried(() =>
    backend.createExecution({ executionKind: "later" }),
  );
  expect((await backend.listExecutions({})).executions).toEqual([
    kept.executionId,
    later.executionId,
  ]);
});

test("a store opens while another process writes to it", async () => {
  const path = newPath();
  const first = await open({ path });
  await first.createExecution({ executionKind: "kept" });
  const peer = new Peer();
  await peer.ask("lock", { path, ms: 500 });

  const second = await open({ path });

  expect((await second.listExecutions({})).executions).toHaveLength(1);
});

test("a new store waits for whoever locks its file while it is made", async () => {
  const path = newPath();
  const peer = new Peer();
  await peer.ask("lock", { path, ms: 500 });
  const startedAtMs = performance.now();

  const opening = open({ path });
  const stall = longestStall(opening);
  const backend = await opening;

  expect(performance.now() - startedAtMs).toBeGreaterThan(400);
  expect(await stall).toBeLessThan(STALL_MS_MAX);
  await backend.createExecution({ executionKind: "first" });
});

test("closing waits for what was asked for before, also behind another process's lock", async () => {
  const path = newPath();
  const backend = await open({ path });
  const peer = new Peer();
  await peer.ask("lock", { path, ms: 300 });

  const submitted = backend.createExecution({ executionKind: "last" });
  await backend.close();

  const { executionId } = await submitted;
  const reopened = await open({ path });
  expect((await reopened.listExecutions({})).executions).toEqual([executionId]);
  expect(
    await refusalOf(backend.createExecution({ executionKind: "late" })),
  ).toMatchObject({ code: "unavailable", detail: { op: "shutdown" } });
});

async function retried<Answer>(call: () => Promise<Answer>): Promise<Answer> {
  for (let tries = 0; ; tries++) {
    try {
      return await call();
    } catch (error) {
      if (tries === 20) throw error;
      await pause(100);
    }
  }
}
