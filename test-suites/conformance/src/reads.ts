import type { EngineBackend, ListExecutionsInput } from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import { eventTypes, expectRefused } from "./assertions.js";
import {
  bytes,
  completed,
  failed,
  HOUR_MS,
  lane,
  lapsed,
  LEASE_TTL_MS,
  running,
  submitted,
  taken,
  textOf,
  UNKNOWN_ID,
  uuid,
} from "./builders.js";
import { group } from "./harness.js";
import { reproducible, scaled } from "./settings.js";

/** Every page of a list, one after the other. */
async function allPages(
  backend: EngineBackend,
  input: ListExecutionsInput,
): Promise<string[]> {
  const ids: string[] = [];
  let cursor: string | undefined;
  do {
    const page = await backend.listExecutions({
      ...input,
      ...(cursor === undefined ? {} : { cursor }),
    });
    ids.push(...page.executions);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return ids;
}

export const readsConformance = group("reads", (test) => {
  test("free text is kept, but for zero characters: those are U+FFFD on every store", async ({
    backend,
  }) => {
    const broken = "be\0fore \u{1f600} \\u0000 'quoted'";
    const kept = "be\ufffdfore \u{1f600} \\u0000 'quoted'";
    const retried = await running(backend, {
      creatorIdentity: broken,
      policy: {
        retryPolicy: { maxRetries: 2, backoff: { type: "fixed", delayMs: 0 } },
      },
    });
    await backend.progress({ handle: retried.handle, message: broken });
    expect(await backend.describeExecution(retried)).toMatchObject({
      creatorIdentity: kept,
      progress: { message: kept },
    });
    await backend.fail({
      handle: retried.handle,
      reason: { message: broken, detail: bytes(broken) },
      classification: "transient",
    });
    const again = await taken(backend, retried.laneId);
    await backend.fail({
      handle: again.handle,
      reason: { message: broken, detail: bytes(broken) },
      classification: "permanent",
    });
    expect(await backend.readExecutionInfo(retried)).toMatchObject({
      failureReason: kept,
      failureCategory: kept,
    });
    const attempts = await backend.listAttempts(retried);
    expect(attempts[0]).toMatchObject({ failureReason: kept });

    const stopped = await submitted(backend);
    await backend.cancelExecution({ ...stopped, reason: broken });
    expect(await backend.readExecutionInfo(stopped)).toMatchObject({
      cancellationReason: kept,
    });
  });

  test("a name with a zero character is refused and changes nothing", async ({
    backend,
  }) => {
    const executionId = `{fp:7}:${uuid()}`;
    for (const wrong of [
      { executionKind: "a\0b" },
      { idempotencyKey: "a\0b" },
      { tags: { tag: "a\0b" } },
    ])
      await expectRefused(
        backend.createExecution({
          executionId,
          executionKind: "test",
          ...wrong,
        }),
        "invalid_input",
      );
    expect(await backend.describeExecution({ executionId })).toBeUndefined();
  });

  test("what does not exist reads as nothing, or is refused where an answer is due", async ({
    backend,
  }) => {
    const { executionId } = await completed(
      backend,
      { namespace: "mine" },
      bytes("secret"),
    );
    for (const ref of [
      { executionId: UNKNOWN_ID },
      { executionId, namespace: "yours" },
    ]) {
      expect(await backend.describeExecution(ref)).toBeUndefined();
      expect(await backend.readExecutionInfo(ref)).toBeUndefined();
      expect(await backend.readExecutionState(ref)).toBeUndefined();
      expect(await backend.getExecutionResult(ref)).toBeUndefined();
      expect(await backend.getExecutionNamespace(ref)).toBeUndefined();
      expect(
        await backend.getExecutionTag({ ...ref, key: "a" }),
      ).toBeUndefined();
      expect(await backend.listAttempts(ref)).toEqual([]);
      // One after the other: a refusal that nobody awaits yet would be an unhandled one.
      for (const read of [
        () => backend.readExecutionContext(ref),
        () => backend.readCurrentAttemptIndex(ref),
        () => backend.readTotalAttemptCount(ref),
      ])
        await expectRefused(read(), "execution_not_found");
    }
    const ref = { executionId, namespace: "mine" };
    expect(await backend.getExecutionNamespace(ref)).toBe("mine");
    expect(textOf(await backend.getExecutionResult(ref))).toBe("secret");
  });

  test("a malformed id is refused before anything is read", async ({
    backend,
  }) => {
    for (const executionId of ["", uuid(), "{fp:x}:1", `{fp:256}:${uuid()}`])
      await expectRefused(
        backend.describeExecution({ executionId }),
        "invalid_input",
      );
  });

  test("from its due instant a delayed execution reads as waiting, with nobody writing that", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const { executionId } = await submitted(backend, {
      laneId,
      delayUntilMs: (await backend.serverTimeMs()) + HOUR_MS,
      tags: { a: "1" },
    });
    const look = async () => {
      const snapshot = await backend.describeExecution({ executionId });
      const info = await backend.readExecutionInfo({ executionId });
      const byState = async (publicStates: ("delayed" | "waiting")[]) => {
        const { executions } = await backend.listExecutions({
          lanes: [laneId],
          publicStates,
        });
        const match = { all: [{ key: "a", value: "1" }] };
        const { entries } = await backend.searchByTags({ match, publicStates });
        const count = await backend.countByTags({ match, publicStates });
        return [executions.length, entries.length, count];
      };
      return {
        states: [
          snapshot?.publicState,
          info?.publicState,
          await backend.readExecutionState({ executionId }),
        ],
        eligibility: [
          snapshot?.stateVector.eligibilityState,
          info?.stateVector.eligibilityState,
        ],
        reason: snapshot?.blockingReason,
        delayed: await byState(["delayed"]),
        waiting: await byState(["waiting"]),
        scan: await backend.scanEligibleExecutions({ laneId }),
      };
    };
    expect(await look()).toEqual({
      states: ["delayed", "delayed", "delayed"],
      eligibility: ["not_eligible_until_time", "not_eligible_until_time"],
      reason: "waiting_for_delay",
      delayed: [1, 1, 1],
      waiting: [0, 0, 0],
      scan: [],
    });
    await bench.passTime(HOUR_MS);
    expect(await look()).toEqual({
      states: ["waiting", "waiting", "waiting"],
      eligibility: ["eligible_now", "eligible_now"],
      reason: "waiting_for_worker",
      delayed: [0, 0, 0],
      waiting: [1, 1, 1],
      scan: [executionId],
    });
    expect(await eventTypes(backend, executionId)).toEqual(["created"]);
  });

  test("from its expiry a lease reads as lapsed, with nobody writing that", async (bench) => {
    const { backend } = bench;
    const { executionId, leaseId } = await lapsed(bench);
    const vector = {
      lifecyclePhase: "active",
      ownershipState: "lease_expired_reclaimable",
      eligibilityState: "not_applicable",
      blockingReason: "waiting_for_worker",
      terminalOutcome: "none",
      attemptState: "attempt_interrupted",
    };
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      publicState: "active",
      stateVector: vector,
      blockingReason: "waiting_for_worker",
      currentLease: { leaseId },
    });
    expect(await backend.readExecutionInfo({ executionId })).toMatchObject({
      publicState: "active",
      stateVector: vector,
    });
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
    ]);
  });

  test("info is the same as the snapshot, in less", async (bench) => {
    const { backend } = bench;
    for (const { executionId } of [
      await submitted(backend, { priority: 3, namespace: "n" }),
      await running(backend),
      await failed(backend),
    ]) {
      const snapshot = await backend.describeExecution({ executionId });
      const info = await backend.readExecutionInfo({ executionId });
      const { currentAttemptIndex, ...same } = info!;
      expect(snapshot).toMatchObject(same);
      expect(currentAttemptIndex).toBe(
        snapshot?.currentAttempt?.attemptIndex ?? 0,
      );
      expect(await backend.readExecutionState({ executionId })).toBe(
        snapshot?.publicState,
      );
    }
  });

  test("the pointer to the last attempt and the number of attempts are two things", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await submitted(backend);
    const read = async () => [
      await backend.readCurrentAttemptIndex({ executionId }),
      await backend.readTotalAttemptCount({ executionId }),
    ];
    expect(await read()).toEqual([0, 0]);
    await taken(backend, laneId);
    expect(await read()).toEqual([0, 1]);
    await bench.passTime(LEASE_TTL_MS);
    const { handle } = await taken(backend, laneId);
    expect(await read()).toEqual([1, 2]);
    await backend.complete({ handle });
    expect(await read()).toEqual([1, 2]);
    const attempts = await backend.listAttempts({ executionId });
    expect(attempts.map((attempt) => attempt.attemptIndex)).toEqual([0, 1]);
  });

  test("there is a result only after a success", async ({ backend }) => {
    const { executionId, laneId } = await submitted(backend);
    const result = async () =>
      textOf(await backend.getExecutionResult({ executionId }));
    expect(await result()).toBeUndefined();
    const { handle } = await taken(backend, laneId);
    expect(await result()).toBeUndefined();
    await backend.complete({ handle, payload: bytes("1") });
    expect(await result()).toBe("1");
    await backend.replayExecution({ executionId });
    expect(await result()).toBeUndefined();
    const again = await taken(backend, laneId);
    await backend.fail({
      handle: again.handle,
      reason: { message: "m" },
      classification: "permanent",
    });
    expect(await result()).toBeUndefined();
  });

  test("lists go by creation, in pages that miss and repeat nothing", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const created: string[] = [];
    for (let n = 0; n < 25; n++) {
      await bench.passTime(2);
      created.push(
        (
          await submitted(backend, {
            laneId,
            executionId: `{fp:${(n * 31) % 256}}:${uuid()}`,
          })
        ).executionId,
      );
    }
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 30 }), async (limit) => {
        expect(await allPages(backend, { lanes: [laneId], limit })).toEqual(
          created,
        );
      }),
      { ...reproducible(), numRuns: scaled(20, 5) },
    );
    const first = await backend.listExecutions({ lanes: [laneId], limit: 10 });
    const later = (await submitted(backend, { laneId })).executionId;
    const rest = await allPages(backend, {
      lanes: [laneId],
      cursor: first.nextCursor!,
    });
    expect([...first.executions, ...rest]).toEqual([...created, later]);
  });

  test("lists can be narrowed to namespace, lanes, states and partition", async ({
    backend,
  }) => {
    const [a, b] = [lane(), lane()];
    const waiting = await submitted(backend, { laneId: a, namespace: "one" });
    const active = await running(backend, { laneId: b, namespace: "one" });
    const ended = await completed(backend, {
      laneId: lane(),
      namespace: "two",
      executionId: `{fp:9}:${uuid()}`,
    });
    const ids = (input: ListExecutionsInput) => allPages(backend, input);
    expect(await ids({ namespace: "one" })).toEqual([
      waiting.executionId,
      active.executionId,
    ]);
    expect(await ids({ lanes: [a, b], publicStates: ["active"] })).toEqual([
      active.executionId,
    ]);
    expect(await ids({ publicStates: ["completed", "waiting"] })).toEqual([
      waiting.executionId,
      ended.executionId,
    ]);
    expect(await ids({ partition: "{fp:9}", namespace: "two" })).toEqual([
      ended.executionId,
    ]);
    expect(await ids({ lanes: ["nowhere"] })).toEqual([]);
    expect(await ids({ lanes: [] })).toEqual([]);
  });

  test("a page of none is empty, one of too many is cut, a wrong cursor refused", async ({
    backend,
  }) => {
    const laneId = lane();
    const items = Array.from({ length: 501 }, () => ({
      executionKind: "k",
      laneId,
    }));
    await backend.submitMany({ items });
    await backend.submitMany({ items });
    expect(await backend.listExecutions({ limit: 0 })).toEqual({
      executions: [],
    });
    const page = await backend.listExecutions({ limit: 5_000 });
    expect(page.executions).toHaveLength(1_000);
    expect(page.nextCursor).toBeDefined();
    const last = await backend.listExecutions({
      limit: 5_000,
      cursor: page.nextCursor!,
    });
    expect(last.executions).toHaveLength(2);
    expect(last).not.toHaveProperty("nextCursor");
    for (const cursor of ["!", "bm90IGEgY3Vyc29y"])
      await expectRefused(backend.listExecutions({ cursor }), "invalid_input");
    for (const partition of ["fp:1", "{fp}", "{zz:1}", "{fp:01}"])
      await expectRefused(
        backend.listExecutions({ partition }),
        "invalid_input",
      );
    await expectRefused(backend.listExecutions({ limit: -1 }), "invalid_input");
  });

  test("lanes are listed in the order of their bytes once used", async ({
    backend,
  }) => {
    for (const laneId of ["b", "B", "a b", "~", "a", "ab", "b"])
      await submitted(backend, { laneId });
    const expected = ["B", "a", "a b", "ab", "b", "~"];
    const { lanes } = await backend.listLanes({});
    expect(lanes.filter((laneId) => laneId !== "default")).toEqual(expected);
    const paged: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await backend.listLanes({
        limit: 2,
        ...(cursor === undefined ? {} : { cursor }),
      });
      paged.push(...page.lanes);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    expect(paged).toEqual(lanes);
    expect(await backend.listLanes({ limit: 0 })).toEqual({ lanes: [] });
  });

  test("what one connection wrote the next one reads", async (bench) => {
    const other = await bench.reopen();
    const { executionId } = await completed(bench.backend, {}, bytes("x"));
    expect(textOf(await other.getExecutionResult({ executionId }))).toBe("x");
    expect(await other.readEvents({ executionId })).toEqual(
      await bench.backend.readEvents({ executionId }),
    );
  });
});
