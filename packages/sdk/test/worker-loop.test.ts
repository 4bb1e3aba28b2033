import { engineError } from "@flowfabric/core";
import { expect, test } from "vitest";
import { z } from "zod";

import { Client } from "../src/client.js";
import { defineExecution } from "../src/definition.js";
import { Worker, type WorkerOptions } from "../src/worker.js";
import {
  openStore,
  pause,
  recordingLogger,
  until,
  withFaults,
  withSupport,
} from "./store.js";

async function open(options: Partial<WorkerOptions> = {}, push?: boolean) {
  const store = await openStore(push === undefined ? {} : { push });
  const faults = withFaults(store.backend);
  const client = new Client({ backend: store.backend });
  const logger = recordingLogger();
  const worker = new Worker({
    backend: faults.backend,
    maintenance: false,
    logger,
    ...options,
  });
  const submit = async (
    count: number,
    laneId = "default",
    priority?: number,
  ) => {
    const ids: string[] = [];
    for (let i = 0; i < count; i++)
      ids.push(
        (await client.submit({ executionKind: "job", laneId, priority }))
          .executionId,
      );
    return ids;
  };
  const allDone = (ids: readonly string[]) =>
    Promise.all(
      ids.map((executionId) =>
        client.result({ executionId, timeoutMs: 20_000 }),
      ),
    );
  return { ...store, faults, client, worker, logger, submit, allDone };
}

interface CompleteAndClaim {
  readonly items: readonly { readonly handle: unknown }[];
  readonly claim?: { readonly max: number };
}

test("never more handlers at once than the limit", async () => {
  const { worker, submit, allDone } = await open({ maxConcurrentTasks: 3 });
  let running = 0;
  let most = 0;
  worker.handle("job", async () => {
    most = Math.max(most, ++running);
    await pause(10);
    running--;
  });
  const ids = await submit(20);
  const run = worker.run({ stopOn: [] });

  await allDone(ids);

  expect(most).toBe(3);
  await worker.stop();
  expect(await run).toMatchObject({ completed: 20 });
});

test("outcomes of one tick and the claim for the permits they free are one call", async () => {
  const { worker, faults, submit, allDone } = await open({
    maxConcurrentTasks: 4,
  });
  const release: (() => void)[] = [];
  worker.handle("job", () => new Promise<void>((done) => release.push(done)));
  const ids = await submit(8);
  const run = worker.run({ stopOn: [] });
  await until(() => release.length === 4);
  faults.clear();

  for (const done of release.splice(0)) done();
  await until(() => release.length === 4);

  const [first, ...more] = faults.callsOf(
    "completeAndClaim",
  ) as CompleteAndClaim[];
  expect(first?.items).toHaveLength(4);
  expect(first?.claim?.max).toBe(4);
  expect(more).toEqual([]);
  expect(faults.callsOf("claimMany")).toEqual([]);
  for (const done of release) done();
  await allDone(ids);
  await worker.stop();
  await run;
});

test("where the store works beside the handlers, many outcomes leave as two calls that come back on their own", async () => {
  const { backend } = await openStore();
  const faults = withFaults(withSupport(backend, { concurrentCalls: true }));
  const client = new Client({ backend });
  const worker = new Worker({
    backend: faults.backend,
    maintenance: false,
    maxConcurrentTasks: 8,
  });
  const release: (() => void)[] = [];
  worker.handle("job", () => new Promise<void>((done) => release.push(done)));
  await client.submitMany({
    items: Array.from({ length: 16 }, () => ({ executionKind: "job" })),
  });
  const run = worker.run({ stopOn: [] });
  await until(() => release.length === 8);
  faults.clear();

  for (const done of release.splice(0)) done();
  await until(() => release.length === 8);

  const sent = faults.callsOf("completeAndClaim") as CompleteAndClaim[];
  expect(sent.map(({ items, claim }) => [items.length, claim?.max])).toEqual([
    [4, 4],
    [4, 4],
  ]);
  for (const done of release) done();
  await until(() => worker.stats().completed === 16);
  await worker.stop();
  expect(await run).toMatchObject({ completed: 16 });
});

