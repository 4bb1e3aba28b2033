/** Parked calls hear of new work: at once in the same process, within milliseconds from another. */
import { watch } from "node:fs";

import type { EngineBackend } from "@flowfabric/core";
import { expect, test, vi } from "vitest";

import { Wakeups } from "../src/wakeups.js";
import {
  longestStall,
  newPath,
  open,
  openRaw,
  pause,
  Peer,
  percentile,
  SLACK,
  tell,
} from "./files.js";

const PICKUP_MS = 20;
const SAFETY_POLL_MS = 1_000;

function park(backend: EngineBackend, lane = "default") {
  return backend
    .claimMany({
      workerId: "worker",
      workerInstanceId: "worker-1",
      lanes: [lane],
      max: 1,
      leaseTtlMs: 30_000,
      maxWaitMs: 20_000,
    })
    .then(({ claimed }) => ({ claimed, atMs: performance.now() }));
}

async function pickups(
  backend: EngineBackend,
  rounds: number,
  submit: () => Promise<unknown>,
): Promise<number[]> {
  const delays: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const parked = park(backend);
    await pause(5 + Math.random() * 25);
    const submittedAtMs = performance.now();
    await submit();
    const { claimed, atMs } = await parked;
    expect(claimed).toHaveLength(1);
    delays.push(atMs - submittedAtMs);
  }
  return delays;
}

function tellDelays(what: string, delays: readonly number[]): void {
  const at = (share: number) => percentile(delays, share).toFixed(1);
  tell(`${what}: p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, longest ${at(1)} ms`);
}

test("work submitted in the same process wakes a parked claim at once", async () => {
  const backend = await open({ path: newPath() });

  const delays = await pickups(backend, 50, () =>
    backend.createExecution({ executionKind: "x" }),
  );

  tellDelays("same process", delays);
  expect(percentile(delays, 0.9)).toBeLessThan(SLACK * PICKUP_MS);
});

test("work submitted by another process wakes a parked claim within milliseconds", async () => {
  const path = newPath();
  const backend = await open({ path });
  const peer = new Peer();
  await peer.ask("open", { options: { path } });

  const delays = await pickups(backend, 50, () =>
    peer.ask("call", {
      operation: "createExecution",
      input: { executionKind: "x" },
    }),
  );

  tellDelays("another process", delays);
  expect(percentile(delays, 0.9)).toBeLessThan(SLACK * PICKUP_MS);
});

test("whoever watches the log is told of a commit when that is there to be seen", async () => {
  const path = newPath();
  await open({ path });
  const peer = new Peer();
  await peer.ask("open", { options: { path } });
  const reader = openRaw(path);
  const version = () => reader.pragma("data_version", { simple: true });
  let seen = version();
  const watcher = watch(`${path}-wal`, () => {
    seen = version();
  });

  for (let commit = 0; commit < 20; commit++) {
    await peer.ask("call", {
      operation: "createExecution",
      input: { executionKind: "x" },
    });
    await vi.waitFor(() => expect(seen).toBe(version()), SLACK * PICKUP_MS);
  }
  watcher.close();
});

test("a claim that finds nothing does not touch the log", async () => {
  const path = newPath();
  await open({ path });
  const peer = new Peer();
  await peer.ask("open", { options: { path } });
  const claim = () =>
    peer.ask("call", {
      operation: "claimMany",
      input: {
        workerId: "worker",
        workerInstanceId: "worker-1",
        lanes: ["default"],
        max: 1,
        leaseTtlMs: 30_000,
      },
    });
  // The first makes the worker known, which is a change.
  await claim();
  await pause(50);
  let signs = 0;
  const watcher = watch(`${path}-wal`, () => signs++);

  for (let claims = 0; claims < 10; claims++) await claim();
  await pause(50);
  watcher.close();

  expect(signs).toBe(0);
});

