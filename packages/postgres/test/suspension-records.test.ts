/** What suspensions leave in the tables: their reasons for closing, and nothing once their execution is purged. */
import { type EngineBackend, type SuspendInput } from "@flowfabric/core";
import { expect, test } from "vitest";

import { newSchema, open, query } from "./stores.js";

const TABLES = [
  "suspensions",
  "suspend_replays",
  "waitpoints",
  "signals",
  "signal_keys",
  "signal_sources",
];

async function openSeeded() {
  const schema = newSchema();
  const backend = await open({ schema });
  await backend.seedWaitpointHmacSecret({
    kid: "k1",
    secretHex: "0f".repeat(32),
  });
  await query(`
    CREATE SEQUENCE "${schema}".test_clock MINVALUE 0 START 0;
    CREATE OR REPLACE FUNCTION "${schema}".now_ms() RETURNS BIGINT
    LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$
      SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT
        + (SELECT last_value FROM "${schema}".test_clock)
    $$`);
  let offsetMs = 0;
  const passTime = async (ms: number) => {
    offsetMs += ms;
    await query("SELECT setval($1, $2)", [`"${schema}".test_clock`, offsetMs]);
  };
  const all = (sql: (table: (name: string) => string) => string) =>
    query(sql((name) => `"${schema}".${name}`));
  return { backend, passTime, all };
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
  const rowsOf = (table: string) =>
    all((name) => `SELECT * FROM ${name(table)}`);
  const { handle } = await running(backend);
  await backend.complete({ handle });
  expect(
    await all(
      (name) => `SELECT waitpoints, signals FROM ${name("executions")}`,
    ),
  ).toEqual([{ waitpoints: null, signals: null }]);
  const executionId = await suspended(
    backend,
    {},
    { streamPolicy: { retentionTtlMs: 0 } },
  );
  for (const table of TABLES)
    expect(await rowsOf(table), table).not.toEqual([]);
  await backend.cancelExecution({ executionId, reason: "r" });
  while ((await backend.sweep({ name: "retention_trimmer" })).more);
  for (const table of TABLES) expect(await rowsOf(table), table).toEqual([]);
});

test("each way out of a suspension closes it and its waitpoints with its reason", async () => {
  const { backend, all, passTime } = await openSeeded();
  const ends: Record<string, (executionId: string) => Promise<unknown>> = {
    cancelled: (executionId) =>
      backend.cancelExecution({ executionId, reason: "r" }),
    resumed: (executionId) => backend.resumeExecution({ executionId }),
    "expired:execution_deadline": async (executionId) => {
      await passTime(50_000);
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
  const reasonsIn = async (table: string, order: string) => {
    const rows = await all(
      (name) => `
        SELECT close_reason
        FROM ${name(table)}
        WHERE seq = (SELECT max(seq) FROM ${name("executions")})
        ORDER BY ${order}`,
    );
    return rows.map((row) => row["close_reason"] as string | null);
  };
  const reasons = () => reasonsIn("waitpoints", "waitpoint_key");
  const closed = () => reasonsIn("suspensions", "seq");
  for (const [reason, end] of Object.entries(ends)) {
    const executionId = await suspended(backend, {}, policy);
    await end(executionId);
    const goesOn = reason === "resumed";
    expect(await reasons()).toEqual([reason, goesOn ? null : "attempt_ended"]);
    expect(await closed()).toEqual([reason]);
    expect(
      await all((name) => `SELECT * FROM ${name("signal_sources")}`),
    ).toEqual([]);
    if (goesOn) await backend.cancelExecution({ executionId, reason: "r" });
  }
  for (const [behavior, reason] of Object.entries(timeouts)) {
    const executionId = await suspended(backend, {
      timeoutAtMs: (await backend.serverTimeMs()) + 1_000,
      timeoutBehavior: behavior as keyof typeof timeouts,
    });
    await passTime(1_000);
    await backend.expireSuspension({ executionId });
    const goesOn = behavior === "autoResume";
    expect(await reasons()).toEqual([reason, goesOn ? null : "attempt_ended"]);
    expect(await closed()).toEqual([reason]);
    if (goesOn) await backend.cancelExecution({ executionId, reason: "r" });
  }
});

test("a suspended execution whose place or timer is wrong is put right", async () => {
  const { backend, all } = await openSeeded();
  const timeoutAtMs = (await backend.serverTimeMs()) + 90_000;
  await suspended(backend, { timeoutAtMs });
  const stored = () =>
    all(
      (name) =>
        `SELECT score, timeout_at::FLOAT, timer_at::FLOAT FROM ${name("executions")}`,
    );
  const before = await stored();
  expect(before).toMatchObject([{ timer_at: timeoutAtMs }]);
  for (const wrong of [
    "score = score + 5",
    "timer_at = NULL",
    "timer_at = timer_at - 7",
    "timeout_at = NULL, timer_at = NULL",
  ]) {
    await all((name) => `UPDATE ${name("executions")} SET ${wrong}`);
    expect(await backend.reconcileExecutionIndex({}), wrong).toEqual({
      processed: 1,
      errors: 0,
    });
    expect(await stored(), wrong).toEqual(before);
  }
  expect(await backend.reconcileExecutionIndex({})).toEqual({
    processed: 0,
    errors: 0,
  });
});
