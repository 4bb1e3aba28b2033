import { newLeaseId } from "@flowfabric/core";
import { expect } from "vitest";

import {
  eventTypes,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  HOUR_MS,
  LEASE_TTL_MS,
  OTHER_WORKER,
  parked,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
  WORKER,
} from "./builders.js";
import {
  claimInput,
  GRANT_TTL_MS,
  issueGrant,
  resumeInput,
} from "./grant-builders.js";
import { group } from "./harness.js";

/** Going on with an interrupted attempt, by grant. */
export const resumedGrantsConformance = group("resume grants", (test) => {
  test("a resume grant keeps the attempt and survives the wrong claim", async ({
    backend,
  }) => {
    const before = await parked(backend);
    const { executionId } = before;
    expect(await issueGrant(backend, executionId)).toMatchObject({
      kind: "resume",
    });
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
    await issueGrant(backend, interrupted, OTHER_WORKER);
    await expectRefused(resume(interrupted), "invalid_claim_grant");
    await bench.passTime(GRANT_TTL_MS);
    await expectRefused(
      resume(interrupted, OTHER_WORKER),
      "claim_grant_expired",
    );
  });

  test("a resume grant can be used as it was received", async ({ backend }) => {
    const { executionId, attemptId } = await parked(backend);
    const grant = await issueGrant(backend, executionId);
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
    const grant = await issueGrant(backend, executionId);
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
});
