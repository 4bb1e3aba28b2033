import { engineError, type ExecutionPolicyInput } from "@flowfabric/core";
import { expect, test } from "vitest";
import { z } from "zod";

import { Client } from "../src/client.js";
import { defineExecution } from "../src/definition.js";
import {
  ConfigError,
  LeaseLostError,
  TaskCancelledError,
  TaskFailure,
} from "../src/errors.js";
import { dataKey } from "../src/handlers.js";
import { Worker, type WorkerOptions } from "../src/worker.js";
import {
  openStore,
  pause,
  recordingLogger,
  until,
  withFaults,
} from "./store.js";

const Shrink = defineExecution({
  kind: "shrink",
  input: z.object({ width: z.number().transform((px) => `${px}px`) }),
  output: z.object({ path: z.string() }),
});

/** A worker on an empty store; `run` starts it and the test's end stops it. */
async function open(options: Partial<WorkerOptions> = {}) {
  const store = await openStore();
  const faults = withFaults(store.backend);
  const logger = recordingLogger();
  const client = new Client({ backend: store.backend });
  const worker = new Worker({
    backend: faults.backend,
    logger,
    drainTimeoutMs: 5_000,
    ...options,
  });
  return { ...store, faults, logger, client, worker };
}

const run = (worker: Worker) => worker.run({ stopOn: [] });

test("a definition carries its types and transforms from submit to result", async () => {
  const { client, worker } = await open();
  worker.handle(Shrink, (input) => ({ path: `cat-${input.width}.png` }));
  const running = run(worker);

  const { executionId } = await client.submit(Shrink, {
    input: { width: 320 },
  });
  const end = await client.result(Shrink, { executionId, timeoutMs: 10_000 });

  expect(end).toMatchObject({ output: { path: "cat-320px.png" } });
  await worker.stop();
  expect(await running).toEqual({ completed: 1, failed: 0, abandoned: 0 });
});

test("an untyped handler gets bytes and may return bytes, values or nothing", async () => {
  const { client, worker } = await open();
  const outputs = [Uint8Array.of(1, 2), { a: 1 }, undefined];
  worker.handle("raw", (bytes) => outputs[bytes[0] ?? 0]);
  const running = run(worker);

  const results: unknown[] = [];
  for (const index of outputs.keys()) {
    const { executionId } = await client.submit({
      executionKind: "raw",
      inputPayload: Uint8Array.of(index),
    });
    const end = await client.result({ executionId, timeoutMs: 10_000 });
    results.push(end.kind === "completed" && end.output && [...end.output]);
  }

  expect(results).toEqual([
    [1, 2],
    [...new TextEncoder().encode('{"a":1}')],
    undefined,
  ]);
  await worker.stop();
  await running;
});

class Clock {
  now = () => 7;
}
const Greeting = dataKey<string>("greeting");

test("handlers share values by class or key, the last one given", async () => {
  const { client, worker } = await open();
  worker
    .data(Greeting, "bye")
    .data(Greeting, "hello")
    .data(Clock, new Clock())
    .handle("shared", (_bytes, _task, { use }) => [
      use(Greeting),
      use(Clock).now(),
    ]);
  const running = run(worker);

  const { executionId } = await client.submit({ executionKind: "shared" });
  const end = await client.result({ executionId, timeoutMs: 10_000 });

  expect(end.kind === "completed" && new TextDecoder().decode(end.output)).toBe(
    '["hello",7]',
  );
  await worker.stop();
  await running;
});

