import { engineError, isEngineError } from "@flowfabric/core";
import { expect, test } from "vitest";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import type { StreamEvent, StreamQuery } from "../src/stream-reader.js";
import { when } from "../src/when.js";
import { Worker } from "../src/worker.js";
import {
  openStore,
  pause,
  recordingLogger,
  until,
  withFaults,
} from "./store.js";

const policy = {
  retryPolicy: { maxRetries: 3, backoff: { type: "fixed", delayMs: 0 } },
} as const;

async function opened() {
  const store = await openStore();
  const faults = withFaults(store.backend);
  const logger = recordingLogger();
  const client = new Client({ backend: faults.backend, logger });
  const conn = await connect({
    backend: faults.backend,
    maxConcurrentTasks: 4,
    logger,
  });
  const submit = async (more: object = {}) =>
    await client.submit({ executionKind: "job", policy, ...more });
  return { ...store, faults, logger, client, conn, submit };
}

/** With one claimed task. */
async function claimed() {
  const opening = await opened();
  const { executionId } = await opening.submit();
  const task = (await opening.conn.claimNext())!;
  opening.faults.clear();
  return { ...opening, executionId, task };
}

/** Frames as their text, everything else by its kind. */
function shown(event: StreamEvent): string {
  if (event.kind === "frame") return `${event.attemptIndex}/${event.text}`;
  if (event.kind === "gap") return `${event.attemptIndex}/(gap)`;
  return `${event.attemptIndex}/(${event.reason})`;
}

/** Reads in the background. */
function collect(client: Client, query: StreamQuery, signal?: AbortSignal) {
  const events: StreamEvent[] = [];
  const done = (async () => {
    for await (const event of client.stream(query, { signal }))
      events.push(event);
  })();
  return { events, done, texts: () => events.map(shown) };
}

test("a task writes text, JSON, bytes and patches", async () => {
  const { task, executionId, client } = await claimed();
  const binary = Uint8Array.from({ length: 256 }, (_one, n) => n);

  const first = await task.stream.write("grün 🦀", {
    frameType: "delta",
    metadata: "m-1",
  });
  await task.stream.json({ a: [1, null] }, { frameType: "log" });
  await task.stream.write(binary, { kind: "blob" });
  const patched = await task.stream.patch({ step: 1 });
  await task.stream.write("live", {
    mode: { kind: "bestEffortLive", ttlMs: 5_000 },
  });
  await task.complete();

  expect(first).toMatchObject({ frameCount: 1 });
  expect(patched).toMatchObject({ frameCount: 4, summaryVersion: 1 });
  const { events, done } = collect(client, { executionId });
  await done;
  const [text, json, bytes, patch, live] = events.filter(
    (event) => event.kind === "frame",
  );
  expect(text).toMatchObject({
    text: "grün 🦀",
    frameType: "delta",
    metadata: "m-1",
    mode: "durable",
    isText: true,
    id: first.streamId,
  });
  expect(json!.json()).toEqual({ a: [1, null] });
  expect(Buffer.from(bytes!.payload).equals(Buffer.from(binary))).toBe(true);
  expect(bytes).toMatchObject({ frameType: "blob", isText: false });
  expect(patch).toMatchObject({ mode: "summary", text: '{"step":1}' });
  expect(live).toMatchObject({ mode: "best_effort" });
  expect(events[5]).toMatchObject({ kind: "end", reason: "attempt_success" });
  const summary = await client.admin.readSummary({
    executionId,
    attemptIndex: 0,
  });
  expect(Buffer.from(summary!.documentJson).toString()).toBe('{"step":1}');
});

test("what is written in one tick goes in one trip, in order", async () => {
  const { task, executionId, faults, client } = await claimed();

  const writes = Array.from({ length: 500 }, (_one, n) =>
    task.stream.write(`${n}`),
  );
  await task.complete();

  const appended = await Promise.all(writes);
  expect(appended.map(({ frameCount }) => frameCount)).toEqual(
    Array.from({ length: 500 }, (_one, n) => n + 1),
  );
  expect(faults.callsOf("appendFrames")).toHaveLength(1);
  const { texts, done } = collect(client, { executionId });
  await done;
  expect(texts()).toEqual([
    ...Array.from({ length: 500 }, (_one, n) => `0/${n}`),
    "0/(attempt_success)",
  ]);
});