test("one stale outcome leaves the others landed", async () => {
  const { worker, faults, client, submit, allDone, logger } = await open({
    maxConcurrentTasks: 3,
  });
  faults.loseCalls("watchWorker", Infinity);
  const release: (() => void)[] = [];
  worker.handle("job", () => new Promise<void>((done) => release.push(done)));
  const ids = await submit(3);
  const run = worker.run({ stopOn: [] });
  await until(() => release.length === 3);
  await client.cancel({ executionId: ids[1]!, reason: "x" });

  for (const done of release) done();
  const ends = await allDone(ids);
  await until(() => worker.stats().lost === 1);

  expect(ends.map(({ kind }) => kind)).toEqual([
    "completed",
    "cancelled",
    "completed",
  ]);
  expect(
    (faults.callsOf("completeAndClaim") as CompleteAndClaim[])[0]?.items,
  ).toHaveLength(3);
  expect(logger.warnings()).toContain("outcome refused, another owner decides");
  await worker.stop();
  expect(await run).toMatchObject({ completed: 2 });
});

test("prefetch claims ahead, renews what waits, and never starts more than the limit", async () => {
  const { worker, faults, client, submit, allDone } = await open({
    maxConcurrentTasks: 1,
    prefetch: 2,
    leaseTtlMs: 1_000,
  });
  const release: (() => void)[] = [];
  worker.handle("job", () => new Promise<void>((done) => release.push(done)));
  const ids = await submit(5);
  const run = worker.run({ stopOn: [] });

  await until(() => worker.stats().prefetched === 2);
  expect(worker.stats()).toMatchObject({ running: 1, freePermits: 0 });
  expect(
    (await client.list({ publicStates: ["active"] })).executions,
  ).toHaveLength(3);
  faults.clear();
  await pause(1_500);
  // Nobody's lease has lapsed meanwhile.
  expect(faults.callsOf("renew").length).toBeGreaterThanOrEqual(3);

  while (release.length > 0 || worker.stats().completed < 5) {
    release.shift()?.();
    expect(worker.stats().running).toBeLessThanOrEqual(1);
    expect(worker.stats().prefetched).toBeLessThanOrEqual(2);
    await pause(5);
  }
  await allDone(ids);
  await worker.stop();
  expect(await run).toMatchObject({ completed: 5 });
});

test("what was claimed ahead starts while outcomes are on their way; the limits hold", async () => {
  const { worker, faults, client, submit, allDone } = await open({
    maxConcurrentTasks: 2,
    prefetch: 3,
  });
  const release: (() => void)[] = [];
  worker.handle("job", () => new Promise<void>((done) => release.push(done)));
  const ids = await submit(8);
  const run = worker.run({ stopOn: [] });
  await until(() => worker.stats().prefetched === 3);
  faults.loseCalls("completeAndClaim", Infinity);
  const active = async () =>
    (await client.list({ publicStates: ["active"] })).executions.length;

  for (const done of release.splice(0)) done();
  await until(() => release.length === 2);
  expect(worker.stats()).toMatchObject({ running: 2, prefetched: 1 });
  for (const done of release.splice(0)) done();
  await until(() => release.length === 1);

  // All five places are taken: by four outcomes that do not get through, and by the last that was claimed ahead.
  await pause(100);
  expect(release).toHaveLength(1);
  expect(worker.stats()).toMatchObject({
    running: 2,
    prefetched: 0,
    freePermits: 0,
  });
  expect(await active()).toBe(5);
  faults.heal("completeAndClaim");
  while (worker.stats().completed < 8) {
    release.shift()?.();
    expect(await active()).toBeLessThanOrEqual(5);
    await pause(5);
  }
  await allDone(ids);
  await worker.stop();
  expect(await run).toMatchObject({ completed: 8 });
});

