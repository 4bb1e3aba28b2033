import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import {
  failed,
  HOUR_MS,
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

/** Keeping work back, and letting it go again. */
export const holdsConformance = group("holding executions", (test) => {
  test("a held execution is not claimed until it is released", async ({
    backend,
  }) => {
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
  });

  test("a delay below a hold is kept and takes effect again after it", async (bench) => {
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
  });

  test("a retry that waits can be held as well, with its attempt state kept", async ({
    backend,
  }) => {
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
  });

  test("a hold drops a live grant", async ({ backend }) => {
    const { executionId } = await submitted(backend);
    const grant = () =>
      backend.issueClaimGrant({ executionId, ...WORKER, grantTtlMs: 60_000 });
    await grant();
    await backend.holdExecution({ executionId });
    await backend.unholdExecution({ executionId });
    expect(await grant()).toMatchObject({ kind: "granted" });
  });

  test("what runs or has ended cannot be held or released", async ({
    backend,
  }) => {
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
  });

  test("a lease revoked with hold counts as held until it is released", async (bench) => {
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
