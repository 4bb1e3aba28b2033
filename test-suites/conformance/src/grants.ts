import { newAttemptId, newLeaseId } from "@flowfabric/core";
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
} from "./builders.js";
import {
  claimInput,
  GRANT_TTL_MS,
  issueGrant,
  resumeInput,
} from "./grant-builders.js";
import { operatorClaimsConformance } from "./grants-operators.js";
import { resumedGrantsConformance } from "./grants-resumed.js";
import { group, type Group } from "./harness.js";

const granting = group("grants", (test) => {
  test("a grant names its execution, kind, lane and end, and leaves the state alone", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    const before = await backend.serverTimeMs();
    const grant = await issueGrant(backend, executionId);
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
    const { expiresAtMs } = await issueGrant(backend, executionId);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => issueGrant(backend, executionId, OTHER_WORKER),
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
    await issueGrant(backend, executionId);
    await bench.passTime(GRANT_TTL_MS);
    expect(await backend.scanEligibleExecutions({ laneId })).toEqual([
      executionId,
    ]);
    await issueGrant(backend, executionId, OTHER_WORKER);
    await bench.passTime(GRANT_TTL_MS);
    expect(await taken(backend, laneId)).toMatchObject({ executionId });
  });

  test("using a grant begins an attempt under the lease that was named", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend);
    await issueGrant(backend, executionId);
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
    await issueGrant(backend, executionId);
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
    await issueGrant(backend, executionId);
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
    await issueGrant(backend, executionId);
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
    await issueGrant(backend, executionId);
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
    await issueGrant(backend, granted, { workerCapabilities: ["a", "b", "c"] });

    for (const grantTtlMs of [0, 60_001, 1.5])
      await expectRefused(
        issueGrant(backend, UNKNOWN_ID, { grantTtlMs }),
        "invalid_input",
      );
    await expectRefused(
      issueGrant(backend, UNKNOWN_ID, { workerCapabilities: ["a b"] }),
      "invalid_capabilities",
    );
    await expectRefused(issueGrant(backend, UNKNOWN_ID), "execution_not_found");
    await expectRefused(issueGrant(backend, active), "execution_not_eligible");
    // It lacks the tokens too, but the live grant is found first.
    await expectRefused(issueGrant(backend, granted), "grant_already_exists");
    await expectRefused(
      issueGrant(backend, picky, { workerCapabilities: ["b"] }),
      "capability_mismatch",
      { missing: "a,c" },
    );
    await expectRefused(
      issueGrant(backend, picky, {
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
    await expectRefused(
      issueGrant(backend, executionId),
      "capability_mismatch",
    );
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
      await issueGrant(backend, executionId, { workerCapabilities: ["gpu"] }),
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
      await issueGrant(backend, executionId);
      await goAndComeBack(executionId);
      await expectRefused(
        backend.claimExecution(claimInput(executionId)),
        "invalid_claim_grant",
      );
      expect(await issueGrant(backend, executionId), what).toBeDefined();
    }
  });

  test("a change of priority keeps the grant", async ({ backend }) => {
    const { executionId } = await submitted(backend);
    await issueGrant(backend, executionId);
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
    await issueGrant(backend, executionId);
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

  test("of many schedulers at once one gets the grant", async (bench) => {
    const { backend } = bench;
    const second = await bench.reopen();
    const { executionId } = await submitted(backend, { laneId: lane() });
    const answers = await Promise.allSettled(
      Array.from({ length: 64 }, (_unused, n) =>
        issueGrant(n % 2 ? backend : second, executionId, {
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

/** Claiming in two steps: a grant, then its use. */
export const grantsConformance: Group = (harness, registrar) => {
  granting(harness, registrar);
  resumedGrantsConformance(harness, registrar);
  operatorClaimsConformance(harness, registrar);
};