test("lanes take turns; within a lane the higher priority goes first", async () => {
  const { worker, submit, allDone } = await open({ lanes: ["a", "b"] });
  const order: string[] = [];
  worker.handle("job", (_bytes, task) => {
    order.push(task.laneId);
  });
  const ids = [...(await submit(3, "a")), ...(await submit(3, "b"))];
  const run = worker.run({ stopOn: [] });

  await allDone(ids);

  expect(order.slice(0, 4).sort()).toEqual(["a", "a", "b", "b"]);
  await worker.stop();
  await run;
});

test("priority decides within a lane", async () => {
  const { worker, submit, allDone } = await open();
  const order: string[] = [];
  worker.handle("job", (_bytes, task) => {
    order.push(task.executionId);
  });
  const [low] = await submit(1, "default", 1);
  const [high] = await submit(1, "default", 9);
  const run = worker.run({ stopOn: [] });

  await allDone([low!, high!]);

  expect(order).toEqual([high, low]);
  await worker.stop();
  await run;
});

test("idle is one parked claim, woken by a submission", async () => {
  const { worker, faults, submit, allDone } = await open();
  let startedAt = 0;
  worker.handle("job", () => {
    startedAt = performance.now();
  });
  const run = worker.run({ stopOn: [] });
  await pause(300);
  expect(faults.callsOf("claimMany")).toMatchObject([{ maxWaitMs: 30_000 }]);

  const submittedAt = performance.now();
  await allDone(await submit(1));

  expect(startedAt - submittedAt).toBeLessThan(900);
  await worker.stop();
  await run;
});

test("a handler begins before the next claim is made ready", async () => {
  const { client, worker, faults, allDone } = await open({
    maxConcurrentTasks: 2,
  });
  const Job = defineExecution({ kind: "job", input: z.number() });
  let claims = 0;
  worker.handle(Job, () => {
    claims = faults.callsOf("claimMany").length;
  });
  const { executionId } = await client.submit(Job, { input: 1 });
  const run = worker.run({ stopOn: [] });

  await allDone([executionId]);

  expect(claims).toBe(1);
  await worker.stop();
  await run;
});

test("another process's submission wakes it, too", async () => {
  const { worker, reopen, allDone } = await open();
  worker.handle("job", () => {});
  const run = worker.run({ stopOn: [] });
  await pause(100);

  await using elsewhere = new Client({ backend: await reopen() });
  const { executionId } = await elsewhere.submit({ executionKind: "job" });

  expect(await allDone([executionId])).toMatchObject([{ kind: "completed" }]);
  await worker.stop();
  await run;
});

test("push: false polls, growing slower up to the interval; same outcome", async () => {
  const { worker, faults, submit, allDone } = await open(
    { push: false, claimPollIntervalMs: 200 },
    false,
  );
  worker.handle("job", () => {});
  const run = worker.run({ stopOn: [] });
  await pause(1_000);
  const polls = faults.callsOf("claimMany");
  expect(polls[0]).toMatchObject({ maxWaitMs: 0 });
  // 50, 100, 200, 200 …
  expect(polls.length).toBeGreaterThan(2);
  expect(polls.length).toBeLessThan(10);

  await allDone(await submit(3));

  await worker.stop();
  expect(await run).toMatchObject({ completed: 3 });
});

test("two workers share the work, each piece once", async () => {
  const { worker, backend, submit, allDone } = await open({
    maxConcurrentTasks: 4,
  });
  const seen: string[] = [];
  const other = new Worker({
    backend,
    maxConcurrentTasks: 4,
    maintenance: false,
  });
  for (const each of [worker, other])
    each.handle("job", async (_bytes, task) => {
      seen.push(task.executionId);
      await pause(2);
    });
  const ids = await submit(60);
  const runs = [worker.run({ stopOn: [] }), other.run({ stopOn: [] })];

  await allDone(ids);

  expect(seen.sort()).toEqual([...ids].sort());
  await Promise.all([worker.stop(), other.stop()]);
  const reports = await Promise.all(runs);
  expect(reports.reduce((sum, { completed }) => sum + completed, 0)).toBe(60);
});

