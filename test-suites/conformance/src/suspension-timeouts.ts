import type { TimeoutBehavior } from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes, everythingAbout, expectRefused } from "./assertions.js";
import { HOUR_MS, submitted, taken, UNKNOWN_ID } from "./builders.js";
import { drainCompletions } from "./feed-readers.js";
import { group, type Bench } from "./harness.js";
import { effectOf, suspended, type Suspended } from "./suspension-builders.js";

const TIMEOUT_MS = 10_000;

async function timingOut(
  { backend }: Bench,
  timeoutBehavior: TimeoutBehavior,
): Promise<Suspended> {
  return await suspended(backend, {
    timeoutAtMs: (await backend.serverTimeMs()) + TIMEOUT_MS,
    timeoutBehavior,
  });
}

/** A suspension whose time is up. */
export const timeoutsConformance = group("suspension timeouts", (test) => {
  for (const [behavior, outcome, attemptState] of [
    ["fail", "failed", "ended_failure"],
    ["cancel", "cancelled", "ended_cancelled"],
    ["expire", "expired", "ended_failure"],
  ] as const)
    test(`${behavior} ends the execution once, without a retry`, async (bench) => {
      const { backend } = bench;
      const timeoutAtMs = (await backend.serverTimeMs()) + TIMEOUT_MS;
      const { executionId, target } = await suspended(
        backend,
        { timeoutAtMs, timeoutBehavior: behavior },
        { policy: { retryPolicy: { maxRetries: 3 } } },
      );
      await bench.passTime(TIMEOUT_MS);
      expect(await backend.expireSuspension({ executionId })).toEqual({
        kind: "applied",
        behavior,
      });
      expect(await backend.describeExecution({ executionId })).toMatchObject({
        publicState: outcome,
        failureReason: `suspension_timeout:${behavior}`,
        stateVector: { attemptState: "attempt_terminal" },
      });
      expect(await backend.listAttempts({ executionId })).toMatchObject([
        { attemptState },
      ]);
      await expectRefused(effectOf(backend, target), "target_not_signalable");
      expect(
        (await backend.listPendingWaitpoints({ executionId })).entries,
      ).toEqual([]);
      expect(await eventTypes(backend, executionId)).toEqual([
        "created",
        "claimed",
        "suspended",
        outcome,
      ]);
      const before = await everythingAbout(backend, executionId);
      expect(await backend.expireSuspension({ executionId })).toEqual({
        kind: "notSuspendedCleaned",
      });
      expect(await everythingAbout(backend, executionId)).toEqual(before);
      expect(
        (await drainCompletions(backend)).map((event) => event.outcome),
      ).toEqual([outcome === "failed" ? "failure" : outcome]);
    });

  for (const behavior of ["autoResume", "autoResumeWithTimeoutSignal"] as const)
    test(`${behavior} makes it claimable at once, whatever delay was asked for`, async (bench) => {
      const { backend } = bench;
      const timeoutAtMs = (await backend.serverTimeMs()) + TIMEOUT_MS;
      const held = await suspended(backend, {
        keys: ["a", "b"],
        timeoutAtMs,
        timeoutBehavior: behavior,
        resumePolicy: { resumeDelayMs: HOUR_MS },
      });
      const { executionId, targets, args, laneId, before } = held;
      await effectOf(backend, targets[0]!);
      await bench.passTime(TIMEOUT_MS);
      expect(await backend.expireSuspension({ executionId })).toEqual({
        kind: "applied",
        behavior,
      });
      expect(await backend.describeExecution({ executionId })).toMatchObject({
        publicState: "waiting",
        stateVector: {
          blockingReason: "waiting_for_worker",
          attemptState: "attempt_interrupted",
        },
      });
      for (const target of targets)
        await expectRefused(effectOf(backend, target), "waitpoint_closed");
      const { events } = await backend.readEvents({ executionId });
      expect(events.at(-1)).toMatchObject({
        type: "unblocked",
        actor: "engine",
        reason: "timeout",
      });
      const claimed = await taken(backend, laneId);
      expect(claimed).toMatchObject({
        kind: "resumed",
        attemptId: before.attemptId,
        leaseEpoch: 2,
      });
      const observed = await backend.observeSignals(claimed);
      if (behavior === "autoResume") expect(observed).toEqual([]);
      else
        expect(observed).toEqual([
          expect.objectContaining({ signalName: "go" }),
          {
            signalId: args.suspensionId,
            signalName: "timeout",
            signalCategory: "system",
            sourceType: "suspension_timeout",
            sourceIdentity: args.suspensionId,
            correlationId: "",
            acceptedAtMs: events.at(-1)!.atMs,
          },
        ]);
    });

  test("escalate leaves it suspended, for signals and operators, and is done once", async (bench) => {
    const { backend } = bench;
    const { executionId, target } = await timingOut(bench, "escalate");
    await bench.passTime(TIMEOUT_MS);
    expect(await backend.expireSuspension({ executionId })).toEqual({
      kind: "applied",
      behavior: "escalate",
    });
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot).toMatchObject({
      publicState: "suspended",
      blockingReason: "paused_by_operator",
      currentWaitpoint: target.waitpointId,
    });
    expect(snapshot?.blockingDetail).toMatch(/timed out/);
    const { events } = await backend.readEvents({ executionId });
    expect(events.at(-1)).toMatchObject({
      type: "blocked",
      actor: "engine",
      reason: "paused_by_operator",
      toState: snapshot!.stateVector,
    });
    const [entry] = (await backend.listSuspended({})).entries;
    expect(entry).toEqual({
      executionId,
      suspendedAtMs: entry!.suspendedAtMs,
      reason: "waiting_for_operator_review",
    });
    const { entries } = await backend.listPendingWaitpoints({ executionId });
    expect(entries[0]).not.toHaveProperty("expiresAtMs");
    const before = await everythingAbout(backend, executionId);
    await bench.passTime(HOUR_MS);
    expect(await backend.expireSuspension({ executionId })).toEqual({
      kind: "notYetDue",
    });
    expect(await backend.sweep({ name: "suspension_timeout" })).toMatchObject({
      processed: 0,
    });
    expect(await everythingAbout(backend, executionId)).toEqual(before);
    expect(await effectOf(backend, target)).toBe("resume_condition_satisfied");
  });

  test("it is due at its time, not before, and only where somebody waits", async (bench) => {
    const { backend } = bench;
    const { executionId } = await timingOut(bench, "autoResume");
    const expire = (id: string = executionId) =>
      backend.expireSuspension({ executionId: id });
    const unhurried = await suspended(backend);
    expect(await expire()).toEqual({ kind: "notYetDue" });
    expect(await expire(unhurried.executionId)).toEqual({ kind: "notYetDue" });
    expect(await expire(UNKNOWN_ID)).toEqual({ kind: "notFoundCleaned" });
    expect(await expire((await submitted(backend)).executionId)).toEqual({
      kind: "notSuspendedCleaned",
    });
    await bench.passTime(TIMEOUT_MS - 5_000);
    expect(await backend.sweep({ name: "suspension_timeout" })).toMatchObject({
      processed: 0,
      nextDueAtMs: expect.any(Number) as number,
    });
    await bench.passTime(5_000);
    expect(await backend.sweep({ name: "suspension_timeout" })).toMatchObject({
      processed: 1,
    });
    expect(await expire()).toEqual({ kind: "notSuspendedCleaned" });
  });

  test("two sweeps at once have one effect each on many", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    const ids: string[] = [];
    for (let n = 0; n < 10; n++)
      ids.push((await timingOut(bench, "expire")).executionId);
    await bench.passTime(TIMEOUT_MS);
    const swept = await Promise.all(
      [backend, other, backend, other].map((one) =>
        one.sweep({ name: "suspension_timeout" }),
      ),
    );
    expect(swept.reduce((sum, { processed }) => sum + processed, 0)).toBe(10);
    for (const executionId of ids)
      expect(await eventTypes(backend, executionId)).toEqual([
        "created",
        "claimed",
        "suspended",
        "expired",
      ]);
  });

  test("the policy's timeout and behaviour are taken where none is named", async (bench) => {
    const { backend } = bench;
    const policy = {
      suspensionPolicy: {
        defaultTimeoutMs: 5_000,
        timeoutBehavior: "cancel" as const,
      },
    };
    const both = await suspended(
      backend,
      { resumeCondition: { kind: "timeoutOnly" } },
      { policy },
    );
    const own = await suspended(
      backend,
      { timeoutAtMs: (await backend.serverTimeMs()) + 7_000 },
      { policy },
    );
    const behavior = await suspended(
      backend,
      { timeoutBehavior: "expire" },
      { policy },
    );
    await bench.passTime(5_500);
    await backend.sweep({ name: "suspension_timeout" });
    const state = ({ executionId }: Suspended) =>
      backend.readExecutionState({ executionId });
    expect([
      await state(both),
      await state(own),
      await state(behavior),
    ]).toEqual(["cancelled", "suspended", "expired"]);
    await bench.passTime(2_000);
    await backend.sweep({ name: "suspension_timeout" });
    expect(await state(own)).toBe("cancelled");
  });

  test("a signal behind the time but before the sweep still counts", async (bench) => {
    const { backend } = bench;
    const { target, executionId } = await timingOut(bench, "fail");
    await bench.passTime(TIMEOUT_MS + 1_000);
    expect(await effectOf(backend, target)).toBe("resume_condition_satisfied");
    expect(await backend.expireSuspension({ executionId })).toEqual({
      kind: "notSuspendedCleaned",
    });
  });

  test("the deadline of the execution comes first, and the attempt's time stands still", async (bench) => {
    const { backend } = bench;
    const policy = {
      timeoutPolicy: {
        attemptTimeoutMs: 2_000,
        executionDeadlineMs: HOUR_MS,
      },
    };
    const { executionId, target } = await suspended(
      backend,
      { timeoutAtMs: (await backend.serverTimeMs()) + HOUR_MS * 2 },
      { policy },
    );
    await bench.passTime(60_000);
    expect(await backend.expireExecution({ executionId })).toEqual({
      kind: "notApplicable",
    });
    await backend.sweep({ name: "attempt_timeout" });
    expect(await backend.readExecutionState({ executionId })).toBe("suspended");
    await bench.passTime(HOUR_MS);
    await backend.sweep({ name: "execution_deadline" });
    expect(await backend.readExecutionState({ executionId })).toBe("expired");
    await expectRefused(effectOf(backend, target), "target_not_signalable");
    expect(
      (await backend.listPendingWaitpoints({ executionId })).entries,
    ).toEqual([]);
  });
});
