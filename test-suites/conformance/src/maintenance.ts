import { SWEEPS, type EngineBackend, type SweepName } from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes, everythingAbout, expectRefused } from "./assertions.js";
import {
  bytes,
  completed,
  HOUR_MS,
  lane,
  lapsed,
  LEASE_TTL_MS,
  markedLapsed,
  MINUTE_MS,
  registered,
  revoked,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
} from "./builders.js";
import { retentionConformance } from "./maintenance-retention.js";
import { group, type Bench, type Group } from "./harness.js";

/** Runs one sweep until it has nothing left; how much it did. */
async function sweepAll(
  backend: EngineBackend,
  name: SweepName,
): Promise<number> {
  let processed = 0;
  for (;;) {
    const answer = await backend.sweep({ name });
    processed += answer.processed;
    if (!answer.more) return processed;
  }
}

const driving = group("maintenance", (test) => {
  test("a lapse is marked once, and what is none is said to be none", async (bench) => {
    const { backend } = bench;
    const mark = (executionId: string) =>
      backend.markLeaseExpiredIfDue({ executionId });
    const satisfied = (reason: string) => ({
      kind: "alreadySatisfied",
      reason,
    });
    const lost = await lapsed(bench);
    const live = await running(backend);
    const gone = await revoked(bench);
    const waiting = await submitted(backend);
    expect(await mark(lost.executionId)).toEqual({ kind: "markedExpired" });
    const before = await everythingAbout(backend, lost.executionId);
    expect(await mark(lost.executionId)).toEqual(satisfied("already_expired"));
    expect(await everythingAbout(backend, lost.executionId)).toEqual(before);
    expect(await mark(live.executionId)).toEqual(satisfied("not_yet_expired"));
    expect(await mark(gone.executionId)).toEqual(satisfied("already_revoked"));
    expect(await mark(waiting.executionId)).toEqual(satisfied("not_active"));
    expect(await mark(UNKNOWN_ID)).toEqual(satisfied("execution_not_found"));
  });

  test("a delay is over once, at its time, for whoever it still concerns", async (bench) => {
    const { backend } = bench;
    const promote = async (executionId: string) =>
      (await backend.promoteDelayed({ executionId })).kind;
    const delayed = await submitted(backend, {
      delayUntilMs: (await backend.serverTimeMs()) + HOUR_MS,
    });
    const held = await submitted(backend, {
      delayUntilMs: (await backend.serverTimeMs()) + HOUR_MS,
    });
    await backend.holdExecution(held);
    expect(await promote(delayed.executionId)).toBe("notYetDue");
    await bench.passTime(HOUR_MS);
    expect(await promote(delayed.executionId)).toBe("promoted");
    expect(await promote(delayed.executionId)).toBe("notDelayedCleaned");
    expect(await eventTypes(backend, delayed.executionId)).toEqual([
      "created",
      "promoted",
    ]);
    const snapshot = await backend.describeExecution(delayed);
    expect(snapshot?.delayUntilMs).toBeUndefined();
    expect(await promote(held.executionId)).toBe("notDelayedCleaned");
    expect(await promote((await running(backend)).executionId)).toBe(
      "notRunnableCleaned",
    );
    expect(await promote((await completed(backend)).executionId)).toBe(
      "notRunnableCleaned",
    );
    expect(await promote(UNKNOWN_ID)).toBe("notFoundCleaned");
  });

  test("a deadline ends what has not ended, in any phase", async (bench) => {
    const { backend } = bench;
    const at = (await backend.serverTimeMs()) + MINUTE_MS;
    const input = { executionDeadlineAtMs: at };
    const phases = [
      await submitted(backend, input),
      await submitted(backend, { ...input, delayUntilMs: at + HOUR_MS }),
      await running(backend, input),
      await revoked(bench, input),
    ];
    const done = await completed(backend, input);
    const none = await submitted(backend);
    const expire = async (executionId: string) =>
      (
        await backend.expireExecution({
          executionId,
          reason: "execution_deadline",
        })
      ).kind;
    for (const { executionId } of phases)
      expect(await expire(executionId)).toBe("notYetDue");
    await bench.passTime(MINUTE_MS);
    for (const { executionId } of phases) {
      expect(await expire(executionId)).toBe("expired");
      expect(await expire(executionId)).toBe("alreadyTerminal");
      expect(await backend.describeExecution({ executionId })).toMatchObject({
        publicState: "expired",
        failureReason: "execution_deadline",
      });
      const attempts = await backend.listAttempts({ executionId });
      for (const attempt of attempts)
        expect(attempt.attemptState).toBe("ended_failure");
    }
    expect(await expire(done.executionId)).toBe("alreadyTerminal");
    expect(await expire(none.executionId)).toBe("notApplicable");
    expect(await expire(UNKNOWN_ID)).toBe("notFoundCleaned");
  });

  test("a timeout ends the attempt it was set for and no other", async (bench) => {
    const { backend } = bench;
    const policy = { timeoutPolicy: { attemptTimeoutMs: 10_000 } };
    const slow = await running(backend, { policy });
    const { executionId } = slow;
    const dueAtMs = (await backend.describeExecution(slow))!
      .attemptTimeoutAtMs!;
    const expire = async (change: object = {}) =>
      (await backend.expireExecution({ executionId, ...change })).kind;
    expect(await expire()).toBe("notYetDue");
    await bench.passTime(10_000);
    expect(await expire({ attemptIndex: 1 })).toBe("notApplicable");
    expect(await expire({ dueAtMs: dueAtMs - 1 })).toBe("notApplicable");
    expect(await expire({ attemptIndex: 0, dueAtMs })).toBe("expired");
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      publicState: "expired",
      failureReason: "attempt_timeout",
    });
    expect((await eventTypes(backend, executionId)).at(-1)).toBe("expired");

    const parked = await running(backend, { policy });
    await backend.delay({ handle: parked.handle, delayUntilMs: 1 });
    await bench.passTime(10_000);
    expect(
      (await backend.expireExecution({ executionId: parked.executionId })).kind,
    ).toBe("notApplicable");
    await expectRefused(expire({ reason: "boredom" }), "invalid_input");
  });

  test("a timeout may be tried again where the policy says so", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await running(backend, {
      policy: {
        timeoutPolicy: { attemptTimeoutMs: 10_000, retryOnTimeout: true },
        retryPolicy: {
          maxRetries: 1,
          backoff: { type: "fixed", delayMs: 1_000 },
        },
      },
    });
    await bench.passTime(10_000);
    expect(await backend.expireExecution({ executionId })).toEqual({
      kind: "retryScheduled",
    });
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      publicState: "delayed",
      retryCount: 1,
      stateVector: { attemptState: "pending_retry_attempt" },
    });
    await bench.passTime(1_000);
    expect(await taken(backend, laneId)).toMatchObject({
      attemptType: "retry",
    });
    await bench.passTime(10_000);
    expect(await backend.expireExecution({ executionId })).toEqual({
      kind: "expired",
    });
  });

  test("a renewed lease and a timeout are two things", async (bench) => {
    const { backend } = bench;
    const { executionId, handle } = await running(backend, {
      policy: { timeoutPolicy: { attemptTimeoutMs: 40_000 } },
    });
    await bench.passTime(20_000);
    await backend.renew({ handle });
    await bench.passTime(20_000);
    expect(await backend.expireExecution({ executionId })).toEqual({
      kind: "expired",
    });
    await expectRefused(backend.renew({ handle }), "execution_not_active", {
      terminalOutcome: "expired",
    });
  });

  /** Something to do for each sweep that moves executions. */
  const due = async (bench: Bench) => {
    const { backend } = bench;
    const now = await backend.serverTimeMs();
    const delayed = await submitted(backend, { delayUntilMs: now + 1_000 });
    const late = await submitted(backend, {
      executionDeadlineAtMs: now + 1_000,
    });
    const slow = await running(
      backend,
      { policy: { timeoutPolicy: { attemptTimeoutMs: 1_000 } } },
      { leaseTtlMs: HOUR_MS },
    );
    const lost = await running(backend);
    const poison = await markedLapsed(bench, {
      policy: { maxReclaimCount: 0 },
    });
    return { delayed, late, slow, lost, poison };
  };

  test("sweeps do what is due, in portions, and find nothing the second time", async (bench) => {
    const { backend } = bench;
    const { delayed, late, slow, lost, poison } = await due(bench);
    const expected: [SweepName, string, string][] = [
      ["delayed_promoter", delayed.executionId, "promoted"],
      ["execution_deadline", late.executionId, "expired"],
      ["attempt_timeout", slow.executionId, "expired"],
      ["lease_expiry", lost.executionId, "lease_expired"],
      ["reclaim_driver", poison.executionId, "failed"],
    ];
    for (const [name, executionId, event] of expected) {
      expect(await sweepAll(backend, name), name).toBeGreaterThanOrEqual(1);
      expect((await eventTypes(backend, executionId)).at(-1)).toBe(event);
    }
    for (const name of SWEEPS) await sweepAll(backend, name);
    for (const name of SWEEPS)
      expect(await backend.sweep({ name }), name).toMatchObject({
        processed: 0,
        more: false,
      });
  });

  test("a sweep does no more than it was asked to, and says that there is more", async (bench) => {
    const { backend } = bench;
    const delayUntilMs = (await backend.serverTimeMs()) + 1_000;
    for (let n = 0; n < 5; n++) await submitted(backend, { delayUntilMs });
    await bench.passTime(1_000);
    const portion = () => backend.sweep({ name: "delayed_promoter", limit: 2 });
    expect(await portion()).toMatchObject({ processed: 2, more: true });
    expect(await portion()).toMatchObject({ processed: 2, more: true });
    expect(await portion()).toMatchObject({ processed: 1 });
    expect(await portion()).toMatchObject({ processed: 0, more: false });
    for (const limit of [0, 1_001])
      await expectRefused(
        backend.sweep({ name: "lease_expiry", limit }),
        "invalid_input",
      );
    await expectRefused(
      backend.sweep({ name: "spring_cleaning" as never }),
      "invalid_input",
    );
  });

  test("a sweep knows when it will next have something to do", async (bench) => {
    const { backend } = bench;
    const delayUntilMs = (await backend.serverTimeMs()) + HOUR_MS;
    await submitted(backend, { delayUntilMs });
    const answer = await backend.sweep({ name: "delayed_promoter" });
    expect(answer).toMatchObject({ processed: 0, more: false });
    if (answer.nextDueAtMs !== undefined)
      expect(answer.nextDueAtMs).toBe(delayUntilMs);
  });

  test("any number of sweepers at once have each effect once", async (bench) => {
    const { backend } = bench;
    const second = await bench.reopen();
    const all = [];
    for (let n = 0; n < 5; n++) all.push(await due(bench));
    await Promise.all(
      [backend, second, backend, second].flatMap((one) =>
        SWEEPS.map((name) => sweepAll(one, name)),
      ),
    );
    for (const { delayed, late, slow, lost, poison } of all) {
      const typesOf = (ref: { executionId: string }) =>
        eventTypes(backend, ref.executionId);
      expect(await typesOf(delayed)).toEqual(["created", "promoted"]);
      expect(await typesOf(late)).toEqual(["created", "expired"]);
      expect(await typesOf(slow)).toEqual(["created", "claimed", "expired"]);
      expect(await typesOf(lost)).toEqual([
        "created",
        "claimed",
        "lease_expired",
      ]);
      expect(await typesOf(poison)).toEqual([
        "created",
        "claimed",
        "lease_expired",
        "failed",
      ]);
    }
  });

  test("blocked work is looked after: a route that a live worker covers opens", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend, {
      policy: { routingRequirements: { requiredCapabilities: ["a", "b"] } },
    });
    await backend.blockRoute({ executionId });
    // Two that have all between them are not one that has all.
    for (const token of ["a", "b"])
      await registered(backend, {
        worker: { workerId: "w", workerInstanceId: token },
        lanes: [laneId],
        capabilities: [token],
      });
    await sweepAll(backend, "unblock");
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      blockingReason: "waiting_for_capable_worker",
    });
    await registered(backend, {
      lanes: [laneId],
      capabilities: ["a", "b"],
    });
    await sweepAll(backend, "unblock");
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      blockingReason: "waiting_for_worker",
    });
  });

  test("indexes agree with records, whatever has happened", async (bench) => {
    const { backend } = bench;
    await due(bench);
    await lapsed(bench);
    const laneId = lane();
    await completed(backend, { laneId }, bytes("x"));
    await backend.holdExecution(await submitted(backend, { laneId }));
    await backend.changePriority({
      ...(await submitted(backend, { laneId })),
      newPriority: 7,
    });
    await backend.setExecutionTag({
      ...(await submitted(backend, { laneId, tags: { team: "a" } })),
      key: "team",
      value: "b",
    });
    const steady = { processed: 0, errors: 0 };
    expect(await backend.reconcileExecutionIndex({})).toEqual(steady);
    for (const name of SWEEPS) await sweepAll(backend, name);
    expect(await backend.reconcileExecutionIndex({})).toEqual(steady);
    expect(
      await backend.reconcileExecutionIndex({ partition: "{fp:0}" }),
    ).toEqual(steady);
  });

  test("the store's clock is the one that counts", async ({
    backend,
    passTime,
  }) => {
    const before = await backend.serverTimeMs();
    await passTime(HOUR_MS);
    const after = await backend.serverTimeMs();
    expect(after - before).toBeGreaterThanOrEqual(HOUR_MS);
    expect(after - before).toBeLessThan(HOUR_MS + MINUTE_MS);
  });

  test("a lapse that is swept can be taken over like any other", async (bench) => {
    const { backend } = bench;
    const { laneId } = await lapsed(bench);
    await sweepAll(backend, "lease_expiry");
    expect(await taken(backend, laneId)).toMatchObject({ kind: "reclaimed" });
    await bench.passTime(LEASE_TTL_MS);
  });
});

/** Sweeps and the steps they are made of. */
export const maintenanceConformance: Group = (harness, registrar) => {
  driving(harness, registrar);
  retentionConformance(harness, registrar);
};
