import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { lane, taken } from "./builders.js";
import { group } from "./harness.js";

/** Submissions that join a transaction of the caller's own. */
export const transactionsConformance = group(
  "submitting in the caller's transaction",
  (test) => {
    test("what is no transaction is refused, and nothing is written", async ({
      backend,
    }) => {
      for (const transaction of [undefined, {}, "BEGIN"])
        await expectRefused(
          (async () =>
            await backend.createExecutionInTransaction({
              executionKind: "k",
              transaction,
            }))(),
          "invalid_input",
        );
      expect(await backend.listExecutions({})).toEqual({ executions: [] });
    });

    test("a submission in the caller's transaction appears when that commits", async ({
      backend,
      beginTransaction,
    }) => {
      const laneId = lane();
      const caller = await beginTransaction();
      const answer = await backend.createExecutionInTransaction({
        executionKind: "k",
        laneId,
        transaction: caller.transaction,
      });
      expect(answer).toMatchObject({
        kind: "created",
        publicState: "waiting",
      });
      const { executionId } = answer;
      expect(await backend.describeExecution({ executionId })).toBeUndefined();

      await caller.commit();

      expect(await taken(backend, laneId)).toMatchObject({ executionId });
    });

    test("a submission in the caller's transaction never existed when that rolls back", async ({
      backend,
      beginTransaction,
    }) => {
      const laneId = lane();
      const input = { executionKind: "k", laneId, idempotencyKey: "key" };
      const caller = await beginTransaction();
      const { executionId } = await backend.createExecutionInTransaction({
        ...input,
        transaction: caller.transaction,
      });
      await caller.rollback();

      expect(await backend.describeExecution({ executionId })).toBeUndefined();
      await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");
      expect((await backend.createExecution(input)).kind).toBe("created");
    });
  },
);