test("while a call is on its way the next one gathers, and order is kept", async () => {
  const { task, executionId, faults, client } = await claimed();
  for (let n = 0; n < 50; n++) {
    void task.stream.write(`${n}`);
    if (n % 3 === 0) await pause(1);
    else await new Promise((resolve) => setImmediate(resolve));
  }
  await task.stream.flush();
  const calls = faults.callsOf("appendFrames").length;
  expect(calls).toBeGreaterThan(1);
  expect(calls).toBeLessThanOrEqual(50);
  const controller = new AbortController();
  const reading = collect(client, { executionId }, controller.signal);
  await until(() => reading.events.length === 50);
  expect(reading.texts()).toEqual(
    Array.from({ length: 50 }, (_one, n) => `0/${n}`),
  );
  controller.abort();
  await reading.done;
});

test("a lost reply adds nothing", async () => {
  const { task, executionId, faults, client } = await claimed();
  faults.loseReplies("appendFrames", 2);
  const writes = ["a", "b", "c"].map((text) => task.stream.write(text));
  expect((await Promise.all(writes)).map((one) => one.frameCount)).toEqual([
    1, 2, 3,
  ]);
  faults.loseCalls("appendFrames", 1);
  await task.stream.write("d");
  await task.complete();
  const { texts, done } = collect(client, { executionId });
  await done;
  expect(texts()).toEqual(["0/a", "0/b", "0/c", "0/d", "0/(attempt_success)"]);
});

test("a frame that cannot be kept takes no other with it", async () => {
  const { task, executionId, client } = await claimed();
  const big = { filler: "x".repeat(60_000) };
  const writes = [
    task.stream.write("before"),
    task.stream.write(new Uint8Array(65_537)),
    task.stream.json(undefined),
    task.stream.patch([] as object),
    // Each of them fits; together the document does not.
    ...Array.from({ length: 18 }, (_one, n) =>
      task.stream.patch({ [`part${n}`]: big }),
    ),
    task.stream.write("after"),
  ];
  const settled = await Promise.allSettled(writes);
  const codes = settled.map((one) =>
    one.status === "fulfilled" ? "ok" : (one.reason as { code: string }).code,
  );
  expect(codes).toEqual([
    "ok",
    "retention_limit_exceeded",
    "config",
    "invalid_input",
    ...Array.from({ length: 17 }, () => "ok"),
    "retention_limit_exceeded",
    "ok",
  ]);
  await expect(task.stream.flush()).rejects.toMatchObject({
    code: "retention_limit_exceeded",
  });
  await task.stream.flush();
  await task.complete();
  const { texts, done } = collect(client, { executionId });
  await done;
  expect(texts()[0]).toBe("0/before");
  expect(texts().at(-2)).toBe("0/after");
  expect(texts()).toHaveLength(20);
});

test("frames have bounds, and nothing at all is a frame", async () => {
  const { task, executionId, client } = await claimed();
  await task.stream.write("");
  await task.stream.write(new Uint8Array(65_536));
  await expect(task.stream.write(new Uint8Array(65_537))).rejects.toMatchObject(
    { detail: { maxBytes: 65_536 } },
  );
  await task.complete();
  const { events, done } = collect(client, { executionId });
  await done;
  expect(
    events.map((event) => (event.kind === "frame" ? event.payload.length : -1)),
  ).toEqual([0, 65_536, -1]);
});

test("pages and waits have bounds, told before anything is sent", async () => {
  const { executionId, client, faults } = await claimed();
  const ref = { executionId, attemptIndex: 0 };
  const tail = { ...ref, countLimit: 1, blockMs: 0, after: "0-0" };
  const refused = [
    ...[0, 10_001, 1.5].map(
      (countLimit) => ["count_limit", { ...tail, countLimit }] as const,
    ),
    ...[-1, 30_001].map(
      (blockMs) => ["block_ms", { ...tail, blockMs }] as const,
    ),
    ...["start", "end", "", "-", "+", "1-", "a-b", " 1-1"].map(
      (after) => ["after", { ...tail, after }] as const,
    ),
  ];
  for (const [field, query] of refused)
    await expect(client.admin.tailStream(query)).rejects.toMatchObject({
      code: "config",
      detail: { context: "tail_stream", field },
    });
  for (const countLimit of [0, 10_001])
    await expect(
      client.admin.readStream({ ...ref, countLimit }),
    ).rejects.toMatchObject({
      detail: { context: "read_stream", field: "count_limit" },
    });
  expect(faults.calls()).toEqual([]);

  for (const after of ["0-0", "5", "5-3"])
    expect(await client.admin.tailStream({ ...tail, after })).toMatchObject({
      frames: [],
    });
  await expect(
    client.admin.readStream({ ...ref, countLimit: 10_000, from: "-" }),
  ).rejects.toMatchObject({ code: "invalid_offset" });
});

