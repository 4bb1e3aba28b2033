import { expect } from "vitest";

import { expectRefused, expectRefusedUnchanged } from "./assertions.js";
import {
  bytes,
  completed,
  failed,
  HOUR_MS,
  lane,
  LEASE_TTL_MS,
  OTHER_WORKER,
  parked,
  revoked,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

/** Cancel, replay, priority and holds: the part of the executions group that changes what is already there. */
export const steeringConformance = group("steering executions", (test) => {
  test(
    "cancelling a running execution ends it at once and fences its holder",
    { needs: "cancelExecution" },
    async ({ backend }) => {
      const { executionId, handle, attemptId, leaseEpoch } =
        await running(backend);

      const answer = await backend.cancelExecution({
        executionId,
        reason: "not needed",
      });

      expect(answer).toEqual({
        kind: "cancelled",
        executionId,
        publicState: "cancelled",
      });
      const snapshot = await backend.describeExecution({ executionId });
      expect(snapshot).toMatchObject({
        cancellationReason: "not needed",
        cancelledBy: "operator_override",
        leaseEpoch: 1,
      });
      expect(snapshot?.currentLease).toBeUndefined();
      const [attempt] = await backend.listAttempts({ executionId });
      expect(attempt?.attemptState).toBe("ended_cancelled");
      await expectRefusedUnchanged(
        backend,
        executionId,
        () => backend.complete({ handle }),
        "execution_not_active",
        {
          terminalOutcome: "cancelled",
          lifecyclePhase: "terminal",
          leaseEpoch,
          attemptId,
        },
      );
    },
  );

  test(
    "what ended an attempt is kept with it through a replay",
    { needs: ["cancelExecution", "replayExecution"] },
    async ({ backend }) => {
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
    },
  );

  test(
    "a repeated cancel is refused with the outcome of the first",
    { needs: "cancelExecution" },
    async ({ backend }) => {
      const { executionId } = await submitted(backend);
      await backend.cancelExecution({ executionId, reason: "first" });

      await expectRefusedUnchanged(
        backend,
        executionId,
        () => backend.cancelExecution({ executionId, reason: "second" }),
        "execution_not_active",
        {
          terminalOutcome: "cancelled",
          lifecyclePhase: "terminal",
          leaseEpoch: 0,
          attemptId: "",
        },
      );
    },
  );

  test(
    "the engine's own sources cancel without a fence and are recorded",
    { needs: "cancelExecution" },
    async ({ backend }) => {
      for (const source of ["flow_cascade", "system_timeout"] as const) {
        const { executionId } = await running(backend);
        await backend.cancelExecution({ executionId, reason: "why", source });
        const snapshot = await backend.describeExecution({ executionId });
        expect(snapshot?.cancelledBy).toBe(source);
      }
    },
  );

  test(
    "a holder cancels with its whole fence only, checked in the contractual order",
    { needs: "cancelExecution" },
    async (bench) => {
      const { backend } = bench;
      const cancel = (executionId: string, fence?: object) =>
        backend.cancelExecution({
          executionId,
          reason: "mine",
          source: "lease_holder",
          ...(fence === undefined ? {} : { fence }),
        });
      const { executionId, fence } = await running(backend);
      const { executionId: waiting } = await submitted(backend);
      const held = await revoked(bench);

      await expectRefused(cancel(UNKNOWN_ID), "execution_not_found");
      await expectRefused(cancel(executionId), "fence_required");
      const { leaseId } = fence;
      await expectRefused(
        cancel(executionId, { leaseId }),
        "partial_fence_triple",
      );
      // Both wrong: the fence is missing in part before the phase is looked at.
      await expectRefused(cancel(waiting, { leaseId }), "partial_fence_triple");
      await expectRefused(cancel(waiting, fence), "execution_not_active");
      await expectRefused(
        cancel(held.executionId, held.fence),
        "lease_revoked",
      );
      await expectRefused(
        cancel(executionId, { ...fence, leaseEpoch: 7 }),
        "stale_lease",
      );
      expect(await cancel(executionId, fence)).toMatchObject({
        kind: "cancelled",
      });
    },
  );

  test("a source that is none of ours is refused", async ({ backend }) => {
    const { executionId } = await submitted(backend);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () =>
        backend.cancelExecution({
          executionId,
          reason: "r",
          source: "somebody" as never,
        }),
      "invalid_input",
    );
  });

  test(
    "a replay runs again as a new attempt and forgets the run before",
    { needs: "replayExecution" },
    async ({ backend }) => {
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
    },
  );

  test(
    "a replay clears failure and cancellation and starts retries over",
    { needs: "replayExecution" },
    async (bench) => {
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
      // The retry is there again.
      const third = await taken(backend, laneId);
      expect(
        await backend.fail({ handle: third.handle, ...failing }),
      ).toMatchObject({ kind: "retryScheduled" });
    },
  );

  test(
    "an execution that was cancelled before any attempt replays as attempt 0",
    { needs: ["replayExecution", "cancelExecution"] },
    async ({ backend }) => {
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
    },
  );

  test(
    "replays end at the policy's limit, each success uses one up",
    { needs: "replayExecution" },
    async ({ backend }) => {
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
    },
  );

  test(
    "a replay keeps a deadline that is still ahead, takes a new one, and drops a past one",
    { needs: "replayExecution" },
    async (bench) => {
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
    },
  );

  test(
    "a new priority moves a waiting execution and keeps its age within it",
    { needs: "changePriority" },
    async (bench) => {
      const { backend } = bench;
      const laneId = lane();
      const older = await submitted(backend, { laneId });
      await bench.passTime(10);
      const newer = await submitted(backend, { laneId });
      await bench.passTime(10);
      const urgent = await submitted(backend, { laneId, priority: 5 });

      expect(
        await backend.changePriority({
          executionId: newer.executionId,
          newPriority: 5,
        }),
      ).toEqual({
        kind: "changed",
        executionId: newer.executionId,
        oldPriority: 0,
        newPriority: 5,
      });
      expect(await backend.scanEligibleExecutions({ laneId })).toEqual([
        newer.executionId,
        urgent.executionId,
        older.executionId,
      ]);
    },
  );

  test(
    "new priorities are clamped, and the same one again changes nothing",
    { needs: "changePriority" },
    async ({ backend }) => {
      const { executionId } = await submitted(backend);
      const change = async (newPriority: number) => {
        const { oldPriority, newPriority: stored } =
          await backend.changePriority({ executionId, newPriority });
        return [oldPriority, stored];
      };
      expect(await change(99_999)).toEqual([0, 9_000]);
      expect(await change(9_001)).toEqual([9_000, 9_000]);
      expect(await change(-5)).toEqual([9_000, 0]);
      await expectRefusedUnchanged(
        backend,
        executionId,
        () => backend.changePriority({ executionId, newPriority: 1.5 }),
        "invalid_input",
      );
    },
  );

  test(
    "a held execution is not claimed until it is released",
    { needs: "holdExecution" },
    async ({ backend }) => {
      const { executionId, laneId } = await submitted(backend);
      expect(
        await backend.holdExecution({ executionId, reason: "audit" }),
      ).toEqual({ kind: "held" });
      expect(await backend.holdExecution({ executionId })).toEqual({
        kind: "alreadySatisfied",
      });

      expect(await backend.describeExecution({ executionId })).toMatchObject({
        operatorHold: true,
        publicState: "waiting",
        blockingReason: "paused_by_operator",
      });
      await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");

      expect(await backend.unholdExecution({ executionId })).toEqual({
        kind: "released",
      });
      expect(await backend.unholdExecution({ executionId })).toEqual({
        kind: "alreadySatisfied",
      });
      expect(await taken(backend, laneId)).toMatchObject({ executionId });
    },
  );

  test(
    "a delay below a hold is kept and takes effect again after it",
    { needs: "holdExecution" },
    async (bench) => {
      const { backend } = bench;
      const delayUntilMs = (await backend.serverTimeMs()) + HOUR_MS;
      const { executionId, laneId } = await submitted(backend, {
        delayUntilMs,
      });
      await backend.holdExecution({ executionId });
      await backend.unholdExecution({ executionId });
      expect(await backend.describeExecution({ executionId })).toMatchObject({
        publicState: "delayed",
        delayUntilMs,
        blockingReason: "waiting_for_delay",
      });

      // Held over its due time, it is ready as soon as the hold is gone.
      await backend.holdExecution({ executionId });
      await bench.passTime(HOUR_MS);
      expect(await backend.readExecutionState({ executionId })).toBe("waiting");
      await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");
      await backend.unholdExecution({ executionId });
      expect(await taken(backend, laneId)).toMatchObject({ executionId });
    },
  );

  test(
    "a retry that waits can be held as well, with its attempt state kept",
    { needs: "holdExecution" },
    async ({ backend }) => {
      const claimed = await running(backend, {
        policy: { retryPolicy: { maxRetries: 1 } },
      });
      const { executionId } = claimed;
      await backend.fail({
        handle: claimed.handle,
        reason: { message: "once" },
        classification: "transient",
      });
      await backend.holdExecution({ executionId });
      const snapshot = await backend.describeExecution({ executionId });
      expect(snapshot?.stateVector).toMatchObject({
        eligibilityState: "blocked_by_operator",
        attemptState: "pending_retry_attempt",
      });
      await backend.unholdExecution({ executionId });
      expect(await backend.describeExecution({ executionId })).toMatchObject({
        publicState: "delayed",
        blockingReason: "waiting_for_retry_backoff",
      });
    },
  );

  test(
    "a hold drops a live grant",
    { needs: "holdExecution" },
    async ({ backend }) => {
      const { executionId } = await submitted(backend);
      const grant = () =>
        backend.issueClaimGrant({ executionId, ...WORKER, grantTtlMs: 60_000 });
      await grant();
      await backend.holdExecution({ executionId });
      await backend.unholdExecution({ executionId });
      expect(await grant()).toMatchObject({ kind: "granted" });
    },
  );

  test(
    "what runs or has ended cannot be held or released",
    { needs: "holdExecution" },
    async ({ backend }) => {
      const active = (await running(backend)).executionId;
      const ended = (await failed(backend)).executionId;
      for (const steer of [
        backend.holdExecution.bind(backend),
        backend.unholdExecution.bind(backend),
      ]) {
        await expectRefused(
          steer({ executionId: active }),
          "execution_not_eligible",
        );
        await expectRefused(
          steer({ executionId: ended }),
          "execution_not_active",
        );
        await expectRefused(
          steer({ executionId: UNKNOWN_ID }),
          "execution_not_found",
        );
      }
    },
  );

  test(
    "a lease revoked with hold counts as held until it is released",
    { needs: ["holdExecution", "revokeLease"] },
    async (bench) => {
      const { backend } = bench;
      const { executionId, laneId } = await revoked(bench, { hold: true });
      expect(await backend.holdExecution({ executionId })).toEqual({
        kind: "alreadySatisfied",
      });
      await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");

      expect(await backend.unholdExecution({ executionId })).toEqual({
        kind: "released",
      });
      expect(
        await taken(backend, laneId, { worker: OTHER_WORKER }),
      ).toMatchObject({ executionId, kind: "reclaimed" });
    },
  );

  test("operator calls on an id of another namespace find nothing", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend, { namespace: "mine" });
    const ref = { executionId, namespace: "yours" };
    for (const call of [
      () => backend.cancelExecution({ ...ref, reason: "r" }),
      () => backend.changePriority({ ...ref, newPriority: 1 }),
      () => backend.holdExecution(ref),
      () => backend.unholdExecution(ref),
      () => backend.replayExecution(ref),
      () => backend.revokeLease(ref),
      () =>
        backend.blockExecutionForAdmission({
          ...ref,
          reason: "paused_by_operator",
        }),
      () => backend.unblockExecution(ref),
      () => backend.setExecutionTag({ ...ref, key: "a", value: "b" }),
      () => backend.issueGrantAndClaim({ ...ref, leaseTtlMs: LEASE_TTL_MS }),
    ]) {
      await expectRefusedUnchanged(
        backend,
        executionId,
        call,
        "execution_not_found",
        { executionId },
      );
    }
  });

  test("an interrupted attempt keeps its type through a hold", async ({
    backend,
  }) => {
    const { executionId, laneId, attemptId } = await parked(backend);
    await backend.holdExecution({ executionId });
    await backend.unholdExecution({ executionId });
    expect(await taken(backend, laneId)).toMatchObject({
      kind: "resumed",
      attemptId,
    });
  });
});
