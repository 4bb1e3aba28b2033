import {
  newAttemptId,
  newLeaseId,
  type ClaimExecutionInput,
  type EngineBackend,
  type Grant,
  type IssueClaimGrantInput,
} from "@flowfabric/core";
import { expect } from "vitest";

import {
  eventTypes,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  HOUR_MS,
  lane,
  LEASE_TTL_MS,
  MINUTE_MS,
  OTHER_WORKER,
  parked,
  running,
  SIBLING,
  submitted,
  taken,
  UNKNOWN_ID,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

const GRANT_TTL_MS = 5_000;

/** Claiming in two steps: a grant, then its use. */
export const grantsConformance = group("grants", (test) => {
  const issue = async (
    backend: EngineBackend,
    executionId: string,
    change: Partial<IssueClaimGrantInput> = {},
  ): Promise<Grant> => {
    const { grant } = await backend.issueClaimGrant({
      executionId,
      ...WORKER,
      grantTtlMs: GRANT_TTL_MS,
      ...change,
    });
    return grant;
  };
  const claimInput = (
    executionId: string,
    change: Partial<ClaimExecutionInput> = {},
  ): ClaimExecutionInput => ({
    executionId,
    ...WORKER,
    leaseId: newLeaseId(),
    attemptId: newAttemptId(),
    leaseTtlMs: LEASE_TTL_MS,
    ...change,
  });
  const resumeInput = (
    executionId: string,
    change: Partial<ClaimExecutionInput> = {},
  ) => {
    const { attemptId: _unused, ...input } = claimInput(executionId, change);
    return input;
  };

  test("a grant names its execution, kind, lane and end, and leaves the state alone", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    const before = await backend.serverTimeMs();
    const grant = await issue(backend, executionId);
    const after = await backend.serverTimeMs();

    expect(grant).toMatchObject({ kind: "claim", executionId, laneId });
    expect(grant.partitionKey).toBe(
      executionId.slice(0, executionId.indexOf("}") + 1),
    );
    expect(grant.expiresAtMs).toBeGreaterThanOrEqual(before + GRANT_TTL_MS);
    expect(grant.expiresAtMs).toBeLessThanOrEqual(after + GRANT_TTL_MS);
    expect(await backend.readExecutionState({ executionId })).toBe("waiting");
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "granted",
    ]);
  });

  test("while a grant lives nobody else gets the execution", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    const { expiresAtMs } = await issue(backend, executionId);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => issue(backend, executionId, OTHER_WORKER),
      "grant_already_exists",
      { expiresAtMs },
    );
    await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");
    expect(await backend.scanEligibleExecutions({ laneId })).toEqual([]);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () =>
        backend.issueGrantAndClaim({ executionId, leaseTtlMs: LEASE_TTL_MS }),
      "grant_already_exists",
    );
  });

  test("an unused grant ends at its time, with nothing running that would tidy it", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await submitted(backend);
    await issue(backend, executionId);
    await bench.passTime(GRANT_TTL_MS);
    expect(await backend.scanEligibleExecutions({ laneId })).toEqual([
      executionId,
    ]);
    await issue(backend, executionId, OTHER_WORKER);
    await bench.passTime(GRANT_TTL_MS);
    expect(await taken(backend, laneId)).toMatchObject({ executionId });
  });

  test("using a grant begins an attempt under the lease that was named", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend);
    await issue(backend, executionId);
    const input = claimInput(executionId, { leaseTtlMs: 9_000 });
    const { claimed } = await backend.claimExecution(input);

    expect(claimed).toMatchObject({
      kind: "fresh",
      executionId,
      leaseId: input.leaseId,
      attemptId: input.attemptId,
      attemptIndex: 0,
      attemptType: "initial",
      leaseEpoch: 1,
    });
    await backend.complete({ handle: claimed.handle });
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "granted",
      "claimed",
      "completed",
    ]);
  });

  test("repeating a claim with its lease id gets the first answer", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend);
    await issue(backend, executionId);
    const input = claimInput(executionId);
    const first = await backend.claimExecution(input);
    const repeated = await backend.claimExecution(input);
    expect(repeated).toEqual(first);
    expect(await backend.readTotalAttemptCount({ executionId })).toBe(1);
    expect(await eventTypes(backend, executionId)).toHaveLength(3);
    for (const change of [
      { leaseId: newLeaseId() },
      { attemptId: newAttemptId() },
      OTHER_WORKER,
    ]) {
      await expectRefusedUnchanged(
        backend,
        executionId,
        () => backend.claimExecution({ ...input, ...change }),
        "execution_not_leaseable",
      );
    }
  });

  test("a grant is for its worker, in whichever of its processes", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend);
    await issue(backend, executionId);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => backend.claimExecution(claimInput(executionId, OTHER_WORKER)),
      "invalid_claim_grant",
    );
    const { claimed } = await backend.claimExecution(
      claimInput(executionId, SIBLING),
    );
    const snapshot = await backend.describeExecution(claimed);
    expect(snapshot?.currentLease).toMatchObject(SIBLING);
  });

  test("a grant is used once", async ({ backend }) => {
    const { executionId } = await submitted(backend);
    await issue(backend, executionId);
    const { claimed } = await backend.claimExecution(claimInput(executionId));
    await backend.delay({ handle: claimed.handle, delayUntilMs: 1 });
    await expectRefused(
      backend.claimResumedExecution(resumeInput(executionId)),
      "invalid_claim_grant",
    );
  });

  test("without a grant, or after its end, there is no claim", async (bench) => {
    const { backend } = bench;
    const { executionId } = await submitted(backend);
    const claim = () => backend.claimExecution(claimInput(executionId));
    await expectRefusedUnchanged(
      backend,
      executionId,
      claim,
      "invalid_claim_grant",
    );
    await issue(backend, executionId);
    await bench.passTime(GRANT_TTL_MS);
    await expectRefused(claim(), "claim_grant_expired");
    await expectRefused(claim(), "invalid_claim_grant");
  });

  test("a fresh claim is refused in the contractual order", async (bench) => {
    const { backend } = bench;
    const claim = (executionId: string, change = {}) =>
      backend.claimExecution(claimInput(executionId, change));
    const { executionId: active } = await running(backend);
    const { executionId: held } = await submitted(backend);
    await backend.holdExecution({ executionId: held });
    const { executionId: interrupted } = await parked(backend);
    const { executionId: ready } = await submitted(backend);

    await expectRefused(claim(UNKNOWN_ID, { leaseTtlMs: 0 }), "invalid_input");
    await expectRefused(claim(UNKNOWN_ID), "execution_not_found");
    await expectRefused(claim(active), "execution_not_leaseable");
    await expectRefused(claim(held), "execution_not_leaseable");
    await expectRefused(claim(interrupted), "use_claim_resumed_execution");
    await expectRefused(claim(ready), "invalid_claim_grant");
    await expectRefused(
      claim(ready, { renewBeforeMs: LEASE_TTL_MS + 1 }),
      "invalid_input",
    );
  });

  test("a resume grant keeps the attempt and survives the wrong claim", async ({
    backend,
  }) => {
    const before = await parked(backend);
    const { executionId } = before;
    expect(await issue(backend, executionId)).toMatchObject({ kind: "resume" });
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => backend.claimExecution(claimInput(executionId)),
      "use_claim_resumed_execution",
    );

    const input = resumeInput(executionId);
    const first = await backend.claimResumedExecution(input);
    expect(first.claimed).toMatchObject({
      kind: "resumed",
      attemptId: before.attemptId,
      attemptIndex: 0,
      leaseId: input.leaseId,
      leaseEpoch: 2,
    });
    expect(await backend.claimResumedExecution(input)).toEqual(first);
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "delayed",
      "granted",
      "resumed",
    ]);
  });

  test("a resumed claim is refused in the contractual order", async (bench) => {
    const { backend } = bench;
    const resume = (executionId: string, change = {}) =>
      backend.claimResumedExecution(resumeInput(executionId, change));
    const { executionId: active } = await running(backend);
    const { executionId: ready } = await submitted(backend);
    const later = await running(backend);
    await backend.delay({
      handle: later.handle,
      delayUntilMs: (await backend.serverTimeMs()) + HOUR_MS,
    });
    const { executionId: interrupted } = await parked(backend);

    await expectRefused(resume(UNKNOWN_ID, { leaseTtlMs: 0 }), "invalid_input");
    await expectRefused(resume(UNKNOWN_ID), "execution_not_found");
    await expectRefused(resume(active), "execution_not_leaseable");
    await expectRefused(resume(ready), "not_a_resumed_execution");
    await expectRefused(resume(later.executionId), "execution_not_leaseable");
    await expectRefused(resume(interrupted), "invalid_claim_grant");
    await issue(backend, interrupted, OTHER_WORKER);
    await expectRefused(resume(interrupted), "invalid_claim_grant");
    await bench.passTime(GRANT_TTL_MS);
    await expectRefused(
      resume(interrupted, OTHER_WORKER),
      "claim_grant_expired",
    );
  });

  test("a resume grant can be used as it was received", async ({ backend }) => {
    const { executionId, attemptId } = await parked(backend);
    const grant = await issue(backend, executionId);
    const token = {
      ...WORKER,
      grant,
      leaseTtlMs: LEASE_TTL_MS,
      leaseId: newLeaseId(),
    };
    const claimed = await backend.claimFromResumeGrant(token);
    expect(claimed).toMatchObject({ kind: "resumed", attemptId });
    expect(await backend.claimFromResumeGrant(token)).toEqual(claimed);
    // Another lease on it is not to be had any more, which is no error.
    expect(
      await backend.claimFromResumeGrant({ ...token, leaseId: newLeaseId() }),
    ).toBeUndefined();
  });

  test("a resume grant whose target moved on gives nothing, a foreign one is refused", async ({
    backend,
  }) => {
    const { executionId } = await parked(backend);
    const grant = await issue(backend, executionId);
    const use = (change = {}) =>
      backend.claimFromResumeGrant({
        ...WORKER,
        grant: { ...grant, ...change },
        leaseTtlMs: LEASE_TTL_MS,
      });
    expect(await use({ executionId: UNKNOWN_ID })).toBeUndefined();
    expect(await use(await submitted(backend))).toBeUndefined();
    await expectRefused(
      backend.claimFromResumeGrant({
        ...OTHER_WORKER,
        grant,
        leaseTtlMs: LEASE_TTL_MS,
      }),
      "invalid_claim_grant",
    );
    await backend.cancelExecution({ executionId, reason: "r" });
    expect(await use()).toBeUndefined();
  });

  test("granting is refused in the contractual order", async (bench) => {
    const { backend } = bench;
    const { executionId: active } = await running(backend);
    const requiring = {
      policy: {
        routingRequirements: { requiredCapabilities: ["b", "a", "c"] },
      },
    };
    const { executionId: picky } = await submitted(backend, requiring);
    const { executionId: granted } = await submitted(backend, requiring);
    await issue(backend, granted, { workerCapabilities: ["a", "b", "c"] });

    for (const grantTtlMs of [0, 60_001, 1.5])
      await expectRefused(
        issue(backend, UNKNOWN_ID, { grantTtlMs }),
        "invalid_input",
      );
    await expectRefused(
      issue(backend, UNKNOWN_ID, { workerCapabilities: ["a b"] }),
      "invalid_capabilities",
    );
    await expectRefused(issue(backend, UNKNOWN_ID), "execution_not_found");
    await expectRefused(issue(backend, active), "execution_not_eligible");
    // It lacks the tokens too, but the live grant is found first.
    await expectRefused(issue(backend, granted), "grant_already_exists");
    await expectRefused(
      issue(backend, picky, { workerCapabilities: ["b"] }),
      "capability_mismatch",
      { missing: "a,c" },
    );
    await expectRefused(
      issue(backend, picky, {
        laneId: "elsewhere",
        workerCapabilities: ["a", "b", "c"],
      }),
      "invalid_input",
      { reason: expect.stringContaining("lane_mismatch") },
    );
  });

  test("a mismatch is remembered by its time only and parks nothing", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend, {
      policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
    });
    const before = await backend.describeExecution({ executionId });
    await expectRefused(issue(backend, executionId), "capability_mismatch");
    const { lastCapabilityMismatchAtMs, ...after } =
      (await backend.describeExecution({ executionId }))!;
    expect(lastCapabilityMismatchAtMs).toBeGreaterThanOrEqual(
      before!.createdAtMs,
    );
    expect(after).toEqual({
      ...before,
      lastMutationAtMs: after.lastMutationAtMs,
    });
    expect(await eventTypes(backend, executionId)).toEqual(["created"]);
    expect(
      await issue(backend, executionId, { workerCapabilities: ["gpu"] }),
    ).toMatchObject({ kind: "claim" });
  });

  test("a grant ends with the state it was given for", async (bench) => {
    const { backend } = bench;
    const leave: [string, (executionId: string) => Promise<unknown>][] = [
      [
        "block",
        async (executionId) => {
          await backend.blockExecutionForAdmission({
            executionId,
            reason: "waiting_for_quota",
          });
          await backend.unblockExecution({ executionId });
        },
      ],
      [
        "hold",
        async (executionId) => {
          await backend.holdExecution({ executionId });
          await backend.unholdExecution({ executionId });
        },
      ],
    ];
    for (const [what, goAndComeBack] of leave) {
      const { executionId } = await submitted(backend);
      await issue(backend, executionId);
      await goAndComeBack(executionId);
      await expectRefused(
        backend.claimExecution(claimInput(executionId)),
        "invalid_claim_grant",
      );
      expect(await issue(backend, executionId), what).toBeDefined();
    }
  });

  test("a change of priority keeps the grant", async ({ backend }) => {
    const { executionId } = await submitted(backend);
    await issue(backend, executionId);
    await backend.changePriority({ executionId, newPriority: 5 });
    await backend.claimExecution(claimInput(executionId));
  });

  test("a claim may bring its own timeout and deadline", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend, {
      policy: {
        timeoutPolicy: {
          attemptTimeoutMs: HOUR_MS,
          executionDeadlineMs: HOUR_MS,
        },
      },
    });
    await issue(backend, executionId);
    const deadline = (await backend.serverTimeMs()) + 2 * HOUR_MS;
    await backend.claimExecution(
      claimInput(executionId, {
        attemptTimeoutMs: MINUTE_MS,
        executionDeadlineAtMs: deadline,
      }),
    );
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot?.attemptTimeoutAtMs).toBe(
      snapshot!.currentLease!.acquiredAtMs + MINUTE_MS,
    );
    expect(snapshot?.executionDeadlineAtMs).toBe(deadline);
  });

  test("a resumed attempt has only what is left of its time", async (bench) => {
    const { backend } = bench;
    const { handle, laneId, executionId } = await running(backend, {
      policy: { timeoutPolicy: { attemptTimeoutMs: 20_000 } },
    });
    const before = await backend.describeExecution({ executionId });
    expect(before?.attemptTimeoutAtMs).toBe(
      before!.currentLease!.acquiredAtMs + 20_000,
    );
    await bench.passTime(15_000);
    await backend.delay({ handle, delayUntilMs: 1 });
    const paused = await backend.describeExecution({ executionId });
    expect(paused?.attemptTimeoutAtMs).toBeUndefined();
    const leftMs = before!.attemptTimeoutAtMs! - paused!.lastTransitionAtMs;

    await bench.passTime(HOUR_MS);
    await taken(backend, laneId);
    const after = await backend.describeExecution({ executionId });
    expect(after?.attemptTimeoutAtMs).toBe(
      after!.currentLease!.acquiredAtMs + leftMs,
    );
  });

  test("an operator claims without grant and without capabilities", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend, {
      policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
    });
    const answer = await backend.issueGrantAndClaim({
      executionId,
      leaseTtlMs: LEASE_TTL_MS,
    });
    expect(answer).toMatchObject({
      executionId,
      leaseEpoch: 1,
      attemptIndex: 0,
    });
    const { leaseId, leaseEpoch, attemptId } = answer;
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot?.currentLease).toMatchObject({
      leaseId,
      workerId: "operator",
    });
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
    ]);
    await backend.completeExecution({
      executionId,
      fence: { leaseId, leaseEpoch, attemptId },
    });

    const { executionId: interrupted, attemptId: same } = await parked(backend);
    expect(
      await backend.issueGrantAndClaim({
        executionId: interrupted,
        leaseTtlMs: LEASE_TTL_MS,
      }),
    ).toMatchObject({ leaseEpoch: 2, attemptIndex: 0, attemptId: same });
  });

  test("an operator's claim is refused in the contractual order", async ({
    backend,
  }) => {
    const claim = (executionId: string, leaseTtlMs = LEASE_TTL_MS) =>
      backend.issueGrantAndClaim({ executionId, leaseTtlMs });
    const { executionId: active } = await running(backend);
    const { executionId: held } = await submitted(backend);
    await backend.holdExecution({ executionId: held });
    const { executionId: granted } = await submitted(backend);
    await issue(backend, granted);
    await expectRefused(claim(UNKNOWN_ID, 0), "invalid_input");
    await expectRefused(claim(UNKNOWN_ID), "execution_not_found");
    await expectRefused(claim(active), "execution_not_eligible");
    await expectRefused(claim(granted), "grant_already_exists");
    await expectRefused(claim(held), "execution_not_in_eligible_set");
  });

  test("of many schedulers at once one gets the grant", async (bench) => {
    const { backend } = bench;
    const second = await bench.reopen();
    const { executionId } = await submitted(backend, { laneId: lane() });
    const answers = await Promise.allSettled(
      Array.from({ length: 64 }, (_unused, n) =>
        issue(n % 2 ? backend : second, executionId, {
          workerId: `worker-${n}`,
        }),
      ),
    );
    expect(
      answers.filter((answer) => answer.status === "fulfilled"),
    ).toHaveLength(1);
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "granted",
    ]);
  });
});
