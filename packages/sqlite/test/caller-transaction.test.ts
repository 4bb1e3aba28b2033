/** Submitting inside a transaction of the caller's own: it commits or vanishes with it. */
import {
  isEngineError,
  type CreateExecutionResult,
  type EngineBackend,
} from "@flowfabric/core";
import { expect, test } from "vitest";

import { newPath, open, openRaw, pause, SLACK, tell } from "./files.js";

const PICKUP_MS = 20;

async function openBoth() {
  const path = newPath();
  const backend = await open({ path });
  const db = openRaw(path);
  db.exec("CREATE TABLE orders (id INTEGER PRIMARY KEY)");
  return { path, backend, db };
}

function submitIn(
  backend: EngineBackend,
  transaction: unknown,
  more: Partial<Parameters<EngineBackend["createExecution"]>[0]> = {},
): CreateExecutionResult {
  return backend.createExecutionInTransaction({
    executionKind: "ship",
    transaction,
    ...more,
  }) as CreateExecutionResult;
}

const claim = {
  workerId: "worker",
  workerInstanceId: "worker-1",
  lanes: ["default"],
  max: 10,
  leaseTtlMs: 30_000,
};

async function ids(backend: EngineBackend): Promise<string[]> {
  return (await backend.listExecutions({})).executions;
}

