/**
 * A signal is judged by what was read before, without a lock, and is handed to a claim that waits in its process: what others
 * do meanwhile comes first all the same.
 */
import type { EngineBackend, SuspendInput } from "@flowfabric/core";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";

import {
  claim,
  newSchema,
  open,
  pause,
  query,
  refusalOf,
  url,
} from "./stores.js";

/** A claim has looked and waits by then. */
const PARKED_MS = 500;

const secret = { kid: "k1", secretHex: "0f".repeat(32) };

/** Suspended until so many signals have come. */
async function suspended(
  backend: EngineBackend,
  {
    count = 1,
    inputPayload,
    ...change
  }: { count?: number; inputPayload?: Uint8Array } & Partial<SuspendInput> = {},
) {
  await backend.seedWaitpointHmacSecret(secret);
  const { executionId } = await backend.createExecution({
    executionKind: "k",
    ...(inputPayload === undefined ? {} : { inputPayload }),
  });
  const { claimed } = await backend.claimMany(claim);
  const { details } = await backend.suspend({
    handle: claimed.find((one) => one.executionId === executionId)!.handle,
    suspensionId: crypto.randomUUID(),
    waitpoints: [
      { kind: "fresh", waitpointId: crypto.randomUUID(), waitpointKey: "a" },
    ],
    resumeCondition: {
      kind: "composite",
      body: {
        kind: "count",
        n: count,
        countKind: "distinctSignals",
        waitpoints: ["a"],
      },
    },
    reasonCode: "waiting_for_signal",
    ...change,
  });
  const { waitpointId, waitpointToken } = details;
  return {
    executionId,
    signal: () => ({
      executionId,
      waitpointId,
      waitpointToken,
      signalId: crypto.randomUUID(),
      signalName: "go",
    }),
  };
}

type Statement = string | { readonly text: string };

/** As the store's own, and lets something come in front of what a signal writes, or get lost behind it. */
function poolAround() {
  const pool = new pg.Pool({ connectionString: url, pipeline: true });
  onTestFinished(() => pool.end());
  const before: (() => Promise<unknown>)[] = [];
  const lost: Error[] = [];
  let claims = 0;
  pool.on("connect", (client) => {
    const send = client.query.bind(client) as (
      ...given: unknown[]
    ) => Promise<unknown>;
    client.query = (async (...given: [Statement, ...unknown[]]) => {
      const [statement] = given;
      const text = typeof statement === "string" ? statement : statement.text;
      if (text.includes("minted")) claims++;
      if (!text.includes("INSERT INTO") || !text.includes("xmin"))
        return await send(...given);
      await before.shift()?.();
      const answer = await send(...given);
      const error = lost.shift();
      if (error !== undefined) throw error;
      return answer;
    }) as unknown as typeof client.query;
  });
  return { pool, before, lost, claims: () => claims };
}

test("what others change between reading and writing stays, and decides", async () => {
  const schema = newSchema();
  const { pool, before } = poolAround();
  const backend = await open({ schema, pool });
  const other = await open({ schema });

  const counted = await suspended(backend, { count: 3 });
  before.push(() => other.deliverSignal(counted.signal()));
  expect(await backend.deliverSignal(counted.signal())).toMatchObject({
    kind: "accepted",
    effect: "appended_to_waitpoint",
  });
  expect(await backend.deliverSignal(counted.signal())).toMatchObject({
    effect: "resume_condition_satisfied",
  });

  const ended = await suspended(backend);
  const { executionId } = ended;
  before.push(() =>
    other.cancelExecution({ executionId, reason: "no longer needed" }),
  );
  const refusal = await refusalOf(backend.deliverSignal(ended.signal()));
  expect(refusal.code).toBe("target_not_signalable");
  expect(before).toEqual([]);
});

