import { expect } from "vitest";

import { eventTypes, expectRefused, sleep, within } from "./assertions.js";
import {
  bytes,
  lane,
  lapsed,
  LEASE_TTL_MS,
  OTHER_WORKER,
  parked,
  payloadOf,
  revoked,
  running,
  submitted,
  taken,
  textOf,
  WORKER,
} from "./builders.js";
import { claimManyConformance } from "./claims-many.js";
import { claimOrderConformance } from "./claims-order.js";
import { parkedClaimsConformance } from "./claims-parked.js";
import { schedulersConformance } from "./claims-schedulers.js";
import { group, type Group } from "./harness.js";

const taking = group("claiming work", (test) => {
  test("a claim leases the execution and brings all a handler needs", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend, {
      executionKind: "resize",
      inputPayload: bytes("image"),
      tags: { a: "1" },
    });
    const before = await backend.serverTimeMs();
    const claimed = await taken(backend, laneId, { leaseTtlMs: 5_000 });
    const after = await backend.serverTimeMs();

    expect(claimed).toMatchObject({
      kind: "fresh",
      executionId,
      laneId,
      leaseEpoch: 1,
      attemptIndex: 0,
      attemptType: "initial",
      context: { executionKind: "resize", tags: { a: "1" } },
    });
    expect(textOf(claimed.context.inputPayload)).toBe("image");
    expect(claimed.leaseExpiresAtMs).toBeGreaterThanOrEqual(before + 5_000);
    expect(claimed.leaseExpiresAtMs).toBeLessThanOrEqual(after + 5_000);
    expect(claimed.handle).toMatchObject({
      backend: backend.backendLabel(),
      kind: "fresh",
    });
    expect(payloadOf(backend, claimed)).toEqual({
      executionId,
      attemptIndex: 0,
      attemptId: claimed.attemptId,
      leaseId: claimed.leaseId,
      leaseEpoch: 1,
      leaseTtlMs: 5_000,
      laneId,
      workerInstanceId: WORKER.workerInstanceId,
    });

    const acquiredAtMs = claimed.leaseExpiresAtMs - 5_000;
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      publicState: "active",
      stateVector: {
        lifecyclePhase: "active",
        ownershipState: "leased",
        eligibilityState: "not_applicable",
        blockingReason: "none",
        attemptState: "running_attempt",
      },
      startedAtMs: acquiredAtMs,
      totalAttemptCount: 1,
      currentAttempt: { attemptId: claimed.attemptId, attemptIndex: 0 },
      currentLease: {
        leaseId: claimed.leaseId,
        leaseEpoch: 1,
        ...WORKER,
        attemptIndex: 0,
        acquiredAtMs,
        lastRenewedAtMs: acquiredAtMs,
        renewalDeadlineMs: acquiredAtMs + 3_333,
        expiresAtMs: claimed.leaseExpiresAtMs,
      },
    });
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      {
        attemptIndex: 0,
        attemptId: claimed.attemptId,
        attemptType: "initial",
        attemptState: "started",
        leaseId: claimed.leaseId,
        leaseEpoch: 1,
        ...WORKER,
        startedAtMs: acquiredAtMs,
      },
    ]);
    const { events } = await backend.readEvents({ executionId });
    expect(events.map((event) => event.type)).toEqual(["created", "claimed"]);
    expect(events[1]).toMatchObject({
      leaseEpoch: 1,
      attemptIndex: 0,
      data: { ...WORKER, leaseId: claimed.leaseId },
    });
  });

  test("an empty lane gives nothing, and nothing is claimed twice", async ({
    backend,
  }) => {
    const { laneId } = await running(backend);
    expect(
      await backend.claim({
        laneId,
        policy: { ...OTHER_WORKER, leaseTtlMs: LEASE_TTL_MS },
      }),
    ).toBeUndefined();
  });

  test("claiming with wrong arguments is refused and claims nothing", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    const policy = { ...WORKER, leaseTtlMs: LEASE_TTL_MS };
    const tooMany = Array.from({ length: 257 }, (_unused, n) => `t${n}`);
    for (const [change, code] of [
      [{ laneId: "" }, "invalid_input"],
      [{ policy: { ...policy, leaseTtlMs: 0 } }, "invalid_input"],
      [{ policy: { ...policy, leaseTtlMs: 1.5 } }, "invalid_input"],
      [{ policy: { ...policy, workerId: "two words" } }, "invalid_input"],
      [{ policy: { ...policy, workerInstanceId: "" } }, "invalid_input"],
      [{ policy: { ...policy, maxWaitMs: 30_001 } }, "invalid_input"],
      [{ capabilities: { tokens: tooMany } }, "invalid_capabilities"],
      [
        { capabilities: { tokens: ["x".repeat(4_097)] } },
        "invalid_capabilities",
      ],
      [{ capabilities: { tokens: ["a,b"] } }, "invalid_capabilities"],
    ] as const) {
      await expectRefused(backend.claim({ laneId, policy, ...change }), code);
    }
    expect(await backend.readExecutionState({ executionId })).toBe("waiting");
  });

  test("a worker may offer 256 tokens and 4096 bytes of them", async ({
    backend,
  }) => {
    for (const tokens of [
      Array.from({ length: 256 }, (_unused, n) => `t${n}`),
      ["x".repeat(4_096)],
    ]) {
      const { laneId } = await submitted(backend);
      expect(
        await taken(backend, laneId, { capabilities: tokens }),
      ).toMatchObject({ kind: "fresh" });
    }
  });

  test("an interrupted attempt goes on as the same attempt under a new lease", async ({
    backend,
  }) => {
    const first = await parked(backend);
    const again = await taken(backend, first.laneId, { worker: OTHER_WORKER });
    expect(again).toMatchObject({
      kind: "resumed",
      attemptIndex: 0,
      attemptId: first.attemptId,
      attemptType: "initial",
      leaseEpoch: 2,
      handle: { kind: "resumed" },
    });
    expect(again.leaseId).not.toBe(first.leaseId);
    expect(await backend.readTotalAttemptCount(again)).toBe(1);
    expect(await backend.listAttempts(again)).toMatchObject([
      { attemptState: "started", leaseEpoch: 2, ...OTHER_WORKER },
    ]);
    expect(await eventTypes(backend, again.executionId)).toEqual([
      "created",
      "claimed",
      "delayed",
      "resumed",
    ]);
  });

  test("a lapsed lease is taken over in the same claim, as a new attempt", async (bench) => {
    const { backend } = bench;
    const lost = await lapsed(bench);
    const { executionId } = lost;
    const again = await taken(backend, lost.laneId, { worker: OTHER_WORKER });
    expect(again).toMatchObject({
      kind: "reclaimed",
      attemptIndex: 1,
      attemptType: "reclaim",
      leaseEpoch: 2,
      handle: { kind: "reclaimed" },
    });
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      {
        attemptState: "interrupted_reclaimed",
        attemptId: lost.attemptId,
        ...WORKER,
      },
      {
        attemptState: "started",
        reclaimReason: "lease_expired",
        previousAttemptIndex: 0,
        ...OTHER_WORKER,
      },
    ]);
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      leaseReclaimCount: 1,
      leaseReclaimTotal: 1,
      retryCount: 0,
    });
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "lease_expired",
      "reclaimed",
    ]);
  });

  test("a revoked lease is offered again at once", async (bench) => {
    const { backend } = bench;
    const { laneId, executionId } = await revoked(bench);
    expect(await taken(backend, laneId)).toMatchObject({
      kind: "reclaimed",
      attemptIndex: 1,
    });
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "interrupted_reclaimed" },
      { reclaimReason: "lease_revoked" },
    ]);
  });

  test("a retry keeps its number and gets a new attempt", async (bench) => {
    const { backend } = bench;
    const first = await running(backend, {
      policy: {
        retryPolicy: { backoff: { type: "fixed", delayMs: 1_000 } },
      },
    });
    const { executionId, laneId } = first;
    await backend.fail({
      handle: first.handle,
      reason: { message: "once" },
      classification: "transient",
    });
    await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");
    await bench.passTime(1_000);
    expect(await taken(backend, laneId)).toMatchObject({
      kind: "fresh",
      attemptType: "retry",
      attemptIndex: 1,
      leaseEpoch: 2,
    });
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "retry_scheduled",
      "promoted",
      "claimed",
    ]);
    const attempts = await backend.listAttempts({ executionId });
    expect(attempts[1]).toMatchObject({ previousAttemptIndex: 0 });
  });

  test("whoever claims without registering is known for half a minute", async ({
    backend,
    passTime,
  }) => {
    const laneId = lane();
    await backend.claim({
      laneId,
      capabilities: { tokens: ["gpu"] },
      policy: { ...WORKER, leaseTtlMs: LEASE_TTL_MS },
    });
    const { entries } = await backend.listWorkers({});
    expect(entries).toMatchObject([
      { ...WORKER, lanes: [laneId], capabilities: ["gpu"] },
    ]);
    await passTime(30_000);
    expect(await backend.listWorkers({})).toEqual({ entries: [] });
  });

  test("a claim can be given up while it waits", async ({ backend }) => {
    const giveUp = new AbortController();
    const waiting = backend.claim({
      laneId: lane(),
      policy: { ...WORKER, leaseTtlMs: LEASE_TTL_MS, maxWaitMs: 30_000 },
      signal: giveUp.signal,
    });
    await sleep(20);
    giveUp.abort();
    expect(await within(5_000, "the aborted claim", waiting)).toBeUndefined();
  });
});

/** Taking work off a lane. */
export const claimsConformance: Group = (harness, registrar) => {
  taking(harness, registrar);
  claimManyConformance(harness, registrar);
  claimOrderConformance(harness, registrar);
  schedulersConformance(harness, registrar);
  parkedClaimsConformance(harness, registrar);
};