test("without push a parked claim finds work at its next look", async () => {
  const path = newPath();
  const backend = await open({ path, push: false });
  const other = await open({ path, push: false });

  const delays = await pickups(backend, 3, () =>
    other.createExecution({ executionKind: "x" }),
  );

  tellDelays("without push", delays);
  expect(Math.max(...delays)).toBeLessThan(SLACK * SAFETY_POLL_MS);
});

test("what another process commits while a wait is being set up ends it", async () => {
  const path = newPath();
  await open({ path });
  const other = openRaw(path);
  const wakeups = new Wakeups(openRaw(path), {
    push: true,
    durability: "full",
  });
  const ticket = wakeups.ticket({ lanes: ["default"] });
  const { signal } = new AbortController();
  // Called behind the comparison of the ticket and before the first look.
  signal.addEventListener = () => void other.exec("ANALYZE");

  const startedAtMs = performance.now();
  await wakeups.wait(ticket, 10_000, signal);
  const tookMs = performance.now() - startedAtMs;
  wakeups.close();

  expect(tookMs).toBeLessThan(SLACK * PICKUP_MS);
});

test("what another process cancels is told to whoever watches for the holder", async () => {
  const path = newPath();
  const backend = await open({ path });
  const peer = new Peer();
  await peer.ask("open", { options: { path } });
  const { executionId } = await backend.createExecution({ executionKind: "x" });
  await park(backend);
  const ended = new AbortController();
  const notices = backend
    .watchWorker({ workerInstanceId: "worker-1", signal: ended.signal })
    [Symbol.asyncIterator]();
  const notice = notices.next();
  await pause(50);

  const cancelledAtMs = performance.now();
  await peer.ask("call", {
    operation: "cancelExecution",
    input: { executionId, reason: "no longer" },
  });

  expect(await notice).toMatchObject({
    value: { kind: "taskEnded", executionId, outcome: "cancelled" },
  });
  tell(`notice after ${(performance.now() - cancelledAtMs).toFixed(1)} ms`);
  expect(performance.now() - cancelledAtMs).toBeLessThan(SLACK * 1_000);
  ended.abort();
  await notices.return?.();
});

test("a hundred parked claims cost an idle process next to nothing", async () => {
  const backend = await open({ path: newPath() });
  const ended = new AbortController();
  const parked = Array.from({ length: 100 }, (_unused, index) =>
    backend.claimMany({
      workerId: "worker",
      workerInstanceId: `worker-${index}`,
      lanes: [`lane-${index % 10}`],
      max: 1,
      leaseTtlMs: 30_000,
      maxWaitMs: 20_000,
      signal: ended.signal,
    }),
  );
  await pause(500);

  const before = process.cpuUsage();
  const stall = await longestStall(pause(1_000));
  const { user, system } = process.cpuUsage(before);
  tell(
    `${((user + system) / 1_000).toFixed(0)} ms of CPU in a second; longest stall ${stall.toFixed(1)} ms`,
  );
  ended.abort();
  for (const { claimed } of await Promise.all(parked))
    expect(claimed).toEqual([]);
  expect((user + system) / 1_000).toBeLessThan(500);
});

test("closing ends every wait with what there is: nothing", async () => {
  const backend = await open({ path: newPath() });
  const { executionId } = await backend.createExecution({
    executionKind: "x",
    laneId: "other",
  });
  const feed = (await backend.subscribeCompletion({}))[Symbol.asyncIterator]();
  const notices = backend
    .watchWorker({ workerInstanceId: "worker-1" })
    [Symbol.asyncIterator]();
  const waits = Promise.all([
    park(backend).then(({ claimed }) => claimed),
    backend.claimForWorker({
      workerId: "worker",
      workerInstanceId: "worker-2",
      laneId: "default",
      grantTtlMs: 1_000,
      maxWaitMs: 20_000,
    }),
    backend.tailEvents({ executionId, after: 1, blockMs: 20_000 }),
    feed.next(),
    notices.next(),
  ]);
  await pause(100);

  await backend.close();

  expect(await waits).toEqual([
    [],
    { kind: "noWork", reason: "empty" },
    { events: [] },
    { done: true, value: undefined },
    { done: true, value: undefined },
  ]);
});
