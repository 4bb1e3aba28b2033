import type { ClaimManyInput, EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import {
  eventTypes,
  everythingAbout,
  expectRefused,
  sleep,
  within,
} from "./assertions.js";
import {
  bytes,
  fenceOf,
  HOUR_MS,
  lane,
  lapsed,
  LEASE_TTL_MS,
  OTHER_WORKER,
  parked,
  payloadOf,
  revoked,
  running,
  SIBLING,
  submitted,
  taken,
  textOf,
  WORKER,
} from "./builders.js";
import { claimOrderConformance } from "./claims-order.js";
import { parkedClaimsConformance } from "./claims-parked.js";
import { group, type Group } from "./harness.js";

const taking = group("claiming work", (test) => {
  const claimMany = async (
    backend: EngineBackend,
    input: Partial<ClaimManyInput> & { lanes: string[] },
  ) =>
    backend.claimMany({
      ...WORKER,
      max: 10,
      leaseTtlMs: LEASE_TTL_MS,
      ...input,
    });

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

  test(
    "claiming many takes up to the asked number, each with its own lease",
    { needs: "claimMany" },
    async ({ backend }) => {
      const laneId = lane();
      const ids = [];
      for (let n = 0; n < 5; n++)
        ids.push((await submitted(backend, { laneId })).executionId);

      const first = await claimMany(backend, { lanes: [laneId], max: 3 });
      const second = await claimMany(backend, { lanes: [laneId], max: 3 });

      expect(first.claimed).toHaveLength(3);
      expect(second.claimed).toHaveLength(2);
      const all = [...first.claimed, ...second.claimed];
      expect(all.map((claimed) => claimed.executionId).sort()).toEqual(
        [...ids].sort(),
      );
      expect(new Set(all.map((claimed) => claimed.leaseId)).size).toBe(5);
      expect(new Set(all.map((claimed) => claimed.attemptId)).size).toBe(5);
      expect(await claimMany(backend, { lanes: [laneId] })).toMatchObject({
        claimed: [],
      });
    },
  );

  test(
    "claiming many with wrong arguments is refused",
    { needs: "claimMany" },
    async ({ backend }) => {
      const lanes = [lane()];
      for (const [change, code] of [
        [{ max: 0 }, "invalid_input"],
        [{ max: 101 }, "invalid_input"],
        [{ lanes: [] }, "invalid_input"],
        [{ leaseTtlMs: -1 }, "invalid_input"],
        [{ maxWaitMs: 30_001 }, "invalid_input"],
        [{ namespace: "two words" }, "invalid_input"],
        [{ capabilities: [""] }, "invalid_capabilities"],
      ] as const) {
        await expectRefused(
          claimMany(backend, { lanes, ...change } as never),
          code,
        );
      }
    },
  );

  test(
    "64 claimers at once claim each of 200 executions exactly once",
    { needs: ["claimMany", "submitMany"] },
    async (bench) => {
      const { backend } = bench;
      const second = await bench.reopen();
      const laneId = lane();
      await backend.submitMany({
        items: Array.from({ length: 200 }, () => ({
          executionKind: "k",
          laneId,
        })),
      });
      const claims = await Promise.all(
        Array.from({ length: 64 }, async (_unused, n) => {
          const mine: string[] = [];
          for (;;) {
            const { claimed } = await claimMany(n % 2 ? backend : second, {
              lanes: [laneId],
              workerInstanceId: `claimer-${n}`,
              max: 2,
            });
            if (claimed.length === 0) return mine;
            mine.push(...claimed.map((one) => one.executionId));
          }
        }),
      );
      const all = claims.flat();
      expect(all).toHaveLength(200);
      expect(new Set(all).size).toBe(200);
    },
  );

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

  test(
    "a revoked lease is offered again at once",
    { needs: "revokeLease" },
    async (bench) => {
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
    },
  );

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

  test(
    "one namespace at a time may be claimed from",
    { needs: "claimMany" },
    async ({ backend }) => {
      const laneId = lane();
      const mine = await submitted(backend, { laneId, namespace: "mine" });
      const yours = await submitted(backend, { laneId, namespace: "yours" });
      const ids = async (namespace?: string) => {
        const { claimed } = await claimMany(backend, {
          lanes: [laneId],
          ...(namespace === undefined ? {} : { namespace }),
        });
        return claimed.map((one) => one.executionId);
      };
      expect(await ids("nobody")).toEqual([]);
      expect(await ids("yours")).toEqual([yours.executionId]);
      expect(await ids()).toEqual([mine.executionId]);
    },
  );

  test(
    "a repeated request gets the leases of the first, while they run",
    { needs: "claimMany" },
    async (bench) => {
      const { backend } = bench;
      const laneId = lane();
      for (let n = 0; n < 3; n++) await submitted(backend, { laneId });
      const request = { lanes: [laneId], max: 2, requestId: "call-1" };
      const first = await claimMany(backend, request);

      const repeated = await claimMany(backend, { ...request, repeat: true });
      const byId = (claims: typeof first.claimed) =>
        claims
          .map((one) => ({ executionId: one.executionId, ...fenceOf(one) }))
          .sort((a, b) => (a.executionId < b.executionId ? -1 : 1));
      expect(byId(repeated.claimed)).toEqual(byId(first.claimed));
      // The handles work like the first ones.
      for (const { handle } of repeated.claimed)
        await backend.renew({ handle });

      await bench.passTime(LEASE_TTL_MS);
      const later = await claimMany(backend, {
        ...request,
        max: 10,
        repeat: true,
      });
      expect(later.claimed.map((one) => one.kind).sort()).toEqual([
        "fresh",
        "reclaimed",
        "reclaimed",
      ]);
    },
  );

  test(
    "a repeat that was never applied claims, and nobody gets another's leases",
    { needs: "claimMany" },
    async ({ backend }) => {
      const laneId = lane();
      await submitted(backend, { laneId });
      await submitted(backend, { laneId });
      const request = {
        lanes: [laneId],
        max: 1,
        requestId: "same",
        repeat: true,
      };
      const mine = await claimMany(backend, request);
      const theirs = await claimMany(backend, { ...request, ...SIBLING });
      expect(mine.claimed).toHaveLength(1);
      expect(theirs.claimed).toHaveLength(1);
      expect(theirs.claimed[0]?.executionId).not.toBe(
        mine.claimed[0]?.executionId,
      );
    },
  );

  test(
    "the same request id without the word repeat is a new call",
    { needs: "claimMany" },
    async ({ backend }) => {
      const laneId = lane();
      await submitted(backend, { laneId });
      await submitted(backend, { laneId });
      const request = { lanes: [laneId], max: 1, requestId: "same" };
      const first = await claimMany(backend, request);
      const second = await claimMany(backend, request);
      expect(second.claimed).toHaveLength(1);
      expect(second.claimed[0]?.executionId).not.toBe(
        first.claimed[0]?.executionId,
      );
    },
  );

  test(
    "an empty claim says when something in its lanes becomes due",
    { needs: "claimMany" },
    async ({ backend }) => {
      const laneId = lane();
      const lanes = [laneId];
      expect(await claimMany(backend, { lanes })).toEqual({ claimed: [] });

      await submitted(backend, {
        laneId,
        delayUntilMs: (await backend.serverTimeMs()) + HOUR_MS,
      });
      const delayed = await claimMany(backend, { lanes });
      expect(delayed.nextDueInMs).toBeGreaterThan(HOUR_MS - 60_000);
      expect(delayed.nextDueInMs).toBeLessThanOrEqual(HOUR_MS);

      await submitted(backend, { laneId });
      await taken(backend, laneId, { leaseTtlMs: 20_000 });
      const leased = await claimMany(backend, { lanes });
      expect(leased.nextDueInMs).toBeGreaterThan(0);
      expect(leased.nextDueInMs).toBeLessThanOrEqual(20_000);
    },
  );

  test(
    "a scheduler gets a grant of the kind that the work needs",
    { needs: "claimForWorker" },
    async (bench) => {
      const { backend } = bench;
      const granted = async (laneId: string) => {
        const answer = await backend.claimForWorker({
          ...WORKER,
          laneId,
          grantTtlMs: 5_000,
        });
        return answer.kind === "granted" ? answer.grant : answer;
      };
      const fresh = await submitted(backend);
      const resume = await parked(backend);
      const reclaim = await lapsed(bench);

      expect(await granted(fresh.laneId)).toMatchObject({
        kind: "claim",
        ...fresh,
      });
      expect(await granted(resume.laneId)).toMatchObject({
        kind: "resume",
        executionId: resume.executionId,
      });
      expect(await granted(reclaim.laneId)).toMatchObject({
        kind: "reclaim",
        executionId: reclaim.executionId,
      });
      expect(await eventTypes(backend, reclaim.executionId)).toEqual([
        "created",
        "claimed",
        "lease_expired",
        "granted",
      ]);
      // Granted work is nobody else's for now.
      expect(await granted(fresh.laneId)).toMatchObject({ kind: "noWork" });
    },
  );

  test(
    "a scheduler hears whether a lane is empty or only closed to its worker",
    { needs: "claimForWorker" },
    async ({ backend }) => {
      const ask = (laneId: string) =>
        backend.claimForWorker({ ...WORKER, laneId, grantTtlMs: 5_000 });
      expect(await ask(lane())).toEqual({ kind: "noWork", reason: "empty" });

      const { laneId } = await submitted(backend, {
        policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
      });
      expect(await ask(laneId)).toEqual({ kind: "noWork", reason: "blocked" });
    },
  );

  test("a scan lists what could be claimed now, in order, and writes nothing", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const now = await backend.serverTimeMs();
    const low = await submitted(backend, { laneId });
    await bench.passTime(5);
    const due = await submitted(backend, { laneId, delayUntilMs: now + 50 });
    await bench.passTime(5);
    const high = await submitted(backend, { laneId, priority: 3 });
    const granted = await submitted(backend, { laneId, priority: 9 });
    const held = await submitted(backend, { laneId, priority: 9 });
    await submitted(backend, { laneId, delayUntilMs: now + HOUR_MS });
    await backend.issueClaimGrant({
      executionId: granted.executionId,
      ...WORKER,
      grantTtlMs: 60_000,
    });
    await backend.blockExecutionForAdmission({
      executionId: held.executionId,
      reason: "paused_by_operator",
    });
    await bench.passTime(50);
    const before = await everythingAbout(backend, due.executionId);

    const scan = await backend.scanEligibleExecutions({ laneId });

    expect(scan).toEqual([high.executionId, low.executionId, due.executionId]);
    expect(await everythingAbout(backend, due.executionId)).toEqual(before);
    expect(await backend.scanEligibleExecutions({ laneId, limit: 1 })).toEqual([
      high.executionId,
    ]);
    expect(await backend.scanEligibleExecutions({ laneId, limit: 0 })).toEqual(
      [],
    );
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
  claimOrderConformance(harness, registrar);
  parkedClaimsConformance(harness, registrar);
};