const failures: [
  string,
  { kind?: string; payload?: Uint8Array },
  (worker: Worker) => void,
  string,
  RegExp,
][] = [
  [
    "a rejection, with its chain of causes",
    {},
    (worker) =>
      worker.handle("job", async () => {
        throw new Error("outer", {
          cause: new Error("middle", { cause: new Error("root") }),
        });
      }),
    "handler_error",
    /^outer: middle: root$/,
  ],
  [
    "a failure with a category of its own",
    {},
    (worker) =>
      worker.handle("job", async () => {
        throw new TaskFailure({
          reason: "no such account",
          category: "bad_account",
          cause: new Error("404"),
        });
      }),
    "bad_account",
    /^no such account: 404$/,
  ],
  [
    "a synchronous throw",
    {},
    (worker) =>
      worker.handle("job", () => {
        throw new Error("at once");
      }),
    "handler_panic",
    /^handler panicked: at once$/,
  ],
  [
    "a thrown value that is no error",
    {},
    (worker) =>
      worker.handle("job", async () => {
        // eslint-disable-next-line typescript/only-throw-error -- what is tested
        throw { status: 500 };
      }),
    "handler_panic",
    /^handler panicked: {"status":500}$/,
  ],
  [
    "an unknown kind",
    { kind: "unheard-of" },
    () => {},
    "runtime_no_handler",
    /unheard-of/,
  ],
  [
    "an input that is no JSON",
    { kind: "shrink", payload: Uint8Array.of(1) },
    (worker) => worker.handle(Shrink, () => ({ path: "" })),
    "extractor_payload_decode",
    /not readable as json/,
  ],
  [
    "an input that does not validate",
    { kind: "shrink", payload: new TextEncoder().encode('{"width":"x"}') },
    (worker) => worker.handle(Shrink, () => ({ path: "" })),
    "extractor_payload_decode",
    /width/,
  ],
  [
    "an output that does not validate",
    { kind: "shrink", payload: new TextEncoder().encode('{"width":1}') },
    (worker) => worker.handle(Shrink, () => ({ path: 7 as unknown as string })),
    "handler_output_invalid",
    /path/,
  ],
  [
    "an output that cannot be written",
    {},
    (worker) => worker.handle("job", () => 1n),
    "handler_output_invalid",
    /not writable as json/,
  ],
  [
    "an output that is too large",
    {},
    (worker) => worker.handle("job", () => new Uint8Array(1_048_577)),
    "handler_output_invalid",
    /payload_too_large/,
  ],
  [
    "a shared value that nobody gave",
    {},
    (worker) =>
      worker.handle("job", async (_bytes, _task, { use }) => use(Clock)),
    "extractor_missing_state",
    /Clock/,
  ],
];

test.each(failures)(
  "%s fails the attempt with its own category",
  async (_name, work, register, category, reason) => {
    const { client, worker } = await open();
    register(worker);
    const running = run(worker);

    const { executionId } = await client.submit({
      executionKind: work.kind ?? "job",
      inputPayload: work.payload,
    });
    const end = await client.result({ executionId, timeoutMs: 10_000 });

    expect(end).toMatchObject({ kind: "failed", category });
    expect(end.kind === "failed" && end.reason).toMatch(reason);
    await worker.stop();
    expect(await running).toMatchObject({ completed: 0, failed: 1 });
  },
);

test("one item too large does not hold up what ended in the same tick", async () => {
  const { client, worker } = await open({ maxConcurrentTasks: 3 });
  worker.handle(
    "job",
    async (bytes) => new Uint8Array(bytes[0] === 1 ? 2e6 : 1),
  );
  const submitted = await Promise.all(
    [0, 1, 0].map((size) =>
      client.submit({
        executionKind: "job",
        inputPayload: Uint8Array.of(size),
      }),
    ),
  );
  const running = run(worker);

  const ends = await Promise.all(
    submitted.map(({ executionId }) =>
      client.result({ executionId, timeoutMs: 10_000 }),
    ),
  );

  expect(ends.map(({ kind }) => kind)).toEqual([
    "completed",
    "failed",
    "completed",
  ]);
  await worker.stop();
  await running;
});

test("a handler may end its task itself; the worker does nothing more", async () => {
  const { client, worker, logger } = await open();
  worker.handle("job", async (bytes, task) => {
    if (bytes[0] === 1) await task.fail({ reason: "x", category: "permanent" });
    else if (bytes[0] === 2) await task.cancel("enough");
    else if (task.handleKind === "fresh")
      await task.delay({ delayUntilMs: Date.now() + 10 });
    return "ignored when ended already";
  });
  const running = run(worker);

  const kinds: string[] = [];
  for (const how of [1, 2, 3]) {
    const { executionId } = await client.submit({
      executionKind: "job",
      inputPayload: Uint8Array.of(how),
    });
    const end = await client.result({ executionId, timeoutMs: 10_000 });
    kinds.push(end.kind);
  }

  expect(kinds).toEqual(["failed", "cancelled", "completed"]);
  await worker.stop();
  expect(await running).toEqual({ completed: 1, failed: 1, abandoned: 0 });
  expect(logger.warnings()).toEqual([]);
});

test("a kind has one handler", async () => {
  const { worker } = await open();
  worker.handle("job", () => {});

  expect(() => worker.handle("job", () => {})).toThrow(ConfigError);
});

