/** Submitting inside a transaction of the caller's own: it commits or vanishes with it. */
import type { CreateExecutionResult, EngineBackend } from "@flowfabric/core";
import pg from "pg";
import { expect, onTestFinished, test } from "vitest";

import {
  claim,
  connect,
  newSchema,
  open,
  pause,
  Peer,
  query,
  refusalOf,
  SLACK,
  tell,
  url,
} from "./stores.js";

const PICKUP_MS = 50;

async function openBoth() {
  const schema = newSchema();
  const backend = await open({ schema });
  await query(`CREATE TABLE "${schema}".orders (id INTEGER PRIMARY KEY)`);
  const db = await connect();
  await db.query(`SET search_path TO "${schema}"`);
  return { schema, backend, db };
}

async function submitIn(
  backend: EngineBackend,
  transaction: unknown,
  more: Partial<Parameters<EngineBackend["createExecution"]>[0]> = {},
): Promise<CreateExecutionResult> {
  return await backend.createExecutionInTransaction({
    executionKind: "ship",
    transaction,
    ...more,
  });
}

async function ids(backend: EngineBackend): Promise<string[]> {
  return (await backend.listExecutions({})).executions;
}

test("a client, a pool's client and any object with their query method will do", async () => {
  const { backend, db } = await openBoth();
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  const pooled = await pool.connect();
  onTestFinished(async () => {
    pooled.release();
    await pool.end();
  });
  const texts: string[] = [];
  const wrapper = {
    query(...args: Parameters<pg.Client["query"]>) {
      const [first] = args as unknown[];
      texts.push((first as { text: string }).text);
      return db.query(...args);
    },
  };

  const expected: string[] = [];
  for (const [client, transaction] of [
    [db, db],
    [pooled, pooled],
    [db, wrapper],
  ] as const) {
    await client.query("BEGIN");
    const { executionId } = await submitIn(backend, transaction);
    expect(await ids(backend)).toEqual(expected);
    await client.query("COMMIT");
    expected.push(executionId);
    expect(await ids(backend)).toEqual(expected);
  }
  expect(texts).not.toEqual([]);
  // Beginning and ending are the caller's own, and so are the connection's settings.
  expect(texts.join("\n")).not.toMatch(
    /\b(?:BEGIN|COMMIT|ROLLBACK|SET LOCAL|SAVEPOINT)\b/,
  );
});

test("rolled back it never existed: neither the execution nor its key, tags, lane or events", async () => {
  const { schema, backend, db } = await openBoth();

  await db.query("BEGIN");
  await db.query("INSERT INTO orders VALUES (1)");
  const undone = await submitIn(backend, db, {
    laneId: "seen-here-only",
    idempotencyKey: "order-1",
    tags: { order: "1" },
  });
  await db.query("ROLLBACK");

  expect(undone.kind).toBe("created");
  expect(
    await backend.describeExecution({ executionId: undone.executionId }),
  ).toBeUndefined();
  expect(await backend.listLanes({})).toEqual({ lanes: [] });
  expect(
    await backend.countByTags({
      match: { all: [{ key: "order", value: "1" }] },
    }),
  ).toBe(0);
  for (const table of ["executions", "inputs", "events", "tags", "idempotency"])
    expect(await query(`SELECT FROM "${schema}".${table}`), table).toEqual([]);
  // The same lane and key again, by the engine itself: nothing of before is remembered.
  const done = await backend.createExecution({
    executionKind: "ship",
    laneId: "seen-here-only",
    idempotencyKey: "order-1",
  });
  expect(done.kind).toBe("created");
  const { claimed } = await backend.claimMany({
    ...claim,
    lanes: ["seen-here-only"],
  });
  expect(claimed).toMatchObject([{ executionId: done.executionId }]);
});

test("back to a savepoint, only what followed it never existed", async () => {
  const { backend, db } = await openBoth();
  await db.query("BEGIN");
  const kept = await submitIn(backend, db);
  await db.query("SAVEPOINT here");
  await submitIn(backend, db, { laneId: "another" });
  await db.query("ROLLBACK TO SAVEPOINT here");
  const later = await submitIn(backend, db);
  await db.query("COMMIT");

  expect((await ids(backend)).sort()).toEqual(
    [kept.executionId, later.executionId].sort(),
  );
});

