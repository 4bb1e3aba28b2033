import {
  encodeHandle,
  stopsRenewal,
  type EngineBackend,
  type Handle,
} from "@flowfabric/core";
import { expect } from "vitest";

import {
  eventTypes,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  lapsed,
  LEASE_TTL_MS,
  markedLapsed,
  payloadOf,
  reclaimed,
  revoked,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
  uuid,
} from "./builders.js";
import { group, type Group } from "./harness.js";
import { revocationConformance } from "./leases-revoked.js";

/** Every write that a handle allows. */
const writesOf = (
  backend: EngineBackend,
): ((handle: Handle) => Promise<unknown>)[] => [
  (handle) => backend.renew({ handle }),
  (handle) => backend.complete({ handle }),
  (handle) => backend.cancel({ handle, reason: "r" }),
  (handle) => backend.delay({ handle, delayUntilMs: 1 }),
  (handle) => backend.progress({ handle, percent: 50 }),
  (handle) =>
    backend.fail({
      handle,
      reason: { message: "m" },
      classification: "transient",
    }),
];

const keeping = group("leases", (test) => {
  test("a renewal counts its time from now and keeps lease and epoch", async (bench) => {
    const { backend } = bench;
    const { executionId, handle, leaseId } = await running(backend);
    await bench.passTime(20_000);
    const before = await backend.serverTimeMs();
    const { expiresAtMs, leaseEpoch } = await backend.renew({ handle });
    const after = await backend.serverTimeMs();

    expect(leaseEpoch).toBe(1);
    expect(expiresAtMs).toBeGreaterThanOrEqual(before + LEASE_TTL_MS);
    expect(expiresAtMs).toBeLessThanOrEqual(after + LEASE_TTL_MS);
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot?.currentLease).toMatchObject({
      leaseId,
      leaseEpoch: 1,
      expiresAtMs,
      lastRenewedAtMs: expiresAtMs - LEASE_TTL_MS,
      renewalDeadlineMs: expiresAtMs - LEASE_TTL_MS + 20_000,
    });
    // A renewal is no transition.
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
    ]);
    await bench.passTime(20_000);
    await backend.renew({ handle });
  });

  test("a lease has lapsed at its very instant, and the refusal writes it down", async (bench) => {
    const { backend } = bench;
    const { executionId, handle } = await lapsed(bench);
    const error = await expectRefused(
      backend.renew({ handle }),
      "lease_expired",
    );
    expect(stopsRenewal(error)).toBe(true);
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "lease_expired",
    ]);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => backend.renew({ handle }),
      "lease_expired",
    );
  });

  test("every fenced call notices the lapse, all but progress write it down", async (bench) => {
    const { backend } = bench;
    const calls: [string, (handle: Handle) => Promise<unknown>, string][] = [
      ["complete", (handle) => backend.complete({ handle }), "lease_expired"],
      [
        "fail",
        (handle) =>
          backend.fail({
            handle,
            reason: { message: "m" },
            classification: "transient",
          }),
        "lease_expired",
      ],
      [
        "cancel",
        (handle) => backend.cancel({ handle, reason: "r" }),
        "lease_expired",
      ],
      [
        "delay",
        (handle) => backend.delay({ handle, delayUntilMs: 1 }),
        "lease_expired",
      ],
      [
        "progress",
        (handle) => backend.progress({ handle, percent: 1 }),
        "claimed",
      ],
    ];
    for (const [what, call, lastEvent] of calls) {
      const { executionId, handle } = await lapsed(bench);
      await expectRefused(call(handle), "lease_expired");
      const types = await eventTypes(backend, executionId);
      expect(types.at(-1), what).toBe(lastEvent);
      expect(await backend.describeExecution({ executionId })).toMatchObject({
        stateVector: { ownershipState: "lease_expired_reclaimable" },
      });
    }
  });

  test("whoever lost the lease changes nothing any more", async (bench) => {
    const { backend } = bench;
    const { stale, current } = await reclaimed(bench);
    const { executionId, handle } = stale;
    for (const write of writesOf(backend))
      await expectRefusedUnchanged(
        backend,
        executionId,
        () => write(handle),
        "stale_lease",
      );
    await backend.complete({ handle: current.handle });
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => backend.complete({ handle }),
      "execution_not_active",
      { leaseEpoch: 2, terminalOutcome: "success" },
    );
  });

  test("nor does whoever handed the attempt back, though it goes on as the same", async ({
    backend,
  }) => {
    const { executionId, handle, laneId } = await running(backend);
    await backend.delay({ handle, delayUntilMs: 1 });
    const current = await taken(backend, laneId);
    expect(current).toMatchObject({ kind: "resumed", attemptIndex: 0 });

    for (const write of writesOf(backend))
      await expectRefusedUnchanged(
        backend,
        executionId,
        () => write(handle),
        "stale_lease",
      );

    await backend.complete({ handle: current.handle });
  });

  test("each part of the fence counts, in every write", async ({ backend }) => {
    const claimed = await running(backend);
    const { executionId, handle } = claimed;
    const own = payloadOf(backend, claimed);
    for (const change of [
      { leaseId: uuid() as never },
      { leaseEpoch: own.leaseEpoch + 1 },
      { attemptId: uuid() as never },
    ]) {
      const forged = encodeHandle(backend.backendLabel(), handle.kind, {
        ...own,
        ...change,
      });
      for (const write of writesOf(backend))
        await expectRefusedUnchanged(
          backend,
          executionId,
          () => write(forged),
          "stale_lease",
        );
    }
    await backend.complete({ handle });
  });

  test("any part of the fence that differs is a stale lease", async ({
    backend,
  }) => {
    const { executionId, fence, handle } = await running(backend);
    for (const change of [
      { leaseId: uuid() as never },
      { leaseEpoch: 2 },
      { leaseEpoch: 0 },
      { attemptId: uuid() as never },
    ]) {
      await expectRefusedUnchanged(
        backend,
        executionId,
        () =>
          backend.renewLease({
            executionId,
            attemptIndex: 0,
            fence: { ...fence, ...change },
            leaseTtlMs: LEASE_TTL_MS,
          }),
        "stale_lease",
      );
    }
    await expectRefusedUnchanged(
      backend,
      executionId,
      () =>
        backend.renewLease({
          executionId,
          attemptIndex: 1,
          fence,
          leaseTtlMs: LEASE_TTL_MS,
        }),
      "stale_lease",
    );
    await backend.renew({ handle });
  });

  test("a renewal by fence takes its own time to live", async ({ backend }) => {
    const { executionId, fence } = await running(backend);
    const before = await backend.serverTimeMs();
    const { kind, expiresAtMs } = await backend.renewLease({
      executionId,
      attemptIndex: 0,
      fence,
      leaseTtlMs: 90_000,
    });
    expect(kind).toBe("renewed");
    expect(expiresAtMs).toBeGreaterThanOrEqual(before + 90_000);
  });

  test("the fence is checked in the contractual order", async (bench) => {
    const { backend } = bench;
    const renew = (executionId: string, fence: object, leaseTtlMs = 1_000) =>
      backend.renewLease({ executionId, attemptIndex: 0, fence, leaseTtlMs });
    const { executionId: waiting } = await submitted(backend);
    const lost = await markedLapsed(bench);
    const gone = await revoked(bench);
    const { leaseId } = lost.fence;

    await expectRefused(renew(UNKNOWN_ID, {}, 0), "invalid_input");
    await expectRefused(renew(UNKNOWN_ID, { leaseId }), "execution_not_found");
    await expectRefused(renew(waiting, { leaseId }), "partial_fence_triple");
    await expectRefused(renew(waiting, {}), "fence_required");
    await expectRefused(renew(waiting, lost.fence), "execution_not_active", {
      lifecyclePhase: "runnable",
      terminalOutcome: "none",
      leaseEpoch: 0,
      attemptId: "",
    });
    // Revocation and lapse come before identity: a stranger hears of them too.
    await expectRefused(renew(gone.executionId, lost.fence), "lease_revoked");
    await expectRefused(renew(lost.executionId, gone.fence), "lease_expired");
    const live = await running(backend);
    await expectRefused(renew(live.executionId, lost.fence), "stale_lease");
  });

  test("a handle is looked at before anything is read", async ({ backend }) => {
    const claimed = await running(backend);
    const { handle } = claimed;
    const label = backend.backendLabel();
    const payload = payloadOf(backend, claimed);
    const cut = handle.opaque.slice(0, handle.opaque.length - 1);
    await expectRefused(
      backend.renew({ handle: { ...handle, opaque: cut } }),
      "corruption",
    );
    await expectRefused(
      backend.renew({ handle: { ...handle, opaque: new Uint8Array() } }),
      "corruption",
    );
    const elsewhere = label === "valkey" ? "postgres" : "valkey";
    await expectRefused(
      backend.renew({ handle: encodeHandle(elsewhere, "fresh", payload) }),
      "handle_from_other_backend",
      { expected: label, actual: elsewhere },
    );
    await expectRefused(
      backend.renew({ handle: { ...handle, backend: elsewhere } }),
      "handle_from_other_backend",
    );
    await expectRefused(
      backend.renew({
        handle: encodeHandle(label, "suspended", {
          ...payload,
          executionId: UNKNOWN_ID as never,
        }),
      }),
      "stale_lease",
    );
    await expectRefused(
      backend.renew({
        handle: encodeHandle(label, "fresh", {
          ...payload,
          executionId: UNKNOWN_ID as never,
        }),
      }),
      "execution_not_found",
    );
  });

  test("at any time one fence at most is good", async (bench) => {
    const { backend } = bench;
    const holders = [await running(backend)];
    const { laneId } = holders[0]!;
    for (let n = 0; n < 4; n++) {
      await bench.passTime(LEASE_TTL_MS + 60_000);
      holders.push(await taken(backend, laneId));
    }
    const renewals = await Promise.allSettled(
      holders.map(({ handle }) => backend.renew({ handle })),
    );
    expect(renewals.map((renewal) => renewal.status)).toEqual([
      ...Array.from({ length: 4 }, () => "rejected"),
      "fulfilled",
    ]);
    expect(holders.map((holder) => holder.leaseEpoch)).toEqual([1, 2, 3, 4, 5]);
  });

  test("a clock that steps back revives no lease that was seen to lapse", async (bench) => {
    const { backend } = bench;
    const { executionId, handle } = await markedLapsed(bench);
    const before = await backend.describeExecution({ executionId });
    await bench.passTime(-LEASE_TTL_MS);
    await expectRefused(backend.renew({ handle }), "lease_expired");
    await expectRefused(backend.complete({ handle }), "lease_expired");
    await backend.cancelExecution({ executionId, reason: "r" });
    const after = await backend.describeExecution({ executionId });
    expect(after!.lastTransitionAtMs).toBeGreaterThanOrEqual(
      before!.lastTransitionAtMs,
    );
    expect(after!.completedAtMs).toBeGreaterThanOrEqual(
      before!.lastTransitionAtMs,
    );
    const { events } = await backend.readEvents({ executionId });
    const times = events.map((event) => event.atMs);
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });

  test("the lease's epoch outlives every end", async ({ backend }) => {
    const epochs: (number | undefined)[] = [];
    const read = async (b: EngineBackend, executionId: string) =>
      epochs.push((await b.describeExecution({ executionId }))?.leaseEpoch);
    const { executionId, laneId, handle } = await running(backend);
    await backend.complete({ handle });
    await read(backend, executionId);
    await backend.replayExecution({ executionId });
    await read(backend, executionId);
    await taken(backend, laneId);
    await read(backend, executionId);
    expect(epochs).toEqual([1, 1, 2]);
  });
});

/** Keeping a lease, losing it, and what a lost one can still do: nothing. */
export const leasesConformance: Group = (harness, registrar) => {
  keeping(harness, registrar);
  revocationConformance(harness, registrar);
};
