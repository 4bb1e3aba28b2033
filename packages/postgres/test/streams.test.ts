/** What only this store has of streams: its tables, its ceilings, and how tails hear of other processes. */
import {
  isEngineError,
  type ClaimedExecution,
  type EngineBackend,
  type Frame,
} from "@flowfabric/core";
import { recordingPool } from "@flowfabric/postgres-testing";
import { expect, onTestFinished, test } from "vitest";

import {
  claim,
  connect,
  newSchema,
  open,
  pause,
  query,
  refusalOf,
  SLACK,
  url,
} from "./stores.js";

const bytes = Buffer.from("x");

async function running(
  backend: EngineBackend,
  { policy = {}, leaseTtlMs = 60_000 } = {},
): Promise<ClaimedExecution> {
  await backend.createExecution({ executionKind: "k", policy });
  const { claimed } = await backend.claimMany({ ...claim, leaseTtlMs });
  return claimed[0]!;
}

const tail = (
  backend: EngineBackend,
  { executionId, attemptIndex }: ClaimedExecution,
  more: { after?: string; blockMs?: number; signal?: AbortSignal } = {},
) =>
  backend.tailStream({
    executionId,
    attemptIndex,
    after: "0-0",
    countLimit: 10,
    blockMs: 20_000,
    ...more,
  });

async function took(call: Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await call;
  return performance.now() - startedAt;
}