test("a parked claim, here and in another process, takes it as soon as it is committed, not before", async () => {
  const { schema, backend, db } = await openBoth();
  const peer = new Peer();
  await peer.ask("open", {
    options: { connectionString: url, schema, maxConnections: 2 },
  });
  const parkHere = async () =>
    (await backend.claimMany({ ...claim, maxWaitMs: 10_000 })).claimed;
  const parkThere = async () => {
    const { claimed } = (await peer.ask("call", {
      operation: "claimMany",
      input: { ...claim, workerInstanceId: "worker-2", maxWaitMs: 10_000 },
    })) as { claimed: { executionId: string }[] };
    return claimed;
  };
  for (const [where, park] of [
    ["here", parkHere],
    ["in another process", parkThere],
  ] as const) {
    const delays: number[] = [];
    for (let round = 0; round < 10; round++) {
      let committed = false;
      const parked = park().then((claimed) => ({
        claimed,
        committed,
        atMs: performance.now(),
      }));
      await pause(30);
      await db.query("BEGIN");
      const { executionId } = await submitIn(backend, db);
      await pause(30);
      committed = true;
      await db.query("COMMIT");
      const committedAtMs = performance.now();

      const taken = await parked;
      expect(taken).toMatchObject({
        claimed: [{ executionId }],
        committed: true,
      });
      delays.push(taken.atMs - committedAtMs);
    }
    delays.sort((a, b) => a - b);
    tell(
      `committed to claimed ${where}: median ${delays[5]!.toFixed(1)} ms, longest ${delays.at(-1)!.toFixed(1)} ms`,
    );
    expect(delays[5]).toBeLessThan(SLACK * PICKUP_MS);
  }
});

test("the engine's own work goes on while the caller's transaction is open", async () => {
  const { backend, db } = await openBoth();
  const stop = new AbortController();
  onTestFinished(() => stop.abort());
  const completions = await backend.subscribeCompletion({
    signal: stop.signal,
  });
  await db.query("BEGIN");
  const slow = await submitIn(backend, db, { tags: { team: "a" } });

  const { executionId: quick } = await backend.createExecution({
    executionKind: "later",
  });
  const { claimed } = await backend.claimMany(claim);
  expect(claimed).toMatchObject([{ executionId: quick }]);
  await backend.complete({ handle: claimed[0]!.handle });
  // Feeds as well: an open transaction of somebody else holds no news back.
  for await (const { executionId } of completions) {
    expect(executionId).toBe(quick);
    break;
  }
  expect(await ids(backend)).toEqual([quick]);
  await db.query("COMMIT");

  const then = await backend.claimMany(claim);
  expect(then.claimed).toMatchObject([{ executionId: slow.executionId }]);
});

test("a client without an open transaction, closed, of another database, or none at all is refused before anything is written", async () => {
  const { schema, backend, db } = await openBoth();
  const name = `other_${schema}`;
  await query(`CREATE DATABASE "${name}"`);
  onTestFinished(async () => {
    await query(`DROP DATABASE "${name}" WITH (FORCE)`);
  });
  const address = new URL(url);
  address.pathname = `/${name}`;
  const other = await connect({ connectionString: address.href });
  // With a store of its own in a schema of the same name: that is another store all the same.
  const twin = await open({ schema, connectionString: address.href });
  await twin.createExecution({ executionKind: "x" });
  await other.query("BEGIN");
  const closed = new pg.Client({ connectionString: url });
  await closed.connect();
  await closed.end();
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  onTestFinished(() => pool.end());

  for (const [what, handle] of [
    ["no transaction", db],
    ["a pool", pool],
    ["another database", other],
    ["an object", {}],
    ["null", null],
    ["a text", "BEGIN"],
  ] as const)
    expect(await refusalOf(submitIn(backend, handle)), what).toMatchObject({
      code: "invalid_input",
      detail: { field: "transaction" },
    });
  await expect(submitIn(backend, closed)).rejects.toThrow();

  expect(await ids(backend)).toEqual([]);
  expect(await ids(twin)).toHaveLength(1);
});

test("a refused submission leaves the caller's transaction as it was", async () => {
  const { schema, backend, db } = await openBoth();
  await db.query("BEGIN");
  await db.query("INSERT INTO orders VALUES (1)");
  expect(
    await refusalOf(
      submitIn(backend, db, {
        laneId: "refused",
        policy: { maxReclaimCount: -1 },
      }),
    ),
  ).toMatchObject({ code: "invalid_policy_json" });
  const accepted = await submitIn(backend, db);
  await db.query("COMMIT");

  expect(await ids(backend)).toEqual([accepted.executionId]);
  expect(await query(`SELECT FROM "${schema}".orders`)).toHaveLength(1);
  expect(await backend.listLanes({})).toEqual({ lanes: ["default"] });
});

test("a key that another open transaction has taken is waited for, and decided by its end", async () => {
  const { backend, db } = await openBoth();
  const second = await connect();
  for (const [end, kind] of [
    ["COMMIT", "duplicate"],
    ["ROLLBACK", "created"],
  ] as const) {
    const key = { idempotencyKey: `order-${end}` };
    await db.query("BEGIN");
    await second.query("BEGIN");
    const first = await submitIn(backend, db, key);
    let answered = false;
    const waiting = submitIn(backend, second, key).finally(() => {
      answered = true;
    });
    await pause(100);
    expect(answered).toBe(false);
    await db.query(end);

    const answer = await waiting;
    expect(answer.kind, end).toBe(kind);
    expect(answer.executionId === first.executionId).toBe(end === "COMMIT");
    await second.query("COMMIT");
  }
});
