import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import {
  engineError,
  isEngineError,
  type ErrorCode,
  type ExecutionPolicyInput,
} from "@flowfabric/core";
import { expect, test } from "vitest";
import { z } from "zod";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import { defineExecution } from "../src/definition.js";
import {
  LeaseLostError,
  PayloadDecodeError,
  TaskCancelledError,
} from "../src/errors.js";
import {
  openStore,
  pause,
  recordingLogger,
  until,
  withFaults,
} from "./store.js";

const retrying: ExecutionPolicyInput = {
  retryPolicy: { maxRetries: 2, backoff: { type: "fixed", delayMs: 60_000 } },
};

/** One claimed task of one submitted execution. */
async function claimed(
  options: { policy?: ExecutionPolicyInput; leaseTtlMs?: number } = {},
) {
  const store = await openStore();
  const faults = withFaults(store.backend);
  const client = new Client({ backend: store.backend });
  const logger = recordingLogger();
  const conn = await connect({
    backend: faults.backend,
    leaseTtlMs: options.leaseTtlMs ?? 30_000,
    maxConcurrentTasks: 2,
    logger,
  });
  await client.submit({
    executionKind: "job",
    inputPayload: new TextEncoder().encode('{"n":1}'),
    tags: { "app.a": "1" },
    ...(options.policy && { policy: options.policy }),
  });
  const task = (await conn.claimNext())!;
  faults.clear();
  return { ...store, faults, client, logger, conn, task };
}

test("a task shows what its holder needs", async () => {
  const { task } = await claimed();

  expect(task).toMatchObject({
    laneId: "default",
    executionKind: "job",
    tags: { "app.a": "1" },
    attemptIndex: 0,
    attemptType: "initial",
    leaseEpoch: 1,
    handleKind: "fresh",
    state: "active",
    isLeaseHealthy: true,
    consecutiveRenewalFailures: 0,
  });
  expect(await task.input(z.object({ n: z.number() }))).toEqual({ n: 1 });
  await expect(task.input(z.string())).rejects.toMatchObject({
    code: "payload_decode",
    detail: { at: "handler" },
  });
});

test("no input is undefined", async () => {
  const { client, conn } = await claimed();
  await client.submit({ executionKind: "bare" });

  const task = await conn.claimNext();

  expect(task?.inputPayload).toHaveLength(0);
  expect(await task?.input(z.undefined())).toBeUndefined();
});

test.each([
  ["complete", (t: Claimed) => t.complete({ ok: 1 }), "completed"],
  ["fail", (t: Claimed) => t.fail({ reason: "no" }), "failed"],
  ["cancel", (t: Claimed) => t.cancel("enough"), "cancelled"],
  ["delay", (t: Claimed) => t.delay({ delayUntilMs: 1 }), "waiting"],
] as const)(
  "%s consumes: permit free, renewal ended, the next call names it",
  async (operation, end, publicState) => {
    const { client, conn, task, logger } = await claimed();
    expect(conn.freePermits).toBe(1);

    await end(task);

    expect(task.state).toBe("consumed");
    expect(conn.freePermits).toBe(2);
    expect((await client.inspect(task.executionId))?.publicState).toBe(
      publicState,
    );
    for (const again of [
      task.complete(),
      task.fail({ reason: "x" }),
      task.progress({ percent: 1 }),
      task.renew(),
    ])
      await expect(again).rejects.toMatchObject({
        code: "task_consumed",
        detail: { consumedBy: operation },
      });
    await task[Symbol.asyncDispose]();
    expect(conn.freePermits).toBe(2);
    expect(logger.warnings()).toEqual([]);
  },
);
type Claimed = Awaited<ReturnType<typeof claimed>>["task"];

test("fail answers what became of it; the category goes verbatim and decides the class", async () => {
  const { client, conn, task } = await claimed({ policy: retrying });

  const answer = await task.fail({ reason: "flaky", category: "my-category" });

  expect(answer).toEqual({
    kind: "retryScheduled",
    delayUntilMs: expect.closeTo(Date.now() + 60_000, -5) as number,
  });
  expect(await client.inspect(task.executionId)).toMatchObject({
    publicState: "delayed",
    retryCount: 1,
  });
  await client.submit({ executionKind: "job", policy: retrying });
  const other = (await conn.claimNext())!;
  expect(await other.fail({ reason: "no", category: "permanent" })).toEqual({
    kind: "terminalFailed",
  });
  expect(await client.inspect(other.executionId)).toMatchObject({
    failureReason: "no",
    failureCategory: "permanent",
  });
});

