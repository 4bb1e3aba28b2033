import { EARLIEST, type InstanceTagEvent } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { lane, taken } from "./builders.js";
import { drainFeed, take } from "./feed-readers.js";
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

    test("tags of a submission in the caller's transaction are told once that commits", async ({
      backend,
      beginTransaction,
    }) => {
      const feed = await backend.subscribeInstanceTags({});
      const submission = { executionKind: "k", laneId: lane() };
      const caller = await beginTransaction();
      const { executionId } = await backend.createExecutionInTransaction({
        ...submission,
        tags: { a: "1" },
        transaction: caller.transaction,
      });
      await caller.commit();
      const [first] = await take(feed, 1);
      await backend.setExecutionTag({ executionId, key: "a", value: "2" });

      const second = await beginTransaction();
      const unread = await backend.createExecutionInTransaction({
        ...submission,
        tags: { a: "3" },
        transaction: second.transaction,
      });
      await second.commit();
      await backend.setExecutionTag({
        executionId: unread.executionId,
        key: "a",
        value: "4",
      });

      const told = await drainFeed<InstanceTagEvent>((signal) =>
        backend.subscribeInstanceTags({ cursor: EARLIEST, signal }),
      );
      expect(told.map(({ kind, tag }) => `${kind} ${tag}`)).toEqual([
        "attached a=1",
        "cleared a=1",
        "attached a=2",
        "attached a=3",
        "cleared a=3",
        "attached a=4",
      ]);
      expect(told[0]).toEqual(first);
    });
  },
);
