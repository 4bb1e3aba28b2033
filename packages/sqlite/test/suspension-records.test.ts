/** What suspensions leave in the file: their reasons for closing, and nothing once their execution is purged. */
import { type EngineBackend, type SuspendInput } from "@flowfabric/core";
import { expect, test } from "vitest";

import { newPath, open, openRaw } from "./files.js";

const TABLES = [
  "suspensions",
  "suspend_replays",
  "waitpoints",
  "signals",
  "signal_keys",
  "signal_sources",
];

async function openSeeded() {
  const path = newPath();
  const clock = { offsetMs: 0 };
  const backend = await open({ path, clock });
  await backend.seedWaitpointHmacSecret({
    kid: "k1",
    secretHex: "0f".repeat(32),
  });
  const raw = openRaw(path);
  const all = <T>(sql: string) => raw.prepare(sql).all() as T[];
  return { backend, clock, raw, all };
}

async function running(backend: EngineBackend, policy: object = {}) {
  await backend.createExecution({ executionKind: "k", policy });
  const { claimed } = await backend.claimMany({
    workerId: "w",
    workerInstanceId: "w-1",
    lanes: ["default"],
    max: 1,
    leaseTtlMs: 600_000,
  });
  return claimed[0]!;
}

/** On one fresh waitpoint, with a pending one beside it and a signal that does not suffice. */
async function suspended(
  backend: EngineBackend,
  change: Partial<SuspendInput> = {},
  policy: object = {},
) {
  const { handle, executionId } = await running(backend, policy);
  await backend.createWaitpoint({
    handle,
    waitpointKey: "spare",
    expiresInMs: 600_000,
  });
  const { details } = await backend.suspend({
    handle,
    suspensionId: crypto.randomUUID(),
    waitpoints: [
      { kind: "fresh", waitpointId: crypto.randomUUID(), waitpointKey: "a" },
    ],
    resumeCondition: {
      kind: "composite",
      body: {
        kind: "count",
        n: 2,
        countKind: "distinctSources",
        waitpoints: ["a"],
      },
    },
    reasonCode: "waiting_for_signal",
    idempotencyKey: "once",
    ...change,
  });
  await backend.deliverSignal({
    executionId,
    waitpointId: details.waitpointId,
    waitpointToken: details.waitpointToken,
    signalId: crypto.randomUUID(),
    signalName: "go",
    idempotencyKey: "vote",
  });
  return executionId;
}

test("an execution that never waited has nothing beside its row, and a purged one neither", async () => {
  const { backend, all } = await openSeeded();
  const { handle } = await running(backend);
  await backend.complete({ handle });
  expect(all("SELECT waitpoints, signals FROM executions")).toEqual([
    { waitpoints: null, signals: null },
  ]);
  const executionId = await suspended(
    backend,
    {},
    { streamPolicy: { retentionTtlMs: 0 } },
  );
  for (const table of TABLES)
    expect(all(`SELECT * FROM ${table}`), table).not.toEqual([]);
  await backend.cancelExecution({ executionId, reason: "r" });
  while ((await backend.sweep({ name: "retention_trimmer" })).more);
  for (const table of TABLES)
    expect(all(`SELECT * FROM ${table}`), table).toEqual([]);
});

test("each way out of a suspension closes it and its waitpoints with its reason", async () => {
  const { backend, all, clock } = await openSeeded();
  const ends: Record<string, (executionId: string) => Promise<unknown>> = {
    cancelled: (executionId) =>
      backend.cancelExecution({ executionId, reason: "r" }),
    resumed: (executionId) => backend.resumeExecution({ executionId }),
    "expired:execution_deadline": async (executionId) => {
      clock.offsetMs += 50_000;
      await backend.expireExecution({
        executionId,
        reason: "execution_deadline",
      });
    },
  };
  const policy = { timeoutPolicy: { executionDeadlineMs: 50_000 } };
  const timeouts = {
    fail: "timed_out_fail",
    cancel: "timed_out_cancel",
    expire: "timed_out_expire",
    autoResume: "timed_out_auto_resume",
  } as const;
  const reasons = () =>
    all<{ waitpoint_key: string; close_reason: string | null }>(
      `SELECT waitpoint_key, close_reason
       FROM waitpoints
       WHERE seq = (SELECT max(seq) FROM executions)
       ORDER BY waitpoint_key`,
    ).map((row) => row.close_reason);
  const closed = () =>
    all<{ close_reason: string | null }>(
      "SELECT close_reason FROM suspensions WHERE seq = (SELECT max(seq) FROM executions)",
    ).map((row) => row.close_reason);
  for (const [reason, end] of Object.entries(ends)) {
    const executionId = await suspended(backend, {}, policy);
    await end(executionId);
    const goesOn = reason === "resumed";
    expect(reasons()).toEqual([reason, goesOn ? null : "attempt_ended"]);
    expect(closed()).toEqual([reason]);
    expect(all("SELECT * FROM signal_sources")).toEqual([]);
    if (goesOn) await backend.cancelExecution({ executionId, reason: "r" });
  }
  for (const [behavior, reason] of Object.entries(timeouts)) {
    const executionId = await suspended(backend, {
      timeoutAtMs: (await backend.serverTimeMs()) + 1_000,
      timeoutBehavior: behavior as keyof typeof timeouts,
    });
    clock.offsetMs += 1_000;
    await backend.expireSuspension({ executionId });
    const goesOn = behavior === "autoResume";
    expect(reasons()).toEqual([reason, goesOn ? null : "attempt_ended"]);
    expect(closed()).toEqual([reason]);
    if (goesOn) await backend.cancelExecution({ executionId, reason: "r" });
  }
});

test("a suspended execution whose place or timer is wrong is put right", async () => {
  const { backend, raw, all } = await openSeeded();
  const timeoutAtMs = (await backend.serverTimeMs()) + 90_000;
  await suspended(backend, { timeoutAtMs });
  const stored = () =>
    all("SELECT score, timeout_at, timer_at FROM executions");
  const before = stored();
  expect(before).toMatchObject([{ timer_at: timeoutAtMs }]);
  for (const wrong of [
    "score = score + 5",
    "timer_at = NULL",
    "timer_at = timer_at - 7",
    "timeout_at = NULL, timer_at = NULL",
  ]) {
    raw.exec(`UPDATE executions SET ${wrong}`);
    expect(await backend.reconcileExecutionIndex({}), wrong).toEqual({
      processed: 1,
      errors: 0,
    });
    expect(stored(), wrong).toEqual(before);
  }
  expect(await backend.reconcileExecutionIndex({})).toEqual({
    processed: 0,
    errors: 0,
  });
});