test("delay: the same attempt goes on, resumed under a new epoch", async () => {
  const { conn, task } = await claimed();

  await task.delay({ delayUntilMs: Date.now() });
  const resumed = (await conn.claimNext({ maxWaitMs: 5_000 }))!;

  expect(resumed).toMatchObject({
    executionId: task.executionId,
    attemptId: task.attemptId,
    attemptIndex: 0,
    leaseEpoch: 2,
    handleKind: "resumed",
  });
});

test("a retry is the next attempt", async () => {
  const { conn, task, passTime } = await claimed({ policy: retrying });

  await task.fail({ reason: "flaky" });
  passTime(61_000);
  const retried = (await conn.claimNext())!;

  expect(retried).toMatchObject({
    attemptIndex: 1,
    attemptType: "retry",
    handleKind: "fresh",
  });
});

test("behind a lost reply the same call succeeds, and nothing happens twice", async () => {
  const { client, faults, conn, task } = await claimed();
  faults.loseReplies("complete");

  await expect(task.complete({ n: 1 })).rejects.toThrow("calling the store");
  expect(task.state).toBe("active");
  expect(conn.freePermits).toBe(1);
  await task.complete({ n: 1 });

  expect(task.state).toBe("consumed");
  const { events } = await client.admin.readEvents(task);
  expect(events.map(({ type }) => type)).toEqual([
    "created",
    "claimed",
    "completed",
  ]);
});

test("the same for cancel, delay and fail, whose retry keeps its time", async () => {
  const first = await claimed();
  first.faults.loseReplies("cancel");
  await expect(first.task.cancel("x")).rejects.toThrow();
  await first.task.cancel("x");

  const second = await claimed();
  second.faults.loseReplies("delay");
  const delay = { delayUntilMs: Date.now() + 50_000 };
  await expect(second.task.delay(delay)).rejects.toThrow();
  expect(await second.task.delay(delay)).toEqual(delay);

  const third = await claimed({ policy: retrying });
  third.faults.loseReplies("fail");
  await expect(third.task.fail({ reason: "x" })).rejects.toThrow();
  const answer = await third.task.fail({ reason: "x" });
  expect(answer.kind).toBe("retryScheduled");
  expect((await third.client.inspect(third.task.executionId))?.retryCount).toBe(
    1,
  );
});

test("a repeated fail answers 0 once its retry is promoted, and surfaces once it is claimed", async () => {
  const { backend, conn, faults, passTime, task } = await claimed({
    policy: retrying,
  });
  faults.loseReplies("fail");
  await expect(task.fail({ reason: "x" })).rejects.toThrow();
  passTime(61_000);
  await backend.sweep({ name: "delayed_promoter" });

  faults.loseReplies("fail");
  await expect(task.fail({ reason: "x" })).rejects.toThrow();
  expect(await task.fail({ reason: "x" })).toEqual({
    kind: "retryScheduled",
    delayUntilMs: 0,
  });

  const second = (await conn.claimNext())!;
  faults.loseReplies("fail");
  await expect(second.fail({ reason: "x" })).rejects.toThrow();
  passTime(61_000);
  const third = (await conn.claimNext({ maxWaitMs: 5_000 }))!;
  expect(third.attemptIndex).toBe(2);
  await expect(second.fail({ reason: "x" })).rejects.toSatisfy((e) =>
    isEngineError(e, "stale_lease"),
  );
});

test("what became of an execution that is no longer ours stands in the refusal", async () => {
  const { client, faults, task } = await claimed();
  await client.cancel({ executionId: task.executionId, reason: "x" });
  faults.clear();

  await expect(task.complete()).rejects.toMatchObject({
    code: "execution_not_active",
    detail: {
      terminalOutcome: "cancelled",
      leaseEpoch: 1,
      lifecyclePhase: "terminal",
      attemptId: task.attemptId,
    },
  });
});

test.each([
  engineError("unavailable", { op: "complete" }),
  engineError("resource_exhausted", { pool: "p", max: 1 }),
  engineError("timeout", { op: "complete", elapsedMs: 1 }),
  engineError("retry_exhausted", { attempts: 3 }),
  engineError("payload_too_large", { maxBytes: 1, actualBytes: 2 }),
])("$code leaves the task usable", async (error) => {
  const { faults, conn, task } = await claimed();
  faults.refuse("complete", error);

  await expect(task.complete()).rejects.toBe(error);

  expect(task.state).toBe("active");
  expect(conn.freePermits).toBe(1);
  await task.complete();
});

