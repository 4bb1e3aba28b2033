import type { ClaimManyInput, EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import {
  fenceOf,
  HOUR_MS,
  lane,
  LEASE_TTL_MS,
  SIBLING,
  submitted,
  taken,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

/** Many executions in one trip, and what a lost reply costs: nothing. */
export const claimManyConformance = group("claiming many", (test) => {
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

  test("claiming many takes up to the asked number, each with its own lease", async ({
    backend,
  }) => {
    const laneId = lane();
    const ids = [];
    for (let n = 0; n < 5; n++)
      ids.push((await submitted(backend, { laneId })).executionId);

    const first = await claimMany(backend, { lanes: [laneId], max: 3 });
    const second = await claimMany(backend, { lanes: [laneId], max: 3 });

    expect(first.claimed).toHaveLength(3);
    // With all that was asked for, nobody needs to know what comes next.
    expect(first).not.toHaveProperty("nextDueInMs");
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
  });

  test("claiming many with wrong arguments is refused", async ({ backend }) => {
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
  });

  test("work that another process brings into a known lane in a new way is found beside others", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    const lanes = [lane(), lane()];
    for (const laneId of lanes) await submitted(backend, { laneId });
    expect((await claimMany(backend, { lanes })).claimed).toHaveLength(2);

    for (const namespace of ["second", "third"]) {
      const { executionId } = await submitted(other, {
        laneId: lanes[0]!,
        namespace,
      });
      expect(await claimMany(backend, { lanes })).toMatchObject({
        claimed: [{ executionId }],
      });
    }
  });

  test("64 claimers at once claim each of 200 executions exactly once", async (bench) => {
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
  });

  test("one namespace at a time may be claimed from", async ({ backend }) => {
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
  });

  test("a repeated request gets the leases of the first, while they run", async (bench) => {
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
    for (const { handle } of repeated.claimed) await backend.renew({ handle });

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
  });

  test("a repeat that was never applied claims, and nobody gets another's leases", async ({
    backend,
  }) => {
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
  });

  test("the same request id without the word repeat is a new call", async ({
    backend,
  }) => {
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
  });

  test("an empty claim says when something in its lanes becomes due", async ({
    backend,
  }) => {
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
  });
});