test("a worker runs once at a time, and again after it stopped", async () => {
  const { worker } = await open();
  const first = run(worker);
  await expect(run(worker)).rejects.toMatchObject({
    detail: { context: "worker_run" },
  });
  await worker.stop();
  await first;

  const second = run(worker);
  await worker.stop();
  expect(await second).toEqual({ completed: 0, failed: 0, abandoned: 0 });
});

test("a failed attempt is tried again by its policy", async () => {
  const { client, worker } = await open();
  const policy: ExecutionPolicyInput = {
    retryPolicy: { maxRetries: 2, backoff: { type: "fixed", delayMs: 20 } },
  };
  worker.handle("flaky", async (_bytes, task) => {
    if (task.attemptIndex < 2) throw new Error("not yet");
    return task.attemptIndex;
  });
  const running = run(worker);

  const { executionId } = await client.submit({
    executionKind: "flaky",
    policy,
  });
  const end = await client.result({ executionId, timeoutMs: 10_000 });

  expect(end.kind === "completed" && new TextDecoder().decode(end.output)).toBe(
    "2",
  );
  await worker.stop();
  expect(await running).toEqual({ completed: 1, failed: 2, abandoned: 0 });
});

test("cancelled from elsewhere: the signal fires, no outcome is sent, the worker goes on", async () => {
  const { client, worker, faults } = await open();
  const reasons: unknown[] = [];
  worker.handle("job", async (bytes, { signal }) => {
    if (bytes.length > 0) return;
    await new Promise<void>((resolve) =>
      signal.addEventListener("abort", () => resolve()),
    );
    reasons.push(signal.reason);
    throw signal.reason as Error;
  });
  const running = run(worker);
  const { executionId } = await client.submit({ executionKind: "job" });
  await until(() => worker.stats().running === 1);
  faults.clear();

  await client.cancel({ executionId, reason: "too slow" });
  await until(() => worker.stats().lost === 1);

  expect(reasons).toMatchObject([
    { code: "task_cancelled", detail: { reason: "too slow" } },
  ]);
  expect(reasons[0]).toBeInstanceOf(TaskCancelledError);
  for (const outcome of ["complete", "fail", "completeAndClaim"] as const)
    expect(faults.callsOf(outcome)).toEqual([]);
  const next = await client.submit({
    executionKind: "job",
    inputPayload: Uint8Array.of(1),
  });
  expect(await client.result({ ...next, timeoutMs: 10_000 })).toMatchObject({
    kind: "completed",
  });
  await worker.stop();
  expect(await running).toEqual({ completed: 1, failed: 0, abandoned: 0 });
});

test("a lost lease: the handler's result is discarded", async () => {
  const { client, worker, logger } = await open();
  const aborted: unknown[] = [];
  worker.handle("job", async (_bytes, { signal, attemptIndex }) => {
    if (attemptIndex > 0) return "second";
    await until(() => signal.aborted);
    aborted.push(signal.reason);
    return "first";
  });
  const running = run(worker);
  const { executionId } = await client.submit({ executionKind: "job" });
  await until(() => worker.stats().running === 1);

  await client.admin.revokeLease({ executionId });
  const end = await client.result({ executionId, timeoutMs: 20_000 });

  expect(aborted[0]).toBeInstanceOf(LeaseLostError);
  expect(end.kind === "completed" && new TextDecoder().decode(end.output)).toBe(
    '"second"',
  );
  expect(logger.warnings()).toContain("outcome discarded: the lease is lost");
  await worker.stop();
  await running;
});

test("an outcome whose reply is lost is sent again until it is known", async () => {
  const { client, worker, faults } = await open();
  worker.handle("job", () => "done");
  // More than the tries of one call: the runner's own patience is needed.
  faults.loseReplies("completeAndClaim", 4);
  const running = run(worker);

  const { executionId } = await client.submit({ executionKind: "job" });
  const end = await client.result({ executionId, timeoutMs: 10_000 });
  await until(() => worker.stats().completed === 1);

  expect(end.kind).toBe("completed");
  await worker.stop();
  expect(await running).toEqual({ completed: 1, failed: 0, abandoned: 0 });
});

test("a claim that fails for a while is tried again", async () => {
  const { client, worker, faults, logger } = await open();
  worker.handle("job", () => "done");
  faults.loseCalls("claimMany", 5);
  const running = run(worker);

  const { executionId } = await client.submit({ executionKind: "job" });
  const end = await client.result({ executionId, timeoutMs: 15_000 });

  expect(end.kind).toBe("completed");
  expect(logger.warnings()).toContain("claim failed, trying again");
  await worker.stop();
  await running;
});