test("patches make a document, version by version", async () => {
  const { task, executionId, client } = await claimed();
  const versions = [
    await task.stream.patch({ step: 1, gone: true, list: [1] }),
    await task.stream.patch({ step: 2, gone: null, nothing: "__ff_null__" }),
    await task.stream.patch({ list: [2], deep: nested(16) }),
  ];
  expect(versions.map(({ summaryVersion }) => summaryVersion)).toEqual([
    1, 2, 3,
  ]);
  await expect(task.stream.patch({ deep: nested(17) })).rejects.toMatchObject({
    code: "invalid_input",
  });
  const summary = await client.admin.readSummary({
    executionId,
    attemptIndex: 0,
  });
  expect(JSON.parse(Buffer.from(summary!.documentJson).toString())).toEqual({
    step: 2,
    nothing: null,
    list: [2],
    deep: nested(16),
  });
});

/** Objects in objects, so many. */
function nested(depth: number): object {
  return depth === 1 ? {} : { a: nested(depth - 1) };
}

test("who wants the lasting frames only sees no others", async () => {
  const { task, executionId, client } = await claimed();
  const mode = { kind: "bestEffortLive", ttlMs: 60_000 } as const;
  for (let n = 0; n < 3; n++) {
    await task.stream.write(`kept ${n}`);
    await task.stream.write(`live ${n}`, { mode });
  }
  await task.complete();
  const all = collect(client, { executionId });
  const lasting = collect(client, {
    executionId,
    visibility: "excludeBestEffort",
  });
  await Promise.all([all.done, lasting.done]);
  expect(all.texts()).toHaveLength(7);
  expect(lasting.texts()).toEqual([
    "0/kept 0",
    "0/kept 1",
    "0/kept 2",
    "0/(attempt_success)",
  ]);
});

test("a suspension is no boundary: the same stream goes on behind it", async () => {
  const { task, conn, executionId, client } = await claimed();
  const reading = collect(client, { executionId });
  void task.stream.write("asked");
  const { details } = await task.suspend({
    resumeCondition: when.signal("answer"),
  });
  await expect(task.stream.write("late")).rejects.toMatchObject({
    code: "task_consumed",
  });
  await until(() => reading.events.length === 1);
  await pause(50);
  expect(reading.texts()).toEqual(["0/asked"]);

  await client.signal(details.signalToken, { name: "yes" });
  const resumed = (await conn.claimNext())!;
  expect(await resumed.stream.write("answered")).toMatchObject({
    frameCount: 2,
  });
  await resumed.complete();
  await reading.done;
  expect(reading.texts()).toEqual([
    "0/asked",
    "0/answered",
    "0/(attempt_success)",
  ]);
});

test("a thousand parked readers delay no claim, renewal or plain read", async () => {
  const { task, executionId, client, conn, submit } = await claimed();
  const parked = await Promise.all(
    Array.from({ length: 1_000 }, async () =>
      collect(client, {
        executionId: (await submit({ laneId: "idle" })).executionId,
      }),
    ),
  );
  const own = collect(client, { executionId });
  await pause(500);

  const took = async (call: () => Promise<unknown>) => {
    const startedAt = performance.now();
    await call();
    return performance.now() - startedAt;
  };
  const times = [
    await took(() => task.renew()),
    await took(() => client.inspect(executionId)),
    await took(() => submit()),
    await took(async () => expect(await conn.claimNext()).toBeDefined()),
    await took(async () => {
      await task.stream.write("heard");
      await until(() => own.events.length === 1);
    }),
  ];

  // Generous, for a busy machine; one look of each reader would take longer.
  for (const ms of times) expect(ms).toBeLessThan(500);
  await client[Symbol.asyncDispose]();
  for (const { done } of [own, ...parked])
    await expect(done).rejects.toMatchObject({ code: "unavailable" });
});

