import { expect, test } from "vitest";

import { Client } from "../src/client.js";
import { WorkerDisposedError } from "../src/errors.js";
import { Worker, type WorkerOptions } from "../src/worker.js";
import {
  openStore,
  pause,
  recordingLogger,
  until,
  withFaults,
} from "./store.js";

async function open(options: Partial<WorkerOptions> = {}) {
  const store = await openStore();
  const faults = withFaults(store.backend);
  const client = new Client({ backend: store.backend });
  const logger = recordingLogger();
  const worker = new Worker({
    backend: faults.backend,
    maintenance: false,
    logger,
    ...options,
  });
  return {
    ...store,
    faults,
    client,
    worker,
    logger,
    submit: () => client.submit({ executionKind: "job" }),
  };
}

/** A handler that ends when told, or at once when its signal aborts. */
function obedient() {
  const starts: ((value?: unknown) => void)[] = [];
  return {
    starts,
    handler: (_bytes: Uint8Array, { signal }: { signal: AbortSignal }) =>
      new Promise((resolve, reject) => {
        starts.push(resolve);
        signal.addEventListener("abort", () => reject(signal.reason as Error));
      }),
  };
}

test("stop lets running handlers finish and claims nothing new", async () => {
  const { worker, client, submit, faults } = await open();
  const { starts, handler } = obedient();
  worker.handle("job", handler);
  const running = worker.run({ stopOn: [] });
  const first = await submit();
  await until(() => starts.length === 1);

  const stopped = worker.stop();
  const second = await submit();
  await pause(100);
  faults.clear();
  starts[0]?.("done");
  await stopped;

  expect(await running).toEqual({ completed: 1, failed: 0, abandoned: 0 });
  expect(await client.result({ ...first, timeoutMs: 0 })).toMatchObject({
    kind: "completed",
  });
  expect(await client.result({ ...second, timeoutMs: 0 })).toEqual({
    kind: "pending",
    publicState: "waiting",
  });
  expect((await client.admin.listWorkers({})).entries).toEqual([]);
  expect(faults.callsOf("claimMany")).toEqual([]);
  await expect(client.admin.ping()).resolves.toBeUndefined();
});

test("a parked claim ends at once", async () => {
  const { worker, faults } = await open();
  const running = worker.run({ stopOn: [] });
  await until(() => faults.callsOf("claimMany").length === 1);

  const stoppedAt = performance.now();
  await worker.stop();
  await running;

  expect(performance.now() - stoppedAt).toBeLessThan(5_000);
});

test("the drain time over, handlers are aborted; what did not finish is handed back, same attempt, at once", async () => {
  const { worker, client, submit, backend } = await open({
    drainTimeoutMs: 100,
  });
  const { starts, handler } = obedient();
  worker.handle("job", handler);
  const running = worker.run({ stopOn: [] });
  const { executionId } = await submit();
  await until(() => starts.length === 1);

  await worker.stop();

  expect(await running).toEqual({ completed: 0, failed: 0, abandoned: 1 });
  expect(await client.inspect(executionId)).toMatchObject({
    publicState: "waiting",
    leaseReclaimCount: 0,
    retryCount: 0,
    totalAttemptCount: 1,
  });
  const next = new Worker({ backend, maintenance: false });
  next.handle("job", (_bytes, task) => [task.attemptIndex, task.handleKind]);
  const nextRun = next.run({ stopOn: [] });
  const end = await client.result({ executionId, timeoutMs: 10_000 });
  expect(end.kind === "completed" && new TextDecoder().decode(end.output)).toBe(
    '[0,"resumed"]',
  );
  await next.stop();
  await nextRun;
});

test("a handler that finishes in its grace is completed all the same", async () => {
  const { worker, client, submit } = await open({ drainTimeoutMs: 0 });
  const reasons: unknown[] = [];
  worker.handle("job", async (_bytes, { signal }) => {
    await until(() => signal.aborted);
    reasons.push(signal.reason);
    return "saved in time";
  });
  const running = worker.run({ stopOn: [] });
  const { executionId } = await submit();
  await until(() => worker.stats().running === 1);

  await worker.stop();

  expect(await running).toEqual({ completed: 1, failed: 0, abandoned: 0 });
  expect(reasons[0]).toBeInstanceOf(WorkerDisposedError);
  expect(await client.result({ executionId, timeoutMs: 0 })).toMatchObject({
    kind: "completed",
  });
});

