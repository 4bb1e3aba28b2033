import { expect } from "vitest";

import { expectRefused, expectRefusedUnchanged } from "./assertions.js";
import {
  lane,
  LEASE_TTL_MS,
  revoked,
  running,
  submitted,
  UNKNOWN_ID,
} from "./builders.js";
import { group } from "./harness.js";

/** Cancelling, and another priority. */
export const steeringConformance = group("steering executions", (test) => {
  test("cancelling a running execution ends it at once and fences its holder", async ({
    backend,
  }) => {
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
  });

  test("a repeated cancel is refused with the outcome of the first", async ({
    backend,
  }) => {
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
  });

  test("the engine's own sources cancel without a fence and are recorded", async ({
    backend,
  }) => {
    for (const source of ["flow_cascade", "system_timeout"] as const) {
      const { executionId } = await running(backend);
      await backend.cancelExecution({ executionId, reason: "why", source });
      const snapshot = await backend.describeExecution({ executionId });
      expect(snapshot?.cancelledBy).toBe(source);
    }
  });

  test("a holder cancels with its whole fence only, checked in the contractual order", async (bench) => {
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
    await expectRefused(cancel(held.executionId, held.fence), "lease_revoked");
    await expectRefused(
      cancel(executionId, { ...fence, leaseEpoch: 7 }),
      "stale_lease",
    );
    expect(await cancel(executionId, fence)).toMatchObject({
      kind: "cancelled",
    });
  });

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

  test("a new priority moves a waiting execution and keeps its age within it", async (bench) => {
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
  });

  test("new priorities are clamped, and the same one again changes nothing", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend);
    const change = async (newPriority: number) => {
      const { oldPriority, newPriority: stored } = await backend.changePriority(
        { executionId, newPriority },
      );
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
  });

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
});
