import type { EngineBackend, FailInput } from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import {
  eventTypes,
  everythingAbout,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  bytes,
  completed,
  HOUR_MS,
  lapsed,
  OTHER_WORKER,
  parked,
  revoked,
  running,
  submitted,
  taken,
  textOf,
  UNKNOWN_ID,
} from "./builders.js";
import { failingConformance } from "./outcomes-failing.js";
import { batchOutcomesConformance } from "./outcomes-batches.js";
import { group, type Group } from "./harness.js";
import { reproducible, scaled } from "./settings.js";

const TRANSIENT: Omit<FailInput, "handle"> = {
  reason: { message: "broken" },
  classification: "transient",
};

const ending = group("ending attempts", (test) => {
  const stateOf = async (backend: EngineBackend, executionId: string) =>
    (await backend.describeExecution({ executionId }))!;

  test("completing ends attempt and execution and stores the result", async ({
    backend,
  }) => {
    const { executionId, handle, attemptId } = await running(backend, {
      policy: {
        timeoutPolicy: {
          attemptTimeoutMs: HOUR_MS,
          executionDeadlineMs: HOUR_MS,
        },
      },
    });
    await backend.complete({ handle, payload: bytes("done") });

    const snapshot = await stateOf(backend, executionId);
    expect(snapshot).toMatchObject({
      publicState: "completed",
      stateVector: {
        lifecyclePhase: "terminal",
        ownershipState: "unowned",
        eligibilityState: "not_applicable",
        blockingReason: "none",
        terminalOutcome: "success",
        attemptState: "attempt_terminal",
      },
      leaseEpoch: 1,
      totalAttemptCount: 1,
      currentAttempt: { attemptId, attemptIndex: 0 },
      completedAtMs: snapshot.lastTransitionAtMs,
    });
    expect(snapshot.currentLease).toBeUndefined();
    expect(snapshot.attemptTimeoutAtMs).toBeUndefined();
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "ended_success", endedAtMs: snapshot.completedAtMs },
    ]);
    expect(textOf(await backend.getExecutionResult({ executionId }))).toBe(
      "done",
    );
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "completed",
    ]);
  });

  test("a result of zero bytes is a result, none is none", async ({
    backend,
  }) => {
    const empty = await completed(backend, {}, new Uint8Array());
    expect(textOf(await backend.getExecutionResult(empty))).toBe("");
    const none = await completed(backend);
    expect(await backend.getExecutionResult(none)).toBeUndefined();
  });

  test("any result comes back byte for byte", async ({ backend }) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (payload) => {
        const { executionId } = await completed(backend, {}, payload);
        const read = await backend.getExecutionResult({ executionId });
        expect(new Uint8Array(read!)).toEqual(payload);
      }),
      { ...reproducible(), numRuns: scaled(50, 10) },
    );
  });

  test("a run that completes without a result leaves none of the run before", async ({
    backend,
  }) => {
    const { executionId, laneId } = await completed(
      backend,
      {},
      bytes("first run"),
    );
    await backend.replayExecution({ executionId });
    const { handle } = await taken(backend, laneId);
    await backend.complete({ handle });
    expect(await backend.getExecutionResult({ executionId })).toBeUndefined();
  });

  test("a result larger than the limit is refused before anything is read", async ({
    backend,
  }) => {
    const { executionId, handle } = await running(backend);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => backend.complete({ handle, payload: new Uint8Array(1_048_577) }),
      "payload_too_large",
      { maxBytes: 1_048_576, actualBytes: 1_048_577 },
    );
    await expectRefused(
      backend.completeExecution({
        executionId: UNKNOWN_ID,
        resultPayload: new Uint8Array(1_048_577),
      }),
      "payload_too_large",
    );
  });

  test("a repeated complete is that success again and writes nothing", async ({
    backend,
  }) => {
    const { executionId, handle } = await completed(backend, {}, bytes("one"));
    const before = await everythingAbout(backend, executionId);
    await backend.complete({ handle, payload: bytes("two") });
    expect(await everythingAbout(backend, executionId)).toEqual(before);
  });

  test("another end is not taken for one's own success", async ({
    backend,
  }) => {
    const cancelled = await running(backend);
    const { executionId } = cancelled;
    await backend.cancelExecution({ executionId, reason: "r" });
    for (const call of [
      () => backend.complete({ handle: cancelled.handle }),
      () => backend.fail({ handle: cancelled.handle, ...TRANSIENT }),
      () => backend.delay({ handle: cancelled.handle, delayUntilMs: 1 }),
    ])
      await expectRefusedUnchanged(
        backend,
        executionId,
        call,
        "execution_not_active",
        { terminalOutcome: "cancelled" },
      );
    const done = await completed(backend);
    await expectRefused(
      backend.cancel({ handle: done.handle, reason: "r" }),
      "execution_not_active",
      { terminalOutcome: "success" },
    );
  });

  test("a success under a later lease is not the earlier holder's", async (bench) => {
    const { backend } = bench;
    const stale = await lapsed(bench);
    const current = await taken(backend, stale.laneId, {
      worker: OTHER_WORKER,
    });
    await expectRefusedUnchanged(
      backend,
      stale.executionId,
      () => backend.complete({ handle: stale.handle }),
      "stale_lease",
    );
    await backend.complete({ handle: current.handle });
    await expectRefused(
      backend.complete({ handle: stale.handle }),
      "execution_not_active",
      { leaseEpoch: 2, attemptId: current.attemptId },
    );
  });

  test("a holder cancels its own run, and a repeat is that again", async ({
    backend,
  }) => {
    const { executionId, handle } = await running(backend);
    await backend.cancel({ handle, reason: "changed my mind" });
    const snapshot = await stateOf(backend, executionId);
    expect(snapshot).toMatchObject({
      publicState: "cancelled",
      cancellationReason: "changed my mind",
      cancelledBy: "lease_holder",
    });
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "ended_cancelled" },
    ]);
    const before = await everythingAbout(backend, executionId);
    await backend.cancel({ handle, reason: "again" });
    expect(await everythingAbout(backend, executionId)).toEqual(before);
  });

  test("handing back parks the attempt until its time", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId, handle, attemptId } = await running(backend);
    const delayUntilMs = (await backend.serverTimeMs()) + HOUR_MS;
    expect(await backend.delay({ handle, delayUntilMs })).toEqual({
      delayUntilMs,
    });

    const snapshot = await stateOf(backend, executionId);
    expect(snapshot).toMatchObject({
      publicState: "delayed",
      delayUntilMs,
      blockingReason: "waiting_for_delay",
      stateVector: { attemptState: "attempt_interrupted" },
      leaseEpoch: 1,
      totalAttemptCount: 1,
      retryCount: 0,
      leaseReclaimCount: 0,
      currentAttempt: { attemptId, attemptIndex: 0 },
    });
    expect(snapshot.currentLease).toBeUndefined();
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "suspended" },
    ]);
    await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");
    await bench.passTime(HOUR_MS);
    expect(await taken(backend, laneId)).toMatchObject({
      kind: "resumed",
      attemptId,
    });
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "delayed",
      "promoted",
      "resumed",
    ]);
  });

  test("handing back to a past time makes the attempt ready at once", async ({
    backend,
  }) => {
    const { executionId } = await parked(backend);
    expect(await stateOf(backend, executionId)).toMatchObject({
      publicState: "waiting",
      stateVector: {
        eligibilityState: "eligible_now",
        attemptState: "attempt_interrupted",
      },
    });
    const { handle } = await running(backend);
    await expectRefused(
      backend.delay({ handle, delayUntilMs: 0 }),
      "invalid_input",
    );
    await expectRefused(
      backend.delay({ handle, delayUntilMs: 1.5 }),
      "invalid_input",
    );
  });

  test("a repeated hand-back is that again until somebody resumes", async ({
    backend,
  }) => {
    const { executionId, laneId, handle } = await parked(backend);
    const before = await everythingAbout(backend, executionId);
    expect(await backend.delay({ handle, delayUntilMs: 1 })).toMatchObject({
      delayUntilMs: expect.any(Number),
    });
    expect(await everythingAbout(backend, executionId)).toEqual(before);
    await taken(backend, laneId);
    await expectRefused(
      backend.delay({ handle, delayUntilMs: 1 }),
      "stale_lease",
    );
  });

  test("progress overwrites what is given and keeps the rest", async ({
    backend,
  }) => {
    const { executionId, handle } = await running(backend);
    const progressOf = async () =>
      (await stateOf(backend, executionId)).progress;
    await backend.progress({ handle, percent: 10, message: "reading" });
    expect(await progressOf()).toMatchObject({
      percent: 10,
      message: "reading",
    });
    await backend.progress({ handle, percent: 100 });
    expect(await progressOf()).toMatchObject({
      percent: 100,
      message: "reading",
    });
    await backend.progress({ handle, message: "writing" });
    expect(await progressOf()).toMatchObject({
      percent: 100,
      message: "writing",
    });
    for (const percent of [-1, 101, 0.5])
      await expectRefused(
        backend.progress({ handle, percent }),
        "invalid_input",
      );
  });

  test("a new attempt begins without progress, a resumed one keeps it", async (bench) => {
    const { backend } = bench;
    const first = await running(backend);
    await backend.progress({ handle: first.handle, percent: 40 });
    await backend.delay({ handle: first.handle, delayUntilMs: 1 });
    const resumed = await taken(backend, first.laneId);
    expect(await stateOf(backend, first.executionId)).toMatchObject({
      progress: { percent: 40 },
    });
    expect(resumed.attemptIndex).toBe(0);
    await bench.passTime(60_000);
    await taken(backend, first.laneId);
    expect(
      (await stateOf(backend, first.executionId)).progress,
    ).toBeUndefined();
  });

  test("progress is told of once a second", async (bench) => {
    const { backend } = bench;
    const { executionId, handle } = await running(backend);
    const progressEvents = async () =>
      (await eventTypes(backend, executionId)).filter(
        (type) => type === "progress",
      ).length;
    for (let percent = 0; percent < 5; percent++)
      await backend.progress({ handle, percent });
    expect(await progressEvents()).toBe(1);
    await bench.passTime(1_000);
    await backend.progress({ handle, percent: 50 });
    expect(await progressEvents()).toBe(2);
    await backend.complete({ handle });
    // It is no transition: playing events back must not trip over it.
    const { events } = await backend.readEvents({ executionId });
    expect(events.map((event) => event.seq)).toEqual([1, 2, 3, 4, 5]);
  });

  test("an end by fence needs the whole fence, or an operator's word", async (bench) => {
    const { backend } = bench;
    const { executionId, fence } = await running(backend);
    const complete = (input: object) =>
      backend.completeExecution({ executionId, ...input });
    await expectRefused(complete({}), "fence_required");
    await expectRefused(
      complete({ fence: { leaseEpoch: 1 } }),
      "partial_fence_triple",
    );
    await expectRefused(
      complete({ fence: { leaseEpoch: 1 }, source: "operator_override" }),
      "partial_fence_triple",
    );
    await expectRefused(
      complete({ fence: { ...fence, leaseEpoch: 2 } }),
      "stale_lease",
    );
    await expectRefused(complete({ source: "somebody" }), "invalid_input");
    expect(
      await complete({
        source: "operator_override",
        resultPayload: bytes("x"),
      }),
    ).toEqual({ kind: "completed", executionId, publicState: "completed" });
    // Not reconciled: the caller looks at the detail itself.
    await expectRefused(complete({ fence }), "execution_not_active", {
      ...{ leaseEpoch: fence.leaseEpoch, attemptId: fence.attemptId },
      terminalOutcome: "success",
      lifecyclePhase: "terminal",
    });
  });

  test("an operator's word waives identity, not phase, revocation or lapse", async (bench) => {
    const { backend } = bench;
    const override = (executionId: string) =>
      backend.completeExecution({ executionId, source: "operator_override" });
    await expectRefused(override(UNKNOWN_ID), "execution_not_found");
    const waiting = await submitted(backend);
    await expectRefused(override(waiting.executionId), "execution_not_active");
    const gone = await revoked(bench);
    await expectRefused(override(gone.executionId), "lease_revoked");
    const lost = await lapsed(bench);
    await expectRefused(override(lost.executionId), "lease_expired");
    const { executionId } = await running(backend);
    expect(
      await backend.failExecution({
        executionId,
        source: "operator_override",
        failureReason: "given up",
        failureCategory: "ops",
      }),
    ).toEqual({ kind: "terminalFailed" });
  });
});

/** Ending or handing back an attempt. */
export const outcomesConformance: Group = (harness, registrar) => {
  ending(harness, registrar);
  failingConformance(harness, registrar);
  batchOutcomesConformance(harness, registrar);
};