test("a handler that ignores its signal is left behind after the grace, its work handed back", async () => {
  const { worker, client, submit, logger } = await open({ drainTimeoutMs: 0 });
  worker.handle("job", () => pause(20_000));
  const running = worker.run({ stopOn: [] });
  const { executionId } = await submit();
  await until(() => worker.stats().running === 1);

  const stoppedAt = performance.now();
  await worker.stop();

  expect(performance.now() - stoppedAt).toBeGreaterThan(4_500);
  expect(await running).toEqual({ completed: 0, failed: 0, abandoned: 1 });
  expect(await client.inspect(executionId)).toMatchObject({
    publicState: "waiting",
    leaseReclaimCount: 0,
  });
  expect(logger.warnings()).toContain(
    "handler did not stop, its work is handed back",
  );
});

test("what was claimed ahead and never started goes back uncounted", async () => {
  const { worker, client, submit } = await open({ prefetch: 3 });
  const { starts, handler } = obedient();
  worker.handle("job", handler);
  for (let i = 0; i < 4; i++) await submit();
  const running = worker.run({ stopOn: [] });
  await until(() => worker.stats().prefetched === 3);

  const stopped = worker.stop();
  starts[0]?.();
  await stopped;

  expect(starts).toHaveLength(1);
  expect(await running).toEqual({ completed: 1, failed: 0, abandoned: 0 });
  const waiting = await client.list({ publicStates: ["waiting"] });
  expect(waiting.executions).toHaveLength(3);
});

test("SIGTERM drains, a second one skips to the abort, handlers are removed, the process lives", async () => {
  const { worker, submit } = await open({ drainTimeoutMs: 20_000 });
  const { starts, handler } = obedient();
  worker.handle("job", handler);
  const before = process.listenerCount("SIGTERM");
  const running = worker.run();
  await submit();
  await until(() => starts.length === 1);
  expect(process.listenerCount("SIGTERM")).toBe(before + 1);

  process.emit("SIGTERM");
  await pause(100);
  expect(worker.stats().running).toBe(1);
  process.emit("SIGINT");

  expect(await running).toEqual({ completed: 0, failed: 0, abandoned: 1 });
  expect(process.listenerCount("SIGTERM")).toBe(before);
  expect(process.listenerCount("SIGINT")).toBe(before);
});

test("renewal goes on while draining", async () => {
  const { worker, client, submit } = await open({ leaseTtlMs: 1_000 });
  const { starts, handler } = obedient();
  worker.handle("job", handler);
  const running = worker.run({ stopOn: [] });
  const { executionId } = await submit();
  await until(() => starts.length === 1);

  const stopped = worker.stop();
  await pause(2_000);
  starts[0]?.("done");
  await stopped;

  expect(await running).toMatchObject({ completed: 1 });
  expect(await client.inspect(executionId)).toMatchObject({
    publicState: "completed",
    leaseReclaimCount: 0,
  });
});

test("dispose stops for good", async () => {
  const { worker } = await open();
  const running = worker.run({ stopOn: [] });

  await worker[Symbol.asyncDispose]();
  await worker[Symbol.asyncDispose]();

  await running;
  await expect(worker.run()).rejects.toBeInstanceOf(WorkerDisposedError);
});

test("stopping before the connection stands is stopping", async () => {
  const { worker } = await open();
  const running = worker.run({ stopOn: [] });

  await worker.stop();

  expect(await running).toEqual({ completed: 0, failed: 0, abandoned: 0 });
});

test("no timer is left behind that keeps a process alive", async () => {
  // Unreferenced timers do not count here.
  const timers = () =>
    process.getActiveResourcesInfo().filter((name) => name === "Timeout")
      .length;
  const { worker, submit, client } = await open({ maxConcurrentTasks: 2 });
  const before = timers();
  worker.handle("job", () => {});
  const running = worker.run({ stopOn: [] });
  const { executionId } = await submit();
  await client.result({ executionId, timeoutMs: 10_000 });
  await client[Symbol.asyncDispose]();

  await worker.stop();
  await running;

  expect(timers()).toBeLessThanOrEqual(before);
});