test("a process lets so many tails wait and no more", async () => {
  const backend = await open({ schema: newSchema(), parkedTailsMax: 3 });
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

test("so many plain reads are under way at once and no more", async () => {
  const backend = await open({ schema: newSchema() });
  const { executionId, attemptIndex } = await running(backend);
  const reads = Array.from({ length: 65 }, () =>
    backend.readStream({ executionId, attemptIndex, countLimit: 1 }),
  );
  const refusal = await refusalOf(reads.at(-1)!);
  expect(refusal).toMatchObject({
    code: "resource_exhausted",
    detail: { pool: "stream_ops", max: 64 },
  });
  await Promise.all(reads.slice(0, -1));
  await backend.readStream({ executionId, attemptIndex, countLimit: 1 });
});

test("calls of one handler that do not wait for each other keep their order and share trips", async () => {
  const log = recordingPool({ connectionString: url, max: 2 });
  onTestFinished(() => log.pool.end());
  const backend = await open({ schema: newSchema(), pool: log.pool });
  const { handle, ...stream } = await running(backend);
  const append = (seq: number, more: Partial<Frame> = {}) =>
    backend.appendFrame({
      handle,
      frame: { bytes: Buffer.from(`${seq}`), seq, ...more },
    });
  await append(0);
  log.take();
  const calls = Array.from({ length: 100 }, (_one, n) => append(n + 1));
  const counts = (await Promise.all(calls)).map(({ frameCount }) => frameCount);
  expect(counts).toEqual(calls.map((_one, n) => n + 2));
  expect(log.take().length).toBeLessThanOrEqual(2);

  // One that is refused fails alone, and those behind it come behind those before it.
  const mode = { kind: "durableSummary", patchKind: "jsonMergePatch" } as const;
  const mixed = Array.from({ length: 9 }, (_one, n) =>
    append(200 + n, n === 4 ? { mode, bytes: Buffer.from("no patch") } : {}),
  );
  const outcomes = await Promise.allSettled(mixed);
  expect(outcomes.map(({ status }) => status === "fulfilled")).toEqual(
    mixed.map((_one, n) => n !== 4),
  );
  const { frames } = await backend.readStream({
    executionId: stream.executionId,
    attemptIndex: stream.attemptIndex,
    countLimit: 1_000,
  });
  expect(frames.map(({ payload }) => Number(Buffer.from(payload)))).toEqual([
    ...Array.from({ length: 101 }, (_one, n) => n),
    ...[200, 201, 202, 203, 205, 206, 207, 208],
  ]);
});

test("tails wait without a connection, and look only when their own stream has news", async () => {
  const schema = newSchema();
  const writer = await open({ schema });
  const log = recordingPool({ connectionString: url, max: 2 });
  onTestFinished(() => log.pool.end());
  const reader = await open({ schema, pool: log.pool });
  const claimed = await running(writer);
  const others: ClaimedExecution[] = [];
  for (let n = 0; n < 100; n++) others.push(await running(writer));
  const busy = await running(writer);
  const abort = new AbortController();
  const { signal } = abort;
  const waiting = others.map((one) => tail(reader, one, { signal }));
  const mine = tail(reader, claimed);
  const ending = tail(reader, others.at(-1)!);
  const looksOf = (text: string) =>
    log.take().filter((sent) => sent.text.includes(text)).length;
  // Beyond the looks that come with sitting down.
  await pause(500);
  log.take();
  expect(log.pool.totalCount - log.pool.idleCount).toBe(0);

  for (let n = 0; n < 20; n++) {
    await writer.appendFrame({ handle: busy.handle, frame: { bytes } });
    const other = await running(writer);
    await writer.complete({ handle: other.handle });
  }
  expect(looksOf("row_to_json")).toBe(0);

  expect(
    await took(
      writer
        .appendFrame({ handle: claimed.handle, frame: { bytes } })
        .then(() => mine),
    ),
  ).toBeLessThan(50 * SLACK);
  expect(looksOf("row_to_json")).toBe(1);
  expect(
    await took(
      writer.complete({ handle: others.at(-1)!.handle }).then(() => ending),
    ),
  ).toBeLessThan(50 * SLACK);
  expect((await ending).closedReason).toBe("attempt_success");
  abort.abort();
  await Promise.all(waiting);
});

test("without push a tail hears of other connections within a moment all the same", async () => {
  const schema = newSchema();
  const writer = await open({ schema });
  const reader = await open({ schema, push: false });
  const claimed = await running(writer);
  for (const append of [true, false]) {
    const { nextCursor: after } = await tail(reader, claimed, { blockMs: 0 });
    const waiting = tail(reader, claimed, { after });
    await pause(50);
    const told = append
      ? writer.appendFrame({ handle: claimed.handle, frame: { bytes } })
      : writer.complete({ handle: claimed.handle });
    expect(await took(told.then(() => waiting))).toBeLessThan(1_000 * 5);
    const page = await waiting;
    if (append) expect(page.frames).toHaveLength(1);
    else expect(page.closedReason).toBe("attempt_success");
  }
});

test("a tail outlives the connection by which it would hear", async () => {
  const schema = newSchema();
  const writer = await open({ schema });
  const reader = await open({ schema });
  const claimed = await running(writer);
  const waiting = tail(reader, claimed);
  await pause(300);
  const killed = await query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'flowfabric-listen' AND query LIKE '%' || $1 || '%'`,
    [schema],
  );
  expect(killed.length).toBeGreaterThan(0);
  await writer.appendFrame({ handle: claimed.handle, frame: { bytes } });
  expect(await took(waiting)).toBeLessThan(1_000 * 5);
  expect((await waiting).frames).toHaveLength(1);
});

test("a lapse closes a stream only behind the append that came before it, and no reader waits for that", async () => {
  const schema = newSchema();
  const backend = await open({ schema });
  const claimed = await running(backend, { leaseTtlMs: 300 });
  const { executionId, attemptIndex } = claimed;
  await backend.appendFrame({ handle: claimed.handle, frame: { bytes } });
  // As an append does that took its time: it has seen a live lease, and has the record's lock.
  const slow = await connect();
  await slow.query("BEGIN");
  await slow.query(`SELECT 1 FROM "${schema}".executions FOR NO KEY UPDATE`);
  await slow.query(`
    INSERT INTO "${schema}".frames (seq, attempt, mode, ms, n, frame_type, payload)
    SELECT seq, attempt, 0, last_ms + 1, 0, 'event', 'y' FROM "${schema}".streams`);
  await slow.query(
    `UPDATE "${schema}".streams SET last_ms = last_ms + 1, frame_count = 2, durable = 2`,
  );
  await pause(400);
  const read = () =>
    backend.readStream({ executionId, attemptIndex, countLimit: 10 });
  const texts = ({ frames }: Awaited<ReturnType<typeof read>>) =>
    frames.map(({ payload }) => payload.toString());
  const startedAt = performance.now();
  const early = await read();
  expect(performance.now() - startedAt).toBeLessThan(2_000);
  expect(texts(early)).toEqual(["x"]);
  expect(early).not.toHaveProperty("closedAtMs");
  expect(early).not.toHaveProperty("closedReason");
  const { nextCursor: after } = early;
  expect(await tail(backend, claimed, { after, blockMs: 0 })).toEqual({
    ...early,
    frames: [],
  });

  await slow.query("COMMIT");
  const late = await read();
  expect(late.closedReason).toBe("lease_expired");
  expect(texts(late)).toEqual(["x", "y"]);
});

test("a tail hears of a lapse though whoever has the record's lock lets go of it without a word", async () => {
  const schema = newSchema();
  const backend = await open({ schema });
  const claimed = await running(backend, { leaseTtlMs: 300 });
  const holder = await connect();
  await holder.query("BEGIN");
  await holder.query(`SELECT 1 FROM "${schema}".executions FOR NO KEY UPDATE`);
  let ended = false;
  const waiting = tail(backend, claimed).finally(() => (ended = true));
  await pause(1_000);
  expect(ended).toBe(false);

  expect(await took(holder.query("ROLLBACK").then(() => waiting))).toBeLessThan(
    1_000 * 5,
  );
  expect((await waiting).closedReason).toBe("lease_expired");
});

test("a summary that cannot be read is told, and stays as it is", async () => {
  const schema = newSchema();
  const backend = await open({ schema });
  const { handle, ...claimed } = await running(backend);
  const frame = {
    bytes: Buffer.from('{"a":1}'),
    mode: { kind: "durableSummary", patchKind: "jsonMergePatch" },
  } as const;
  await backend.appendFrame({ handle, frame });
  // One that has not written it would have to read it first.
  const other = await open({ schema });
  for (const document of ["{", "[]", ""]) {
    await query(`UPDATE "${schema}".summaries SET document = $1`, [document]);
    for (const call of [
      backend.readSummary(claimed),
      other.appendFrame({ handle, frame }),
    ])
      await expect(call).rejects.toMatchObject({
        code: "corruption",
        detail: { context: "summary" },
      });
    expect(await query(`SELECT document FROM "${schema}".summaries`)).toEqual([
      { document },
    ]);
  }
  await backend.appendFrame({ handle, frame: { bytes } });
});

test("the frames of what is purged go in portions, and nothing is left", async () => {
  const schema = newSchema();
  const backend = await open({ schema });
  const rows = async (table: string) =>
    Number(
      (
        await query<{ count: string }>(
          `SELECT count(*) FROM "${schema}".${table}`,
        )
      )[0]!.count,
    );
  const policy = { streamPolicy: { retentionTtlMs: 1 } };
  const silent = await running(backend, { policy });
  const { handle } = await running(backend, { policy });
  const frames = Array.from({ length: 750 }, () => ({ bytes }));
  for (let call = 0; call < 2; call++)
    await backend.appendFrames({ handle, frames });
  await backend.completeMany({
    items: [{ handle }, { handle: silent.handle }],
  });
  await pause(20);

  const sweep = () => backend.sweep({ name: "retention_trimmer" });
  expect((await sweep()).more).toBe(true);
  expect([
    await rows("executions"),
    await rows("streams"),
    await rows("frames"),
  ]).toEqual([0, 0, 500]);
  expect(await sweep()).toMatchObject({ processed: 0, more: false });
  expect([await rows("frames"), await rows("stale_frames")]).toEqual([0, 0]);
});

test("names of those who waited once do not pile up", async () => {
  const schema = newSchema();
  const backend = await open({ schema });
  const claimed = await running(backend);
  await tail(backend, claimed, { blockMs: 50 });
  expect(await query(`SELECT lane FROM "${schema}".waiters`)).not.toEqual([]);
  await query(`UPDATE "${schema}".waiters SET until = 1`);
  await backend.sweep({ name: "worker_registry_ttl_sweep" });
  expect(await query(`SELECT lane FROM "${schema}".waiters`)).toEqual([]);
});