test("a writer that is faster than the store is told to wait", async () => {
  const { task, faults } = await claimed();
  faults.hang("appendFrames", 1);
  void task.stream.write("first");
  await pause(5);
  await task.stream.ready;
  for (let n = 0; n < 20; n++) void task.stream.write(new Uint8Array(60_000));
  let ready = false;
  void task.stream.ready.then(() => (ready = true));
  await pause(30);
  expect(ready).toBe(false);
});

test("a writable takes what is piped into it and waits for the store", async () => {
  const { task, executionId, client } = await claimed();
  async function* tokens() {
    for (let n = 0; n < 300; n++) yield `t${n} `;
  }
  await ReadableStream.from(tokens()).pipeTo(
    task.stream.writable({ frameType: "token" }),
  );
  await task.complete();
  const { events, done } = collect(client, { executionId });
  await done;
  expect(
    events
      .map((event) => (event.kind === "frame" ? event.text : ""))
      .join("")
      .trim()
      .split(" "),
  ).toEqual(Array.from({ length: 300 }, (_one, n) => `t${n}`));
});

test("who lost the lease is told by the write, and its signal aborts", async () => {
  const { task, backend, executionId, logger } = await claimed();
  await task.stream.write("mine");
  await backend.revokeLease({ executionId });
  await expect(task.stream.write("late")).rejects.toSatisfy(
    (error) =>
      isEngineError(error, "stale_owner_cannot_append") ||
      (error as { code: string }).code === "lease_lost",
  );
  await until(() => task.signal.aborted);
  expect(task.state).toBe("lost");
  const sink = task.stream.writable().getWriter();
  await expect(sink.write("x").then(() => sink.close())).rejects.toMatchObject({
    code: "lease_lost",
  });
  expect(logger.warnings().join()).toContain("frames were not appended");
});

test("who goes on with a parked attempt counts on", async () => {
  const { task, conn, executionId, client } = await claimed();
  await task.stream.write("one");
  await task.delay({ delayUntilMs: 1 });
  const again = (await conn.claimNext())!;
  expect(again.attemptIndex).toBe(0);
  expect(await again.stream.write("two")).toMatchObject({ frameCount: 2 });
  await again.complete();
  const { texts, done } = collect(client, { executionId });
  await done;
  expect(texts()).toEqual(["0/one", "0/two", "0/(attempt_success)"]);
});

test("a reader follows an execution from attempt to attempt to its end", async () => {
  const { client, conn, submit, backend, passTime } = await opened();
  const { executionId } = await submit();
  const reading = collect(client, { executionId });
  const first = (await conn.claimNext())!;
  await first.stream.write("a");
  await first.fail({ reason: "once" });
  const second = (await conn.claimNext())!;
  await second.stream.write("b");
  await backend.revokeLease({ executionId });
  await until(() => reading.texts().includes("1/(lease_revoked)"));
  passTime(1_000);
  const third = (await conn.claimNext())!;
  await until(async () => (await client.inspect(executionId)) !== undefined);
  await third.stream.write("c");
  await third.complete();
  await reading.done;
  expect(reading.texts()).toEqual([
    "0/a",
    "0/(attempt_failure)",
    "1/b",
    "1/(lease_revoked)",
    "2/c",
    "2/(attempt_success)",
  ]);

  // From each cursor on there comes what came behind it.
  for (const [index, { cursor }] of reading.events.entries()) {
    const rest = collect(client, { executionId, after: cursor });
    await rest.done;
    expect(
      rest.texts().map((text) => text.replace("reclaimed", "lease_revoked")),
    ).toEqual(reading.texts().slice(index + 1));
  }
});