test.each([
  "stale_lease",
  "lease_expired",
  "lease_revoked",
  "lease_conflict",
  "execution_not_found",
  "corruption",
] as ErrorCode[])(
  "%s consumes, ends renewal and aborts the signal",
  async (code) => {
    const { faults, conn, task } = await claimed();
    faults.refuse("complete", engineError(code, {}));

    await expect(task.complete()).rejects.toMatchObject({ code });

    expect(task.state).toBe("consumed");
    expect(conn.freePermits).toBe(2);
    expect(task.signal.reason).toMatchObject({
      code: "lease_lost",
      detail: { leaseEpoch: 1, reason: code },
    });
  },
);

test("the same answers to any other call end the holding, too", async () => {
  const { faults, conn, task } = await claimed();
  faults.refuse("progress", engineError("lease_revoked", {}));

  await expect(task.progress({ percent: 1 })).rejects.toThrow();

  expect(task.state).toBe("lost");
  expect(task.isLeaseHealthy).toBe(false);
  expect(task.signal.reason).toBeInstanceOf(LeaseLostError);
  // The handler may still be at it.
  expect(conn.freePermits).toBe(1);
  faults.clear();
  await expect(task.progress({ percent: 2 })).rejects.toBe(task.signal.reason);
  await expect(task.delay({ delayUntilMs: 1 })).rejects.toBe(
    task.signal.reason,
  );
  expect(faults.calls()).toEqual([]);
});

test("an output that does not fit is not sent and does not consume", async () => {
  const { faults, task } = await claimed();
  const Job = defineExecution({
    kind: "job",
    input: z.unknown(),
    output: z.object({ n: z.number() }),
  });

  await expect(
    task.complete(Job, { n: "1" as unknown as number }),
  ).rejects.toBeInstanceOf(PayloadDecodeError);
  await expect(task.complete(1n)).rejects.toBeInstanceOf(PayloadDecodeError);
  expect(faults.calls()).toEqual([]);
  await task.complete(Job, { n: 1 });
});

test("two endings at once: one goes out, the other is told", async () => {
  const { task } = await claimed();

  const [first, second] = await Promise.allSettled([
    task.complete(),
    task.complete(),
  ]);

  expect(first.status).toBe("fulfilled");
  expect(
    second.status === "rejected" && (second.reason as unknown),
  ).toMatchObject({
    code: "terminal_in_flight",
    detail: { consumedBy: "complete" },
  });
});

test("an abort by the caller does not consume; ending it again succeeds", async () => {
  const { faults, task } = await claimed();
  faults.hang("complete");
  const abort = new AbortController();
  const ending = task.complete(undefined, abort);
  await pause(20);

  abort.abort(new Error("no time"));
  await expect(ending).rejects.toThrow("no time");

  expect(task.state).toBe("active");
  await task.complete();
  expect(task.state).toBe("consumed");
});

test("a cancel from elsewhere aborts with its reason, by push", async () => {
  const { client, conn, task } = await claimed();
  const cancelledAt = performance.now();

  await client.cancel({ executionId: task.executionId, reason: "too slow" });
  await until(() => task.signal.aborted);

  expect(performance.now() - cancelledAt).toBeLessThan(5_000);
  expect(task.signal.reason).toBeInstanceOf(TaskCancelledError);
  expect(task.signal.reason).toMatchObject({
    detail: { reason: "too slow", source: "operator_override" },
  });
  expect(task.state).toBe("lost");
  expect(conn.freePermits).toBe(1);
  await expect(task.complete()).rejects.toSatisfy((e) =>
    isEngineError(e, "execution_not_active"),
  );
});

test("with push cut, the next renewal tells, reason included", async () => {
  const store = await openStore();
  const faults = withFaults(store.backend);
  const client = new Client({ backend: store.backend });
  faults.loseCalls("watchWorker", Infinity);
  await using conn = await connect({
    backend: faults.backend,
    leaseTtlMs: 1_000,
  });
  await client.submit({ executionKind: "job" });
  const task = (await conn.claimNext())!;

  await client.cancel({ executionId: task.executionId, reason: "too slow" });
  await until(() => task.signal.aborted);

  expect(task.signal.reason).toMatchObject({
    code: "task_cancelled",
    detail: { reason: "too slow", source: "operator_override" },
  });
});

