import { engineError, isEngineError } from "@flowfabric/core";
import { expect, test } from "vitest";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import { ConfigError, WorkerDisposedError } from "../src/errors.js";
import { openStore, pause, recordingLogger, withFaults } from "./store.js";

async function open(options: { push?: boolean } = {}) {
  const store = await openStore(options);
  const faults = withFaults(store.backend);
  const client = new Client({ backend: store.backend });
  return {
    ...store,
    faults,
    client,
    submit: async (count = 1, laneId = "default") => {
      for (let i = 0; i < count; i++)
        await client.submit({ executionKind: "job", laneId });
    },
  };
}

test("a connection is registered as one step, with an empty capability set, too", async () => {
  const { backend, client } = await open();
  await using conn = await connect({
    backend,
    workerId: "mailers",
    lanes: ["mail", "sms"],
  });

  const { entries } = await client.admin.listWorkers({});

  expect(entries).toMatchObject([
    {
      workerId: "mailers",
      workerInstanceId: conn.config.workerInstanceId,
      lanes: ["mail", "sms"],
      capabilities: [],
      livenessTtlMs: 60_000,
    },
  ]);
});

test("a live instance id is refused; free again after dispose, and after its time", async () => {
  const { backend, client, passTime } = await open();
  const options = { backend, workerInstanceId: "host-1" };
  const first = await connect(options);
  // Ids around it in the list must not hide it.
  await using _before = await connect({ backend, workerInstanceId: "host-" });
  await using _after = await connect({ backend, workerInstanceId: "host-11" });

  await expect(connect(options)).rejects.toMatchObject({
    detail: { context: "worker_connect", field: "worker_instance_id" },
  });
  await first[Symbol.asyncDispose]();
  await (await connect(options))[Symbol.asyncDispose]();

  await client.admin.registerWorker({
    workerId: "other",
    workerInstanceId: "host-1",
    lanes: ["default"],
    capabilities: [],
    livenessTtlMs: 5_000,
  });
  await expect(connect(options)).rejects.toBeInstanceOf(ConfigError);
  passTime(6_000);
  await using again = await connect(options);
  expect(again.config.workerInstanceId).toBe("host-1");
});

test("the same instance id in another namespace is another process", async () => {
  const { backend } = await open();
  await using _one = await connect({ backend, workerInstanceId: "host-1" });
  await using two = await connect({
    backend,
    workerInstanceId: "host-1",
    namespace: "other",
  });

  expect(two.freePermits).toBe(1);
});

test("a registry that cannot be written is one warning, and claims still work", async () => {
  const { faults, submit } = await open();
  const logger = recordingLogger();
  faults.loseCalls("registerWorker", Infinity);
  await submit();

  await using conn = await connect({ backend: faults.backend, logger });
  await using task = await conn.claimNext();

  expect(task).toBeDefined();
  expect(logger.warnings()).toEqual([
    "worker could not be registered; it claims all the same",
  ]);
});

test("other partition counts than the store's are refused", async () => {
  const { backend } = await open();

  await expect(
    connect({ backend, partitionConfig: { flow: 64, budget: 32, quota: 32 } }),
  ).rejects.toMatchObject({
    detail: { context: "worker_connect", field: "partition_config" },
  });
  await using conn = await connect({
    backend,
    partitionConfig: { flow: 256, budget: 32, quota: 32 },
  });
  expect(conn.partitionConfig.flow).toBe(256);
});

test("a backend that cannot claim is refused", async () => {
  const { backend } = await open();
  const lame = new Proxy(backend, {
    get: (target, name, receiver) =>
      name === "capabilities"
        ? () => ({
            ...target.capabilities(),
            supports: { ...target.capabilities().supports, claimMany: false },
          })
        : (Reflect.get(target, name, receiver) as unknown),
  });

  await expect(connect({ backend: lame })).rejects.toMatchObject({
    detail: { context: "worker_connect" },
  });
});

test("dispose leaves the registry, keeps the store open, and may be repeated", async () => {
  const { backend, client, submit } = await open();
  await submit();
  const logger = recordingLogger();
  const conn = await connect({ backend, logger });
  const task = await conn.claimNext();

  await conn[Symbol.asyncDispose]();
  await conn[Symbol.asyncDispose]();

  expect((await client.admin.listWorkers({})).entries).toEqual([]);
  expect(task?.signal.reason).toBeInstanceOf(WorkerDisposedError);
  expect(logger.warnings()).toHaveLength(1);
  await expect(conn.claimNext()).rejects.toBeInstanceOf(WorkerDisposedError);
  await expect(backend.ping()).resolves.toBeUndefined();
});

test("at capacity nothing is sent", async () => {
  const { faults, submit } = await open();
  await submit(3);
  await using conn = await connect({
    backend: faults.backend,
    maxConcurrentTasks: 2,
  });
  const held = await conn.claimMany({ max: 10 });
  expect(held).toHaveLength(2);
  faults.clear();

  expect(await conn.claimMany({ max: 1 })).toEqual([]);
  expect(await conn.claimNext()).toBeUndefined();

  expect(faults.calls()).toEqual([]);
  await held[0]?.complete();
  expect(conn.freePermits).toBe(1);
  expect(await conn.claimNext()).toBeDefined();
});

test("an empty claim and a failed one give their permits back", async () => {
  const { faults } = await open();
  await using conn = await connect({
    backend: faults.backend,
    maxConcurrentTasks: 3,
  });

  expect(await conn.claimMany({ max: 3 })).toEqual([]);
  expect(conn.freePermits).toBe(3);
  faults.refuse("claimMany", engineError("unavailable", { op: "claimMany" }));
  await expect(conn.claimMany({ max: 3 })).rejects.toSatisfy((e) =>
    isEngineError(e, "unavailable"),
  );
  expect(conn.freePermits).toBe(3);
});