test("time that passes between reading and writing counts", async () => {
  const schema = newSchema();
  const { pool, before } = poolAround();
  const backend = await open({ schema, pool });
  await backend.seedWaitpointHmacSecret(secret);
  const { executionId } = await backend.createExecution({ executionKind: "k" });
  const { claimed } = await backend.claimMany(claim);
  const { waitpointId, hmacToken } = await backend.createWaitpoint({
    handle: claimed[0]!.handle,
    waitpointKey: "a",
    expiresInMs: 60_000,
  });
  before.push(() =>
    query(`
      CREATE OR REPLACE FUNCTION "${schema}".now_ms() RETURNS BIGINT
      LANGUAGE sql VOLATILE PARALLEL SAFE
      AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT + 120000 $$`),
  );

  const refusal = await refusalOf(
    backend.deliverSignal({
      executionId,
      waitpointId,
      waitpointToken: hmacToken,
      signalId: crypto.randomUUID(),
      signalName: "go",
    }),
  );

  expect(refusal.code).toBe("waitpoint_closed");
  expect(before).toEqual([]);
});

test("a claim that waits is handed what a signal resumes, under a lease like any other", async () => {
  const schema = newSchema();
  const { pool, claims } = poolAround();
  const backend = await open({ schema, pool });
  const { executionId, signal } = await suspended(backend, {
    inputPayload: Buffer.from("input"),
  });
  const waiting = backend.claimMany({ ...claim, maxWaitMs: 20_000 });
  await pause(PARKED_MS);
  const claimsBefore = claims();

  expect(await backend.deliverSignal(signal())).toMatchObject({
    effect: "resume_condition_satisfied",
  });
  const { claimed } = await waiting;

  expect(claimed).toMatchObject([
    {
      kind: "resumed",
      executionId,
      leaseEpoch: 2,
      attemptIndex: 0,
      context: { inputPayload: Buffer.from("input") },
    },
  ]);
  expect(claims(), "claims that were sent").toBe(claimsBefore);
  await backend.complete({ handle: claimed[0]!.handle });
  const { events } = await backend.readEvents({ executionId });
  expect(events.map(({ type }) => type)).toEqual([
    "created",
    "claimed",
    "suspended",
    "signal",
    "resumed",
    "completed",
  ]);
});

test("a claim that waits is not handed what others stand before", async () => {
  const schema = newSchema();
  const { pool, before } = poolAround();
  const backend = await open({ schema, pool });
  const other = await open({ schema });
  const { executionId, signal } = await suspended(backend);
  const waiting = backend.claimMany({ ...claim, max: 1, maxWaitMs: 20_000 });
  await pause(PARKED_MS);
  const urgent = { executionKind: "urgent", priority: 9 };
  before.push(() => other.createExecution(urgent));

  await backend.deliverSignal(signal());

  const { claimed } = await waiting;
  expect(claimed).toMatchObject([{ context: { executionKind: "urgent" } }]);
  const next = await backend.claimMany(claim);
  expect(next.claimed).toMatchObject([{ kind: "resumed", executionId }]);
});

test("a claim whose answer is lost with that of the signal is repeated", async () => {
  const schema = newSchema();
  const { pool, lost } = poolAround();
  const backend = await open({ schema, pool });
  const { executionId, signal } = await suspended(backend);
  const request = { ...claim, requestId: "lost", maxWaitMs: 20_000 };
  const waiting = refusalOf(backend.claimMany(request));
  await pause(PARKED_MS);
  lost.push(new Error("Connection terminated unexpectedly"));
  const sent = signal();

  const refusal = await refusalOf(backend.deliverSignal(sent));

  expect([refusal.code, (await waiting).code]).toEqual([
    "transport",
    "transport",
  ]);
  const again = await backend.claimMany({ ...request, repeat: true });
  expect(again.claimed).toMatchObject([{ kind: "resumed", executionId }]);
  expect(await backend.deliverSignal(sent)).toMatchObject({
    kind: "duplicate",
  });
});