test("a revoked lease aborts by push, and a notice of an older epoch does not", async () => {
  const { client, conn, task, passTime } = await claimed();
  await client.admin.revokeLease({ executionId: task.executionId });
  await until(() => task.signal.aborted);
  expect(task.signal.reason).toMatchObject({
    code: "lease_lost",
    detail: { reason: "lease_revoked", leaseEpoch: 1 },
  });

  // The same process takes it over; what was said about the first lease is not about this one.
  passTime(2_000);
  const again = (await conn.claimNext({ maxWaitMs: 5_000 }))!;
  await pause(100);

  expect(again).toMatchObject({
    executionId: task.executionId,
    leaseEpoch: 2,
    handleKind: "reclaimed",
    attemptIndex: 1,
  });
  expect(again.signal.aborted).toBe(false);
});

test("renewal keeps a lease beyond its time, and goes on while an ending is slow", async () => {
  const { faults, client, task } = await claimed({ leaseTtlMs: 1_000 });
  faults.hang("complete");
  const abort = new AbortController();
  const ending = task.complete(undefined, abort);
  await pause(1_500);
  expect(faults.callsOf("renew").length).toBeGreaterThan(1);

  abort.abort();
  await expect(ending).rejects.toThrow();
  await task.complete();
  faults.clear();
  await pause(800);

  expect(faults.callsOf("renew")).toEqual([]);
  expect((await client.inspect(task.executionId))?.publicState).toBe(
    "completed",
  );
});

test("an ending carried out with its reply lost is no lost lease to the handler", async () => {
  const { faults, task } = await claimed({ leaseTtlMs: 1_000 });
  faults.loseReplies("complete");

  await expect(task.complete()).rejects.toThrow("calling the store");
  await until(() => faults.callsOf("renew").length > 0);
  await pause(50);

  expect(task.signal.aborted).toBe(false);
  await task.complete();
  expect(task.state).toBe("consumed");
});

test("out of reach for a whole lease: the signal aborts, the engine still decides", async () => {
  const { client, faults, task } = await claimed({ leaseTtlMs: 1_000 });
  faults.loseCalls("renew", Infinity);

  await until(() => task.signal.aborted);

  expect(task.signal.reason).toMatchObject({
    code: "lease_lost",
    detail: { reason: "expired_locally" },
  });
  expect(task.consecutiveRenewalFailures).toBeGreaterThanOrEqual(2);
  expect(task.isLeaseHealthy).toBe(false);
  // Counted from before the claim was sent, a lease is over here a little sooner than in the store.
  await until(
    async () =>
      (await client.inspect(task.executionId))?.stateVector.ownershipState ===
      "lease_expired_reclaimable",
  );
  await expect(task.complete()).rejects.toSatisfy((e) =>
    isEngineError(e, "lease_expired"),
  );
});

test("dispose without an outcome: one warning, permit free, no call", async () => {
  const { faults, conn, task, logger } = await claimed();

  await task[Symbol.asyncDispose]();
  await task[Symbol.asyncDispose]();

  expect(logger.lines.filter(({ level }) => level === "warn")).toMatchObject([
    { fields: { executionId: task.executionId, attemptIndex: 0 } },
  ]);
  expect(conn.freePermits).toBe(2);
  expect(task.state).toBe("disposed");
  expect(task.signal.reason).toMatchObject({ code: "worker_disposed" });
  expect(faults.calls()).toEqual([]);
  await expect(task.complete()).rejects.toMatchObject({
    code: "worker_disposed",
  });
});

test("dispose of a cancelled task is silent", async () => {
  const { client, task, logger } = await claimed();
  await client.cancel({ executionId: task.executionId, reason: "x" });
  await until(() => task.signal.aborted);

  await task[Symbol.asyncDispose]();

  expect(logger.warnings()).toEqual([]);
});

test("progress shows on the execution", async () => {
  const { client, task } = await claimed();

  await task.progress({ percent: 40, message: "halfway" });

  expect((await client.inspect(task.executionId))?.progress).toMatchObject({
    percent: 40,
    message: "halfway",
  });
  await expect(task.progress({ percent: 101 })).rejects.toSatisfy((e) =>
    isEngineError(e, "invalid_input"),
  );
  expect(task.state).toBe("active");
});

test("a task that nobody can end any more is let go", async () => {
  const { client, conn, logger } = await claimed();
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as () => void;
  await client.submit({ executionKind: "job" });
  const forget = async () => {
    expect(await conn.claimNext()).toBeDefined();
  };
  await forget();
  expect(conn.freePermits).toBe(0);

  await until(() => {
    collectGarbage();
    return conn.freePermits > 0;
  });

  expect(logger.warnings()[0]).toMatch(/^task dropped without an outcome/);
});