test("delayed work starts when its time comes", async () => {
  const { worker, client, allDone } = await open();
  let startedAtMs = 0;
  worker.handle("job", () => {
    startedAtMs = Date.now();
  });
  const run = worker.run({ stopOn: [] });
  const delayUntilMs = Date.now() + 300;

  const { executionId } = await client.submit({
    executionKind: "job",
    delayUntilMs,
  });
  await allDone([executionId]);

  expect(startedAtMs).toBeGreaterThanOrEqual(delayUntilMs);
  expect(startedAtMs).toBeLessThan(delayUntilMs + 5_000);
  await worker.stop();
  await run;
});

test("work of a worker that vanished is taken over when its lease lapses", async () => {
  const { worker, backend, submit, allDone } = await open();
  const faults = withFaults(backend);
  faults.loseCalls("renew", Infinity);
  const silent = new Worker({
    backend: faults.backend,
    leaseTtlMs: 1_000,
    maintenance: false,
  });
  silent.handle("job", async (_bytes, { signal }) => {
    await until(() => signal.aborted);
  });
  const silentRun = silent.run({ stopOn: [], drainTimeoutMs: 0 });
  const ids = await submit(1);
  await until(() => silent.stats().running === 1);
  const kinds: string[] = [];
  worker.handle("job", (_bytes, task) => {
    kinds.push(`${task.handleKind} ${task.attemptIndex}`);
  });
  const run = worker.run({ stopOn: [] });

  expect(await allDone(ids)).toMatchObject([{ kind: "completed" }]);

  expect(kinds).toEqual(["reclaimed 1"]);
  await Promise.all([worker.stop(), silent.stop()]);
  await run;
  await silentRun;
});

test("stopped under load, at whatever moment, it leaves no lease behind", async () => {
  const { backend, client, submit } = await open();
  const ids = await submit(150);
  let completed = 0;
  for (let round = 0; completed < ids.length; round++) {
    const worker = new Worker({
      backend,
      maxConcurrentTasks: 8,
      prefetch: round % 3 === 0 ? 0 : 5,
      maintenance: false,
    });
    worker.handle("job", () => pause(round % 2));
    const run = worker.run({ stopOn: [] });
    const enough = Math.min((round * 7) % 20, ids.length - completed);
    await until(() => worker.stats().completed >= enough);
    await worker.stop();
    const report = await run;
    completed += report.completed;

    expect(report).toMatchObject({ failed: 0, abandoned: 0 });
    expect(
      (await client.list({ publicStates: ["active"] })).executions,
    ).toEqual([]);
    if (round > 100) expect.unreachable("no progress");
  }

  const { executions } = await client.list({
    publicStates: ["completed"],
    limit: 1_000,
  });
  expect(executions).toHaveLength(ids.length);
  const snapshots = await Promise.all(
    ids.map((executionId) => client.inspect(executionId)),
  );
  expect(
    snapshots.every(
      (snapshot) =>
        snapshot?.totalAttemptCount === 1 && snapshot.leaseReclaimTotal === 0,
    ),
  ).toBe(true);
});

test("a store that takes outcomes one by one gets them so", async () => {
  const { backend } = await openStore();
  const faults = withFaults(withSupport(backend, { completeAndClaim: false }));
  const client = new Client({ backend });
  const worker = new Worker({ backend: faults.backend, maintenance: false });
  worker.handle("job", () => "done");
  const run = worker.run({ stopOn: [] });

  const { executionId } = await client.submit({ executionKind: "job" });
  const end = await client.result({ executionId, timeoutMs: 10_000 });

  expect(end.kind).toBe("completed");
  expect(faults.callsOf("complete")).toHaveLength(1);
  await worker.stop();
  await run;
});