test("leases of a claim that was given up are found again under its request", async () => {
  const { client, worker, faults } = await open();
  worker.handle("job", (_bytes, task) => task.leaseEpoch);
  const { executionId } = await client.submit({ executionKind: "job" });
  // Applied at the first try; all three replies are lost, and one more.
  faults.loseReplies("claimMany", 4);
  const running = run(worker);

  const end = await client.result({ executionId, timeoutMs: 15_000 });

  expect(end.kind === "completed" && new TextDecoder().decode(end.output)).toBe(
    "1",
  );
  await worker.stop();
  await running;
});

test("what no repeat cures ends the run with that error, after draining", async () => {
  const { client, worker, faults } = await open();
  worker.handle("job", async () => {
    faults.refuse(
      "claimMany",
      engineError("transport", {
        backend: "sqlite",
        backendKind: "auth",
        message: "no access",
      }),
      Infinity,
    );
    await pause(50);
    return "done";
  });
  const { executionId } = await client.submit({ executionKind: "job" });

  await expect(run(worker)).rejects.toMatchObject({
    detail: { backendKind: "auth" },
  });

  expect(await client.result({ executionId, timeoutMs: 0 })).toMatchObject({
    kind: "completed",
  });
  expect(worker.stats()).toMatchObject({ completed: 1, running: 0 });
  expect((await client.admin.listWorkers({})).entries).toEqual([]);
});

test("one bad record does not stop a worker that others still have work for", async () => {
  const { client, worker, faults, logger } = await open();
  worker.handle("job", () => "done");
  faults.refuse(
    "claimMany",
    engineError("corruption", { context: "c", field: "f", message: "m" }),
    2,
  );
  const running = run(worker);

  const { executionId } = await client.submit({ executionKind: "job" });

  expect(await client.result({ executionId, timeoutMs: 10_000 })).toMatchObject(
    { kind: "completed" },
  );
  expect(logger.warnings()).toContain("claim failed, trying again");
  await worker.stop();
  await running;
});

test("an outcome refused for good is given up, and the worker goes on", async () => {
  const { client, worker, faults, logger } = await open();
  worker.handle("job", () => "done");
  faults.refuse(
    "completeAndClaim",
    engineError("unavailable", { op: "completeAndClaim" }),
  );
  const running = run(worker);
  await client.submit({ executionKind: "job" });
  await until(() => worker.stats().lost === 1);

  const next = await client.submit({ executionKind: "job" });

  expect(await client.result({ ...next, timeoutMs: 10_000 })).toMatchObject({
    kind: "completed",
  });
  expect(logger.lines.filter(({ level }) => level === "error")).toHaveLength(1);
  await worker.stop();
  await running;
});

test("a blocked event loop is named for what it is", async () => {
  const { client, worker, logger } = await open({ leaseTtlMs: 1_000 });
  worker.handle("job", () => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 600);
  });
  const running = run(worker);
  const { executionId } = await client.submit({ executionKind: "job" });
  await client.result({ executionId, timeoutMs: 10_000 });
  await pause(100);

  const blocked = logger.lines.find(({ message }) =>
    message.startsWith("the event loop was blocked"),
  );
  expect(blocked?.fields).toMatchObject({ leaseTtlMs: 1_000 });
  expect(blocked?.fields?.["blockedMs"]).toBeGreaterThan(333);
  await worker.stop();
  await running;
});

test("spare time goes into housekeeping, and its errors are logged only", async () => {
  const { worker, faults, logger } = await open();
  faults.refuse("sweep", new Error("no time"));
  const running = run(worker);

  await until(() => faults.callsOf("sweep").length >= 4);

  expect(
    faults.callsOf("sweep").map((input) => (input as { name: string }).name),
  ).toEqual([
    "unblock",
    "worker_registry_ttl_sweep",
    "retention_trimmer",
    "event_trimmer",
  ]);
  expect(logger.warnings()).toEqual(["maintenance portion failed"]);
  await worker.stop();
  await running;
});

test("maintenance: false keeps out of it", async () => {
  const { worker, faults } = await open({ maintenance: false });
  const running = run(worker);
  await pause(200);
  await worker.stop();
  await running;

  expect(faults.callsOf("sweep")).toEqual([]);
});
