import { expect } from "vitest";

import { expectRefused, expectRefusedUnchanged } from "./assertions.js";
import {
  bytes,
  completed,
  HOUR_MS,
  running,
  submitted,
  taken,
} from "./builders.js";
import { group } from "./harness.js";
import { suspended } from "./suspension-builders.js";

/** Running again what has ended. */
export const replaysConformance = group("replaying executions", (test) => {
  test("what ended an attempt is kept with it through a replay", async ({
    backend,
  }) => {
    const { executionId } = await running(backend);
    await backend.cancelExecution({ executionId, reason: "not needed" });
    const before = await backend.listAttempts({ executionId });
    expect(before).toMatchObject([
      {
        attemptState: "ended_cancelled",
        failureReason: "cancelled: not needed",
      },
    ]);
    await backend.replayExecution({ executionId });
    expect(await backend.listAttempts({ executionId })).toEqual(before);
  });

  for (const timeoutBehavior of ["fail", "cancel", "expire"] as const)
    test(`so is what a suspension's timeout ended it with: ${timeoutBehavior}`, async (bench) => {
      const { backend } = bench;
      const { executionId } = await suspended(backend, {
        timeoutAtMs: (await backend.serverTimeMs()) + HOUR_MS,
        timeoutBehavior,
      });
      await bench.passTime(HOUR_MS);
      await backend.expireSuspension({ executionId });
      const before = await backend.listAttempts({ executionId });
      expect(before).toMatchObject([{ attemptIndex: 0 }]);
      await backend.replayExecution({ executionId });
      expect(await backend.listAttempts({ executionId })).toEqual(before);
    });

  test("a replay runs again as a new attempt and forgets the run before", async ({
    backend,
  }) => {
    const { executionId, laneId, handle } = await running(backend);
    await backend.progress({ handle, percent: 70, message: "nearly" });
    await backend.complete({ handle, payload: bytes("old") });

    const answer = await backend.replayExecution({
      executionId,
      reason: "wrong input",
      requestedBy: "ops",
    });

    expect(answer).toEqual({ kind: "replayed", publicState: "waiting" });
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot).toMatchObject({
      replayCount: 1,
      totalAttemptCount: 1,
      leaseEpoch: 1,
      stateVector: {
        eligibilityState: "eligible_now",
        attemptState: "pending_replay_attempt",
        terminalOutcome: "none",
      },
    });
    expect(snapshot?.completedAtMs).toBeUndefined();
    expect(snapshot?.progress).toBeUndefined();
    expect(await backend.getExecutionResult({ executionId })).toBeUndefined();

    const again = await taken(backend, laneId);
    expect(again).toMatchObject({
      kind: "fresh",
      attemptType: "replay",
      attemptIndex: 1,
      leaseEpoch: 2,
    });
    const attempts = await backend.listAttempts({ executionId });
    expect(attempts.map((attempt) => attempt.attemptState)).toEqual([
      "ended_success",
      "started",
    ]);
    expect(attempts[1]).toMatchObject({
      replayReason: "wrong input",
      replayRequestedBy: "ops",
      previousAttemptIndex: 0,
    });
  });

  test("a replay clears failure and cancellation and starts retries over", async (bench) => {
    const { backend } = bench;
    const policy = {
      retryPolicy: {
        maxRetries: 1,
        backoff: { type: "fixed", delayMs: 10 },
      },
    } as const;
    const first = await running(backend, { policy });
    const { executionId, laneId } = first;
    const failing = {
      reason: { message: "boom" },
      classification: "transient",
    } as const;
    await backend.fail({ handle: first.handle, ...failing });
    await bench.passTime(10);
    const second = await taken(backend, laneId);
    await backend.fail({ handle: second.handle, ...failing });
    const before = await backend.describeExecution({ executionId });
    expect(before).toMatchObject({ retryCount: 1, failureReason: "boom" });

    await backend.replayExecution({ executionId });

    const after = await backend.describeExecution({ executionId });
    expect(after).toMatchObject({ retryCount: 0, replayCount: 1 });
    expect(after?.failureReason).toBeUndefined();
    expect(after?.failureCategory).toBeUndefined();
    const attempts = await backend.listAttempts({ executionId });
    expect(attempts.map((attempt) => attempt.failureReason)).toEqual([
      "boom",
      "boom",
    ]);
    expect(attempts.map((attempt) => attempt.previousAttemptIndex)).toEqual([
      undefined,
      0,
    ]);
    // The retry is there again.
    const third = await taken(backend, laneId);
    expect(
      await backend.fail({ handle: third.handle, ...failing }),
    ).toMatchObject({ kind: "retryScheduled" });
  });

  test("an execution that was cancelled before any attempt replays as attempt 0", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    await backend.cancelExecution({ executionId, reason: "r" });
    await backend.replayExecution({ executionId });

    expect(await taken(backend, laneId)).toMatchObject({
      attemptIndex: 0,
      attemptType: "replay",
      leaseEpoch: 1,
    });
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot?.cancellationReason).toBeUndefined();
    expect(snapshot?.cancelledBy).toBeUndefined();
  });

  test("replays end at the policy's limit, each success uses one up", async ({
    backend,
  }) => {
    const { executionId, laneId } = await completed(backend, {
      policy: { maxReplayCount: 1 },
    });
    await backend.replayExecution({ executionId });
    await expectRefused(
      backend.replayExecution({ executionId }),
      "execution_not_terminal",
    );
    const { handle } = await taken(backend, laneId);
    await backend.complete({ handle });

    await expectRefusedUnchanged(
      backend,
      executionId,
      () => backend.replayExecution({ executionId }),
      "max_replays_exhausted",
      { limit: 1 },
    );
  });

  test("a replay keeps a deadline that is still ahead, takes a new one, and drops a past one", async (bench) => {
    const { backend } = bench;
    const now = await backend.serverTimeMs();
    const deadline = async (
      executionDeadlineAtMs: number,
      replay: { executionDeadlineAtMs?: number } = {},
    ) => {
      const { executionId } = await completed(backend, {
        executionDeadlineAtMs,
      });
      await bench.passTime(1_000);
      await backend.replayExecution({ executionId, ...replay });
      return (await backend.describeExecution({ executionId }))
        ?.executionDeadlineAtMs;
    };

    expect(await deadline(now + HOUR_MS)).toBe(now + HOUR_MS);
    expect(
      await deadline(now + HOUR_MS, {
        executionDeadlineAtMs: now + 2 * HOUR_MS,
      }),
    ).toBe(now + 2 * HOUR_MS);

    const soon = await backend.serverTimeMs();
    expect(await deadline(soon + 900)).toBeUndefined();
  });
});