test("what a claim of unknown fate brought is asked for at once, also where the loop is parked by then", async () => {
  const { backend } = await openStore();
  const client = new Client({ backend });
  let lostHandle: unknown;
  let lost = 0;
  const losing = new Proxy(backend, {
    get(target, name, receiver) {
      if (name !== "completeAndClaim")
        return Reflect.get(target, name, receiver) as unknown;
      return async (input: CompleteAndClaim) => {
        const answer: unknown = await target.completeAndClaim(input as never);
        // All tries of the call that ends the first task, which is the one that claims the third.
        lostHandle ??= input.items[0]!.handle;
        if (input.items[0]!.handle === lostHandle && lost++ < 3)
          throw engineError("transport", {
            backend: "sqlite",
            backendKind: "transport",
            message: "reply lost",
          });
        return answer;
      };
    },
  });
  const worker = new Worker({
    backend: losing,
    maxConcurrentTasks: 2,
    maintenance: false,
  });
  const gates = new Map<string, () => void>();
  worker.handle("job", async (_bytes, { executionId }) => {
    await new Promise<void>((open) => gates.set(executionId, open));
  });
  const ids: string[] = [];
  for (let i = 0; i < 3; i++)
    ids.push((await client.submit({ executionKind: "job" })).executionId);
  const [first, second, third] = ids as [string, string, string];

  const run = worker.run({ stopOn: [] });
  await until(() => gates.size === 2);
  gates.get(first)!();
  await until(() => lost === 1);
  // Its permit comes back, and with nothing else to claim the loop parks for half a minute.
  gates.get(second)!();
  await until(() => gates.has(third), "the third task");
  gates.get(third)!();
  await until(() => worker.stats().completed === 3);
  await worker.stop();
  expect(await run).toEqual({ completed: 3, failed: 0, abandoned: 0 });
});

test("with one reply in eight lost, every piece of work is run and ended once", async () => {
  const { backend } = await openStore();
  const lossy = new Set(["claimMany", "completeAndClaim"]);
  let calls = 0;
  const unreliable = new Proxy(backend, {
    get(target, name, receiver) {
      const member: unknown = Reflect.get(target, name, receiver);
      if (typeof member !== "function" || !lossy.has(String(name)))
        return member;
      return async (input: unknown) => {
        const answer: unknown = await (
          member as (input: unknown) => Promise<unknown>
        )(input);
        // Every eighth, and now and then several in a row: more than one call's own tries.
        if (++calls % 8 === 0 || calls % 50 < 5)
          throw engineError("transport", {
            backend: "sqlite",
            backendKind: "transport",
            message: "reply lost",
          });
        return answer;
      };
    },
  });
  const client = new Client({ backend });
  const runs = new Map<string, number>();
  const worker = new Worker({
    backend: unreliable,
    maxConcurrentTasks: 5,
    prefetch: 2,
    maintenance: false,
  });
  worker.handle("job", async (_bytes, { executionId }) => {
    runs.set(executionId, (runs.get(executionId) ?? 0) + 1);
    await pause(1);
  });
  const ids: string[] = [];
  for (let i = 0; i < 80; i++)
    ids.push((await client.submit({ executionKind: "job" })).executionId);

  const run = worker.run({ stopOn: [] });
  const results = await Promise.all(
    ids.map((executionId) => client.result({ executionId, timeoutMs: 15_000 })),
  );
  expect(results.filter(({ kind }) => kind !== "completed")).toEqual([]);
  await until(() => worker.stats().completed === ids.length);

  expect([...runs.values()]).toEqual(ids.map(() => 1));
  await worker.stop();
  expect(await run).toEqual({ completed: 80, failed: 0, abandoned: 0 });
  const snapshots = await Promise.all(
    ids.map((executionId) => client.inspect(executionId)),
  );
  expect(
    snapshots.filter(
      (snapshot) =>
        snapshot?.publicState === "completed" && snapshot.leaseEpoch === 1,
    ),
  ).toHaveLength(80);
});
