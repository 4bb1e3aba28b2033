import type {
  EngineBackend,
  ExecutionPolicyInput,
  FailInput,
} from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes, everythingAbout, expectRefused } from "./assertions.js";
import { bytes, HOUR_MS, running, taken } from "./builders.js";
import { group } from "./harness.js";

/** Whether a failure is tried again, and when. */
export const failingConformance = group("failing attempts", (test) => {
  const retrying = (
    retryPolicy: NonNullable<ExecutionPolicyInput["retryPolicy"]> = {},
  ) => ({ policy: { retryPolicy } });
  const fail = (
    backend: EngineBackend,
    handle: FailInput["handle"],
    change: Partial<FailInput> = {},
  ) =>
    backend.fail({
      handle,
      reason: { message: "broken" },
      classification: "transient",
      ...change,
    });

  test("without a retry policy a failure ends the execution", async ({
    backend,
  }) => {
    const { executionId, handle } = await running(backend);
    expect(await fail(backend, handle)).toEqual({ kind: "terminalFailed" });
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot).toMatchObject({
      publicState: "failed",
      failureReason: "broken",
      failureCategory: "transient",
      retryCount: 0,
    });
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      {
        attemptState: "ended_failure",
        failureReason: "broken",
        failureCategory: "transient",
        endedAtMs: snapshot!.completedAtMs,
      },
    ]);
    expect(await backend.getExecutionResult({ executionId })).toBeUndefined();
    expect((await eventTypes(backend, executionId)).at(-1)).toBe("failed");
  });

  test("a retry waits for its back-off and keeps what went wrong", async ({
    backend,
  }) => {
    const { executionId, handle } = await running(
      backend,
      retrying({ backoff: { type: "fixed", delayMs: 5_000 } }),
    );
    const answer = await fail(backend, handle);
    const snapshot = await backend.describeExecution({ executionId });
    expect(answer).toEqual({
      kind: "retryScheduled",
      delayUntilMs: snapshot!.lastTransitionAtMs + 5_000,
    });
    expect(snapshot).toMatchObject({
      publicState: "delayed",
      blockingReason: "waiting_for_retry_backoff",
      stateVector: { attemptState: "pending_retry_attempt" },
      delayUntilMs: snapshot!.lastTransitionAtMs + 5_000,
      retryCount: 1,
      leaseEpoch: 1,
      totalAttemptCount: 1,
      failureReason: "broken",
    });
    expect(snapshot?.currentLease).toBeUndefined();
    expect(snapshot?.completedAtMs).toBeUndefined();
    // The next attempt is made by the next claim.
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "ended_failure" },
    ]);
    expect((await eventTypes(backend, executionId)).at(-1)).toBe(
      "retry_scheduled",
    );
  });

  test("the default back-off doubles from one second, three times", async (bench) => {
    const { backend } = bench;
    const first = await running(backend, retrying());
    const { executionId, laneId } = first;
    let { handle } = first;
    const delays: number[] = [];
    for (;;) {
      const answer = await fail(backend, handle);
      if (answer.kind === "terminalFailed") break;
      const snapshot = await backend.describeExecution({ executionId });
      delays.push(answer.delayUntilMs - snapshot!.lastTransitionAtMs);
      await bench.passTime(delays.at(-1)!);
      ({ handle } = await taken(backend, laneId));
    }
    expect(delays).toEqual([1_000, 2_000, 4_000]);
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      publicState: "failed",
      retryCount: 3,
      totalAttemptCount: 4,
    });
    const attempts = await backend.listAttempts({ executionId });
    expect(attempts.map((attempt) => attempt.attemptType)).toEqual([
      "initial",
      "retry",
      "retry",
      "retry",
    ]);
  });

  test("back-off is cut at its limit and jitter picks from its upper half", async ({
    backend,
  }) => {
    const delayOf = async (jitter: boolean) => {
      const { executionId, handle } = await running(
        backend,
        retrying({
          backoff: {
            type: "exponential",
            initialDelayMs: 90_000,
            maxDelayMs: 50_000,
            jitter,
          },
        }),
      );
      const answer = await fail(backend, handle);
      const snapshot = await backend.describeExecution({ executionId });
      return answer.kind === "retryScheduled"
        ? answer.delayUntilMs - snapshot!.lastTransitionAtMs
        : undefined;
    };
    expect(await delayOf(false)).toBe(50_000);
    const jittered = await delayOf(true);
    expect(jittered).toBeGreaterThanOrEqual(25_000);
    expect(jittered).toBeLessThanOrEqual(50_000);
  });

  test("class, category and count decide together", async ({ backend }) => {
    const listed = { retryableCategories: ["net"] };
    const unlisted = { nonRetryableCategories: ["bad_input"] };
    const cases: [
      Parameters<typeof retrying>[0],
      Partial<FailInput>,
      "retryScheduled" | "terminalFailed",
    ][] = [
      [{}, { classification: "transient" }, "retryScheduled"],
      [{}, { classification: "infra_crash" }, "retryScheduled"],
      [{}, { classification: "timeout" }, "retryScheduled"],
      [{}, { classification: "permanent" }, "terminalFailed"],
      [{}, { classification: "cancelled" }, "terminalFailed"],
      [{ maxRetries: 0 }, {}, "terminalFailed"],
      // Without a category of its own the class stands for it.
      [listed, {}, "terminalFailed"],
      [{ retryableCategories: ["transient"] }, {}, "retryScheduled"],
      [
        listed,
        { reason: { message: "m", detail: bytes("net") } },
        "retryScheduled",
      ],
      [
        unlisted,
        { reason: { message: "m", detail: bytes("net") } },
        "retryScheduled",
      ],
      [
        unlisted,
        { reason: { message: "m", detail: bytes("bad_input") } },
        "terminalFailed",
      ],
      [
        { ...listed, nonRetryableCategories: ["net"] },
        { reason: { message: "m", detail: bytes("net") } },
        "terminalFailed",
      ],
    ];
    for (const [retryPolicy, change, kind] of cases) {
      const { handle } = await running(backend, retrying(retryPolicy));
      expect(
        (await fail(backend, handle, change)).kind,
        JSON.stringify([retryPolicy, change]),
      ).toBe(kind);
    }
  });

  test("a retry that could start only at or after the deadline is not scheduled", async ({
    backend,
  }) => {
    const now = await backend.serverTimeMs();
    const kindWith = async (delayMs: number) => {
      const { handle } = await running(backend, {
        ...retrying({ backoff: { type: "fixed", delayMs } }),
        executionDeadlineAtMs: now + HOUR_MS,
      });
      return (await fail(backend, handle)).kind;
    };
    expect(await kindWith(HOUR_MS)).toBe("terminalFailed");
    expect(await kindWith(HOUR_MS / 2)).toBe("retryScheduled");
  });

  test("a repeated fail is that answer again: the stored time, then 0, then the end", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId, handle } = await running(
      backend,
      retrying({ maxRetries: 1, backoff: { type: "fixed", delayMs: 5_000 } }),
    );
    const answer = await fail(backend, handle);
    const before = await everythingAbout(backend, executionId);
    expect(await fail(backend, handle)).toEqual(answer);
    expect(await everythingAbout(backend, executionId)).toEqual(before);

    await bench.passTime(5_000);
    await backend.promoteDelayed({ executionId });
    expect(await fail(backend, handle)).toEqual({
      kind: "retryScheduled",
      delayUntilMs: 0,
    });

    const second = await taken(backend, laneId);
    await expectRefused(fail(backend, handle), "stale_lease");
    await fail(backend, second.handle);
    expect(await fail(backend, second.handle)).toEqual({
      kind: "terminalFailed",
    });
    await expectRefused(fail(backend, handle), "execution_not_active");
  });

  test("a later success keeps no failure of earlier attempts but in their records", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId, handle } = await running(backend, retrying());
    await fail(backend, handle);
    await bench.passTime(1_000);
    const second = await taken(backend, laneId);
    await backend.complete({ handle: second.handle });
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot?.failureReason).toBeUndefined();
    expect(snapshot?.failureCategory).toBeUndefined();
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "ended_failure", failureReason: "broken" },
      { attemptState: "ended_success" },
    ]);
  });

  test("by fence, the category decides the class and the next attempt is named", async ({
    backend,
  }) => {
    const byFence = async (failureCategory: string) => {
      const { executionId, fence } = await running(backend, retrying());
      return backend.failExecution({
        executionId,
        fence,
        failureReason: "broken",
        failureCategory,
      });
    };
    expect(await byFence("whatever")).toMatchObject({
      kind: "retryScheduled",
      nextAttemptIndex: 1,
    });
    expect(await byFence("permanent")).toEqual({ kind: "terminalFailed" });
    expect(await byFence("cancelled")).toEqual({ kind: "terminalFailed" });
  });

  test("a failure by fence is not reconciled", async ({ backend }) => {
    const { executionId, fence } = await running(backend, retrying());
    const input = {
      executionId,
      fence,
      failureReason: "broken",
      failureCategory: "net",
    };
    await backend.failExecution(input);
    await expectRefused(backend.failExecution(input), "execution_not_active", {
      lifecyclePhase: "runnable",
      terminalOutcome: "none",
      leaseEpoch: 1,
      attemptId: "",
    });
  });
});
