import { expect } from "vitest";

import { eventTypes, expectRefused } from "./assertions.js";
import {
  LEASE_TTL_MS,
  parked,
  running,
  submitted,
  UNKNOWN_ID,
} from "./builders.js";
import { issueGrant } from "./grant-builders.js";
import { group } from "./harness.js";

/** The short cut for operators. */
export const operatorClaimsConformance = group("operators' claims", (test) => {
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
    await issueGrant(backend, granted);
    await expectRefused(claim(UNKNOWN_ID, 0), "invalid_input");
    await expectRefused(claim(UNKNOWN_ID), "execution_not_found");
    await expectRefused(claim(active), "execution_not_eligible");
    await expectRefused(claim(granted), "grant_already_exists");
    await expectRefused(claim(held), "execution_not_in_eligible_set");
  });
});