test("a reader ends with an execution that gets no further attempt", async () => {
  const { client, conn, submit } = await opened();
  const never = await submit({ laneId: "nobody" });
  const retried = await submit({
    policy: {
      retryPolicy: { backoff: { type: "fixed", delayMs: 60_000 } },
    },
  });
  const readings = [never, retried].map(({ executionId }) =>
    collect(client, { executionId }),
  );
  const task = (await conn.claimNext())!;
  await task.fail({ reason: "once" });
  await until(() => readings[1]!.events.length === 1);
  await pause(20);
  const startedAt = performance.now();
  for (const { executionId } of [never, retried])
    await client.cancel({ executionId, reason: "enough" });
  await Promise.all(readings.map(({ done }) => done));
  expect(performance.now() - startedAt).toBeLessThan(900);
  expect(readings[0]!.texts()).toEqual([]);
  expect(readings[1]!.texts()).toEqual(["0/(attempt_failure)"]);
});

test("a reader from the end sees what comes from now on", async () => {
  const { client, task, executionId } = await claimed();
  await task.stream.write("old");
  const reading = collect(client, { executionId, from: "end" });
  await pause(50);
  await task.stream.write("new");
  await task.complete();
  await reading.done;
  expect(reading.texts()).toEqual(["0/new", "0/(attempt_success)"]);
});

test("a reader outlives lost connections without a gap or a repeat", async () => {
  const { client, task, executionId, faults } = await claimed();
  const reading = collect(client, { executionId });
  for (let n = 0; n < 30; n++) {
    if (n % 6 === 1) faults.loseCalls("tailStream", 1);
    if (n % 6 === 4) faults.loseReplies("tailStream", 1);
    if (n === 20)
      faults.refuse(
        "tailStream",
        engineError("resource_exhausted", {
          pool: "stream_ops",
          max: 1,
          retryAfterMs: 5,
        }),
      );
    await task.stream.write(`${n}`);
    await pause(2);
  }
  await task.complete();
  await reading.done;
  expect(reading.texts()).toEqual([
    ...Array.from({ length: 30 }, (_one, n) => `0/${n}`),
    "0/(attempt_success)",
  ]);
});

test("a reader is told of frames that are gone", async () => {
  const { client, conn, submit } = await opened();
  const { executionId } = await submit({
    policy: { streamPolicy: { retentionMaxlen: 2 } },
  });
  const task = (await conn.claimNext())!;
  for (const text of ["a", "b", "c"]) void task.stream.write(text);
  await task.complete();
  const { texts, done } = collect(client, { executionId });
  await done;
  expect(texts()).toEqual(["0/(gap)", "0/b", "0/c", "0/(attempt_success)"]);
});

test("a reader breaks off at once, and refuses what is no cursor", async () => {
  const { client, task, executionId } = await claimed();
  await task.stream.write("x");
  for await (const event of client.stream({ executionId })) {
    expect(shown(event)).toBe("0/x");
    break;
  }
  const abort = new AbortController();
  const reading = collect(client, { executionId }, abort.signal);
  await until(() => reading.events.length === 1);
  abort.abort();
  await reading.done;
  const disposed = new Client({ backend: client.backend });
  const late = collect(disposed, { executionId });
  await until(() => late.events.length === 1);
  await disposed[Symbol.asyncDispose]();
  await expect(late.done).rejects.toMatchObject({
    code: "unavailable",
    detail: { op: "client_disposed" },
  });
  for (const after of ["", "0-0", "x:0-0", "0:start", "0:1"])
    expect(() => client.stream({ executionId, after })).toThrow("config");
  const unknown = "{fp:7}:00000000-0000-4000-8000-000000000000";
  await expect(
    collect(client, { executionId: unknown }).done,
  ).rejects.toMatchObject({ code: "execution_not_found" });
});

test("what a handler writes is stored before its execution ends", async () => {
  const { client, backend, submit } = await opened();
  const { executionId } = await submit({ laneId: "handled" });
  const worker = new Worker({ backend, lanes: ["handled"] });
  worker.handle("job", (_input, task) => {
    for (let n = 0; n < 1_500; n++) void task.stream.write(`${n}`);
    return undefined;
  });
  const running = worker.run({ stopOn: [] });
  const { texts, done } = collect(client, { executionId });
  await done;
  await worker.stop();
  await running;
  expect(texts()).toEqual([
    ...Array.from({ length: 1_500 }, (_one, n) => `0/${n}`),
    "0/(attempt_success)",
  ]);
});
