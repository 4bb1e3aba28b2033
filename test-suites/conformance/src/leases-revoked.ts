import { expect } from "vitest";

import {
  eventTypes,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  completed,
  lapsed,
  markedLapsed,
  OTHER_WORKER,
  registered,
  revoked,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
  uuid,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

/** Taking a lease away. */
export const revocationConformance = group("revoked leases", (test) => {
  test("a revoked lease is gone at once, without an end of the execution", async ({
    backend,
  }) => {
    const { executionId, handle, leaseId } = await running(backend);
    expect(await backend.revokeLease({ executionId, reason: "stuck" })).toEqual(
      { kind: "revoked", leaseId, leaseEpoch: 1 },
    );
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      publicState: "active",
      leaseEpoch: 1,
      stateVector: {
        lifecyclePhase: "active",
        ownershipState: "lease_revoked",
        blockingReason: "waiting_for_worker",
        attemptState: "attempt_interrupted",
      },
    });
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "started" },
    ]);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => backend.renew({ handle }),
      "lease_revoked",
    );
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "lease_revoked",
    ]);
  });

  test("a repeated revocation, and one of a marked lapse, are already satisfied", async (bench) => {
    const { backend } = bench;
    const { executionId } = await revoked(bench);
    const before = await eventTypes(backend, executionId);
    expect(await backend.revokeLease({ executionId })).toEqual({
      kind: "alreadySatisfied",
      reason: "already_revoked",
    });
    expect(await eventTypes(backend, executionId)).toEqual(before);
    const lost = await markedLapsed(bench);
    expect(await backend.revokeLease(lost)).toEqual({
      kind: "alreadySatisfied",
      reason: "already_expired",
    });
  });

  test("a lapse that nobody marked can be revoked", async (bench) => {
    const { backend } = bench;
    const { executionId, leaseId } = await lapsed(bench);
    expect(await backend.revokeLease({ executionId })).toMatchObject({
      kind: "revoked",
      leaseId,
    });
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      stateVector: { ownershipState: "lease_revoked" },
    });
  });

  test("a revocation is refused in the contractual order", async ({
    backend,
  }) => {
    const revoke = (executionId: string, expectedLeaseId?: string) =>
      backend.revokeLease({
        executionId,
        ...(expectedLeaseId === undefined ? {} : { expectedLeaseId }),
      });
    const active = await running(backend);
    const ended = await completed(backend);
    const waiting = await submitted(backend);
    await expectRefused(revoke(UNKNOWN_ID), "execution_not_found");
    await expectRefused(
      revoke(waiting.executionId, uuid()),
      "execution_not_active",
    );
    await expectRefused(revoke(ended.executionId), "execution_not_active");
    await expectRefusedUnchanged(
      backend,
      active.executionId,
      () => revoke(active.executionId, uuid()),
      "stale_lease",
    );
    expect(await revoke(active.executionId, active.leaseId)).toMatchObject({
      kind: "revoked",
    });
  });

  test("a lease revoked with hold is offered only after the release", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await revoked(bench, { hold: true });
    await registered(backend, { lanes: [laneId] });
    expect(
      await backend.issueReclaimGrant({
        executionId,
        ...WORKER,
        grantTtlMs: 1_000,
      }),
    ).toEqual({ kind: "notReclaimable", executionId, detail: "held" });
    await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      operatorHold: true,
      publicState: "active",
    });
    await backend.unholdExecution({ executionId });
    expect(
      await taken(backend, laneId, { worker: OTHER_WORKER }),
    ).toMatchObject({ kind: "reclaimed" });
  });
});