test("rolled back it never existed: neither the execution nor its key, tags, lane or positions", async () => {
  const { backend, db } = await openBoth();

  db.exec("BEGIN");
  db.exec("INSERT INTO orders VALUES (1)");
  const undone = submitIn(backend, db, {
    laneId: "seen-here-only",
    idempotencyKey: "order-1",
    tags: { order: "1" },
  });
  db.exec("ROLLBACK");

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

test("what the engine does between two of the caller's transactions keeps its place", async () => {
  const { backend, db } = await openBoth();
  const expected: string[] = [];
  for (let round = 0; round < 5; round++) {
    expected.push(
      db.transaction(
        () =>
          submitIn(backend, db, { executionKind: `caller-${round}` })
            .executionId,
      )(),
    );
    const own = await backend.createExecution({ executionKind: "engine" });
    expected.push(own.executionId);
    const two = db.transaction(() => [
      submitIn(backend, db).executionId,
      submitIn(backend, db).executionId,
    ])();
    expected.push(...two);
  }

  expect(await ids(backend)).toEqual(expected);
  for (const executionId of expected)
    expect((await backend.readEvents({ executionId })).events).toHaveLength(1);
});

test("a parked claim takes it as soon as it is committed, not before", async () => {
  const { backend, db } = await openBoth();
  const delays: number[] = [];
  for (let round = 0; round < 20; round++) {
    let committed = false;
    const parked = backend
      .claimMany({ ...claim, maxWaitMs: 10_000 })
      .then(({ claimed }) => ({ claimed, committed, atMs: performance.now() }));
    await pause(10);
    db.exec("BEGIN");
    const { executionId } = submitIn(backend, db);
    await pause(20);
    db.exec("COMMIT");
    committed = true;
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
    `committed to claimed: median ${delays[10]!.toFixed(1)} ms, longest ${delays.at(-1)!.toFixed(1)} ms`,
  );
  expect(delays[10]).toBeLessThan(SLACK * PICKUP_MS);
});

test("writes of the engine wait while the caller's transaction is open, and then go through", async () => {
  const { backend, db } = await openBoth();
  db.exec("BEGIN");
  const first = submitIn(backend, db);

  const second = backend.createExecution({ executionKind: "later" });
  await pause(100);
  expect(await ids(backend)).toEqual([]);
  db.exec("COMMIT");

  const { executionId: later } = await second;
  expect(await ids(backend)).toEqual([first.executionId, later]);
});

test("a handle without an open transaction, closed, of another file, of memory, or none at all is refused before anything is written", async () => {
  const { path, backend, db } = await openBoth();
  const other = openRaw(newPath());
  other.exec("BEGIN");
  const memory = openRaw(":memory:");
  memory.exec("BEGIN");
  const closed = openRaw(path);
  closed.close();

  for (const handle of [db, closed, other, memory, {}, null, "BEGIN"]) {
    try {
      submitIn(backend, handle);
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({
        code: "invalid_input",
        detail: { field: "transaction" },
      });
    }
  }

  expect(await ids(backend)).toEqual([]);
  expect(
    other.prepare("SELECT count(*) FROM sqlite_master").pluck().get(),
  ).toBe(0);
});

test("the same file under another name is the same file", async () => {
  const { path, backend } = await openBoth();
  const roundabout = openRaw(path.replace(/store\.db$/, "./store.db"));

  const { executionId } = roundabout.transaction(() =>
    submitIn(backend, roundabout),
  )();

  expect(await ids(backend)).toEqual([executionId]);
});

test("a refused submission leaves the caller's transaction as it was", async () => {
  const { backend, db } = await openBoth();
  db.exec("BEGIN");
  db.exec("INSERT INTO orders VALUES (1)");
  expect(() =>
    submitIn(backend, db, {
      laneId: "refused",
      policy: { maxReclaimCount: -1 },
    }),
  ).toThrow(/invalid_policy_json/);
  const accepted = submitIn(backend, db);
  db.exec("COMMIT");

  expect(await ids(backend)).toEqual([accepted.executionId]);
  expect(db.prepare("SELECT count(*) FROM orders").pluck().get()).toBe(1);
  expect(await backend.listLanes({})).toEqual({ lanes: ["default"] });
});

test("a submission that fails half-way leaves nothing in a transaction that is committed all the same", async () => {
  const { backend, db } = await openBoth();
  // The event is the last thing that a submission writes.
  db.exec(`
    CREATE TRIGGER no_event BEFORE INSERT ON events
    WHEN (SELECT kind FROM executions WHERE seq = NEW.execution) = 'cursed'
    BEGIN
      SELECT RAISE(ABORT, 'cursed');
    END`);

  db.exec("BEGIN");
  const before = submitIn(backend, db);
  expect(() =>
    submitIn(backend, db, {
      executionKind: "cursed",
      inputPayload: Buffer.from("half"),
      idempotencyKey: "cursed",
      tags: { half: "done" },
    }),
  ).toThrow(/cursed/);
  const after = submitIn(backend, db);
  db.exec("COMMIT");

  expect(await ids(backend)).toEqual([before.executionId, after.executionId]);
  for (const table of ["inputs", "idempotency", "tags"])
    expect(db.prepare(`SELECT count(*) FROM ${table}`).pluck().get()).toBe(0);
  expect(db.prepare("SELECT count(*) FROM events").pluck().get()).toBe(2);
});

test("a handle that gives integers as BigInt serves as well as any other", async () => {
  const { backend, db } = await openBoth();
  db.defaultSafeIntegers(true);

  const [first, repeat] = db.transaction(() => [
    submitIn(backend, db, { idempotencyKey: "order-1" }),
    submitIn(backend, db, { idempotencyKey: "order-1" }),
  ])();

  expect(first!.kind).toBe("created");
  expect(repeat).toEqual({
    kind: "duplicate",
    executionId: first!.executionId,
    mismatch: false,
  });
  const { claimed } = await backend.claimMany(claim);
  expect(claimed).toMatchObject([{ executionId: first!.executionId }]);
});

test("while another process writes, the caller's own patience decides", async () => {
  const { path, backend } = await openBoth();
  const impatient = openRaw(path, { timeout: 0 });
  const writer = openRaw(path);
  writer.exec("BEGIN IMMEDIATE");

  impatient.exec("BEGIN");
  let refusal: unknown;
  try {
    submitIn(backend, impatient);
  } catch (error) {
    refusal = error;
  }
  impatient.exec("ROLLBACK");
  writer.exec("COMMIT");

  expect(isEngineError(refusal, "retry_exhausted")).toBe(true);
  expect(await ids(backend)).toEqual([]);
});