test("parallel claims never take more than there are permits", async () => {
  const { backend, submit } = await open();
  await submit(20);
  await using conn = await connect({ backend, maxConcurrentTasks: 4 });

  const tasks = await Promise.all(
    Array.from({ length: 12 }, () => conn.claimNext()),
  );

  expect(tasks.filter(Boolean)).toHaveLength(4);
  expect(conn.freePermits).toBe(0);
});

test("a claim whose reply was lost gets the same leases, once", async () => {
  const { faults, client, submit } = await open();
  await submit(3);
  await using conn = await connect({
    backend: faults.backend,
    maxConcurrentTasks: 2,
  });
  faults.loseReplies("claimMany", 2);

  const tasks = await conn.claimMany({ max: 2 });

  expect(tasks.map(({ leaseEpoch }) => leaseEpoch)).toEqual([1, 1]);
  const active = await client.list({ publicStates: ["active"] });
  expect(active.executions.sort()).toEqual(
    tasks.map(({ executionId }) => executionId).sort(),
  );
  expect(
    new Set(
      faults
        .callsOf("claimMany")
        .map((input) => (input as { requestId: string }).requestId),
    ).size,
  ).toBe(1);
});

test("a parked claim hears of new work at once", async () => {
  const { backend, submit } = await open();
  await using conn = await connect({ backend });
  const parked = conn.claimNext({ maxWaitMs: 20_000 });
  await pause(50);

  const submittedAt = performance.now();
  await submit();

  expect(await parked).toBeDefined();
  expect(performance.now() - submittedAt).toBeLessThan(900);
});

test("aborting ends the wait, never what was claimed", async () => {
  const { backend } = await open();
  await using conn = await connect({ backend });
  const abort = new AbortController();
  const parked = conn.claimNext({ maxWaitMs: 20_000 }, abort);
  await pause(20);

  abort.abort(new Error("enough"));

  await expect(parked).rejects.toThrow("enough");
  expect(conn.freePermits).toBe(1);
});

test("lanes take turns, and a call may choose among them", async () => {
  const { backend, submit } = await open();
  for (const lane of ["a", "b", "c"]) await submit(3, lane);
  await using conn = await connect({
    backend,
    lanes: ["a", "b", "c"],
    maxConcurrentTasks: 9,
  });

  const lanes: string[] = [];
  for (let i = 0; i < 6; i++) lanes.push((await conn.claimNext())!.laneId);
  const chosen = await conn.claimNext({ lanes: ["c"] });

  expect(lanes).toEqual(["a", "b", "c", "a", "b", "c"]);
  expect(chosen?.laneId).toBe("c");
  await expect(conn.claimNext({ lanes: ["d"] })).rejects.toBeInstanceOf(
    ConfigError,
  );
});

test("only matching work comes: namespace and capabilities", async () => {
  const { backend, client } = await open();
  const needsGpu = {
    routingRequirements: { requiredCapabilities: ["gpu"] },
  };
  await client.submit({ executionKind: "gpu", policy: needsGpu });
  await client.submit({ executionKind: "foreign", namespace: "other" });
  await using plain = await connect({ backend });
  await using capable = await connect({ backend, capabilities: ["gpu", "eu"] });

  expect(await plain.claimNext()).toBeUndefined();
  expect((await capable.claimNext())?.executionKind).toBe("gpu");
  expect(await capable.claimNext()).toBeUndefined();
});

test("tasks() goes on as long as there is work, one at a time, until aborted", async () => {
  const { backend, submit } = await open();
  await submit(2);
  await using conn = await connect({ backend });
  const abort = new AbortController();
  let seen = 0;

  for await (const task of conn.tasks({ signal: abort.signal })) {
    await using _dropped = task;
    await task.complete();
    seen++;
    if (seen === 2) setTimeout(() => void submit(), 50);
    if (seen === 3) abort.abort();
  }

  expect(seen).toBe(3);
  expect(conn.freePermits).toBe(1);
});

test("tasks() without push finds work by polling, and ends with the connection", async () => {
  const { backend, submit } = await open({ push: false });
  const conn = await connect({ backend, push: false });
  const seen: string[] = [];
  const loop = (async () => {
    for await (const task of conn.tasks()) {
      seen.push(task.executionKind);
      await task.complete();
      await conn[Symbol.asyncDispose]();
    }
  })();
  await pause(300);

  await submit();
  await loop;

  expect(seen).toEqual(["job"]);
});

test("scanNext warns once that it passes over admission", async () => {
  const { backend, submit } = await open();
  await submit(2);
  const logger = recordingLogger();
  await using conn = await connect({
    backend,
    logger,
    maxConcurrentTasks: 2,
  });

  expect(await conn.scanNext()).toBeDefined();
  expect(await conn.scanNext()).toBeDefined();
  expect(await conn.scanNext()).toBeUndefined();

  expect(logger.warnings()).toHaveLength(1);
});

test("a claim keeps a worker visible that could not register", async () => {
  const { faults, client } = await open();
  faults.loseCalls("registerWorker", Infinity);
  await using conn = await connect({ backend: faults.backend });

  await conn.claimNext();

  const { entries } = await client.admin.listWorkers({});
  expect(entries.map(({ workerInstanceId }) => workerInstanceId)).toEqual([
    conn.config.workerInstanceId,
  ]);
});
