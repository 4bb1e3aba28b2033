/** What only this store has of streams: its tables, its ceiling, and tails without push. */
import {
  isEngineError,
  type ClaimedExecution,
  type EngineBackend,
} from "@flowfabric/core";
import { expect, test } from "vitest";

import { newPath, open, openRaw, pause } from "./files.js";

const worker = { workerId: "w", workerInstanceId: "w-1" };

async function running(
  backend: EngineBackend,
  policy: object = {},
  leaseTtlMs = 60_000,
): Promise<ClaimedExecution> {
  await backend.createExecution({ executionKind: "k", policy });
  const { claimed } = await backend.claimMany({
    ...worker,
    lanes: ["default"],
    max: 1,
    leaseTtlMs,
  });
  return claimed[0]!;
}

const tail = (
  backend: EngineBackend,
  { executionId, attemptIndex }: ClaimedExecution,
  more: { blockMs?: number; signal?: AbortSignal } = {},
) =>
  backend.tailStream({
    executionId,
    attemptIndex,
    after: "0-0",
    countLimit: 10,
    blockMs: 10_000,
    ...more,
  });

test("a process lets so many tails wait and no more", async () => {
  const backend = await open({ path: newPath(), parkedTailsMax: 3 });
  const claimed = await running(backend);
  const abort = new AbortController();
  const { signal } = abort;
  const waiting = [1, 2, 3].map(() => tail(backend, claimed, { signal }));
  await expect(tail(backend, claimed)).rejects.toSatisfy(
    (error) =>
      isEngineError(error, "resource_exhausted") &&
      error.detail.pool === "stream_ops" &&
      error.detail.max === 3 &&
      error.detail.retryAfterMs! > 0,
  );
  // Neither reads nor looks without waiting count.
  await backend.readStream({ ...claimed, countLimit: 1 });
  await tail(backend, claimed, { blockMs: 0 });
  abort.abort();
  await Promise.all(waiting);
  const again = tail(backend, claimed);
  await backend.complete({ handle: claimed.handle });
  expect((await again).closedReason).toBe("attempt_success");
});

test("without push a tail hears of other connections within a moment all the same", async () => {
  const path = newPath();
  const writer = await open({ path });
  const reader = await open({ path, push: false });
  const claimed = await running(writer);
  const waiting = tail(reader, claimed);
  await new Promise((resolve) => setTimeout(resolve, 50));
  const startedAt = performance.now();
  await writer.appendFrame({
    handle: claimed.handle,
    frame: { bytes: Buffer.from("x") },
  });
  expect((await waiting).frames).toHaveLength(1);
  expect(performance.now() - startedAt).toBeLessThan(2_500);
});

test("a lapse closes a stream only behind the append that came before it", async () => {
  const path = newPath();
  const backend = await open({ path });
  const claimed = await running(backend, {}, 300);
  const { executionId, attemptIndex, handle } = claimed;
  await backend.appendFrame({ handle, frame: { bytes: Buffer.from("x") } });
  // As an append of another process that took its time: it has seen a live lease, and has the write lock.
  const slow = openRaw(path);
  slow.exec(`
    BEGIN IMMEDIATE;
    INSERT INTO frames (seq, attempt, mode, ms, n, frame_type, payload)
    SELECT seq, attempt, 0, last_ms + 1, 0, 'event', CAST('y' AS BLOB) FROM streams;
    UPDATE streams SET last_ms = last_ms + 1, frame_count = 2, durable = 2`);
  await pause(400);
  const read = () =>
    backend.readStream({ executionId, attemptIndex, countLimit: 10 });
  let answered = false;
  const reading = [read(), tail(backend, claimed, { blockMs: 0 })];
  for (const one of reading) void one.finally(() => (answered = true));
  await pause(200);
  expect(answered).toBe(false);
  slow.exec("COMMIT");
  for (const page of await Promise.all([...reading, read()])) {
    expect(page.closedReason).toBe("lease_expired");
    expect(
      page.frames.map(({ payload }) => Buffer.from(payload).toString()),
    ).toEqual(["x", "y"]);
  }
});

test("a summary that cannot be read is told, and stays as it is", async () => {
  const path = newPath();
  const backend = await open({ path });
  const { handle, ...claimed } = await running(backend);
  const frame = {
    bytes: Buffer.from('{"a":1}'),
    mode: { kind: "durableSummary", patchKind: "jsonMergePatch" },
  } as const;
  await backend.appendFrame({ handle, frame });
  const raw = openRaw(path);
  for (const document of ["{", "[]", ""]) {
    raw.prepare("UPDATE summaries SET document = ?").run(document);
    for (const call of [
      backend.readSummary(claimed),
      backend.appendFrame({ handle, frame }),
    ])
      await expect(call).rejects.toMatchObject({
        code: "corruption",
        detail: { context: "summary" },
      });
    expect(raw.prepare("SELECT document FROM summaries").pluck().get()).toBe(
      document,
    );
  }
  await backend.appendFrame({ handle, frame: { bytes: Buffer.from("x") } });
});

test("the frames of what is purged go in portions, and nothing is left", async () => {
  const path = newPath();
  const clock = { offsetMs: 0 };
  const backend = await open({ path, clock, durability: "normal" });
  const raw = openRaw(path);
  const rows = (table: string) =>
    raw.prepare(`SELECT count(*) FROM ${table}`).pluck().get() as number;
  const policy = { streamPolicy: { retentionTtlMs: 1_000 } };
  const silent = await running(backend, policy);
  const { handle } = await running(backend, policy);
  const frames = Array.from({ length: 750 }, () => ({
    bytes: Buffer.from("{}"),
    mode: { kind: "durable" } as const,
  }));
  for (let call = 0; call < 2; call++)
    await backend.appendFrames({ handle, frames });
  await backend.completeMany({
    items: [{ handle }, { handle: silent.handle }],
  });
  clock.offsetMs += 1_000;

  const sweep = () => backend.sweep({ name: "retention_trimmer" });
  expect((await sweep()).more).toBe(true);
  expect([rows("executions"), rows("streams"), rows("frames")]).toEqual([
    0, 0, 500,
  ]);
  expect(await sweep()).toMatchObject({ processed: 0, more: false });
  expect([rows("frames"), rows("stale_frames")]).toEqual([0, 0]);
});
