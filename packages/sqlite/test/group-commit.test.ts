/** Calls of one turn of the event loop share a commit; a fault stays with the call that has it. */
import type { EngineBackend } from "@flowfabric/core";
import { describe, expect, test } from "vitest";

import { newPath, open, openRaw, refusalOf } from "./files.js";

/** What SQLite does to the statement, or to the whole transaction, when the trigger fires. */
describe.each(["ABORT", "FAIL", "ROLLBACK"])(
  "with a body that ends in %s",
  (resolution) => {
    async function cursedStore(): Promise<{
      backend: EngineBackend;
      path: string;
    }> {
      const path = newPath();
      const backend = await open({ path });
      const db = openRaw(path);
      db.exec(`
        CREATE TRIGGER cursed BEFORE INSERT ON events
        WHEN (SELECT kind FROM executions WHERE seq = NEW.execution) = 'cursed'
        BEGIN
          SELECT RAISE(${resolution}, 'cursed');
        END`);
      return { backend, path };
    }

    test("the others of its group are written as if it had not been there", async () => {
      const { backend, path } = await cursedStore();
      const outcomes = await Promise.allSettled(
        Array.from({ length: 60 }, (_unused, index) =>
          backend.createExecution({
            executionKind: index % 7 === 3 ? "cursed" : "blessed",
            laneId: `lane-${index % 5}`,
            inputPayload: Buffer.from(String(index)),
            tags: { index: String(index) },
          }),
        ),
      );

      const created: string[] = [];
      for (const [index, outcome] of outcomes.entries()) {
        expect(outcome.status).toBe(index % 7 === 3 ? "rejected" : "fulfilled");
        if (outcome.status === "fulfilled")
          created.push(outcome.value.executionId);
        else expect(outcome.reason).toMatchObject({ code: "transport" });
      }
      expect((await backend.listExecutions({})).executions).toEqual(created);
      const db = openRaw(path);
      const count = (table: string) =>
        db.prepare(`SELECT count(*) FROM ${table}`).pluck().get();
      for (const table of ["executions", "inputs", "tags", "events"])
        expect(count(table)).toBe(created.length);
      // No position was given twice, none of an undone body is skipped over.
      expect(
        db
          .prepare("SELECT position FROM events ORDER BY position")
          .pluck()
          .all(),
      ).toEqual(created.map((_id, index) => index + 1));
    });

    test("what waits for the others is woken", async () => {
      const { backend } = await cursedStore();
      const parked = backend.claimMany({
        workerId: "worker",
        workerInstanceId: "worker-1",
        lanes: ["default"],
        max: 1,
        leaseTtlMs: 30_000,
        maxWaitMs: 5_000,
      });
      await new Promise((resolve) => setTimeout(resolve, 50));
      const startedAtMs = performance.now();

      const good = backend.createExecution({ executionKind: "blessed" });
      const bad = refusalOf(
        backend.createExecution({ executionKind: "cursed" }),
      );
      const { claimed } = await parked;

      expect(claimed).toMatchObject([
        { executionId: (await good).executionId },
      ]);
      expect(performance.now() - startedAtMs).toBeLessThan(1_000);
      expect(await bad).toMatchObject({ code: "transport" });
    });
  },
);

test("a claim whose housekeeping fails has claimed all the same, and so have its outcomes", async () => {
  const path = newPath();
  const backend = await open({ path });
  // What every claim does beside: it notes that its worker lives.
  openRaw(path).exec(`
    CREATE TRIGGER cursed BEFORE INSERT ON workers
    BEGIN
      SELECT RAISE(ABORT, 'cursed');
    END`);
  const ids: string[] = [];
  for (let i = 0; i < 2; i++)
    ids.push(
      (await backend.createExecution({ executionKind: "x" })).executionId,
    );
  const claim = {
    workerId: "worker",
    workerInstanceId: "worker-1",
    lanes: ["default"],
    max: 1,
    leaseTtlMs: 30_000,
  };

  const first = await backend.claimMany(claim);
  expect(first.claimed).toMatchObject([{ executionId: ids[0] }]);
  // The next housekeeping is due a quarter of a second later.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const second = await backend.completeAndClaim({
    items: [{ handle: first.claimed[0]!.handle }],
    claim,
  });

  expect(second).toMatchObject({
    results: [{ kind: "completed" }],
    claimed: [{ executionId: ids[1] }],
  });
});
