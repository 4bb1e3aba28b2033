import type { EngineBackend } from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import { eventTypes, eventually } from "./assertions.js";
import {
  lane,
  lapsed,
  LEASE_TTL_MS,
  OTHER_WORKER,
  registered,
  running,
  submitted,
  taken,
  uuid,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";
import { reproducible, scaled } from "./settings.js";

/** Work is exactly in order once it has been ready for this long. */
const SETTLED_MS = 1_000;

/** Who is next, and who is passed over. */
export const claimOrderConformance = group("the order of claims", (test) => {
  /** Ids in the order in which single claims give them. */
  const drain = async (backend: EngineBackend, laneId: string) => {
    const ids: string[] = [];
    for (;;) {
      const claimed = await backend.claim({
        laneId,
        policy: { ...WORKER, leaseTtlMs: LEASE_TTL_MS },
      });
      if (claimed === undefined) return ids;
      ids.push(claimed.executionId);
    }
  };

  test("higher priority first, then older, then smaller id", async (bench) => {
    const { backend } = bench;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ priority: fc.nat(3), gapMs: fc.nat(1) }), {
          minLength: 1,
          maxLength: 12,
        }),
        async (specs) => {
          const laneId = lane();
          const all = [];
          for (const { priority, gapMs } of specs) {
            await bench.passTime(gapMs * 10);
            const { executionId } = await submitted(backend, {
              laneId,
              priority,
            });
            const snapshot = await backend.describeExecution({ executionId });
            all.push({
              executionId,
              priority,
              createdAtMs: snapshot!.createdAtMs,
            });
          }
          await bench.passTime(SETTLED_MS);
          const expected = all
            .sort(
              (a, b) =>
                b.priority - a.priority ||
                a.createdAtMs - b.createdAtMs ||
                (a.executionId < b.executionId ? -1 : 1),
            )
            .map((one) => one.executionId);

          expect(await backend.scanEligibleExecutions({ laneId })).toEqual(
            expected,
          );
          expect(await drain(backend, laneId)).toEqual(expected);
        },
      ),
      { ...reproducible(), numRuns: scaled(25, 5) },
    );
  });

  test("a lane spread over many partitions has one order all the same", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const expected = [];
    for (let n = 0; n < 20; n++) {
      await bench.passTime(5);
      const { executionId } = await submitted(backend, {
        laneId,
        executionId: `{fp:${(n * 37) % 256}}:${uuid()}`,
      });
      expected.push(executionId);
    }
    await bench.passTime(SETTLED_MS);
    expect(await drain(backend, laneId)).toEqual(expected);
  });

  test("a scan of one partition lists that one only, up to its limit", async ({
    backend,
  }) => {
    const laneId = lane();
    const ids = [];
    for (const partition of [1, 1, 2]) {
      const { executionId } = await submitted(backend, {
        laneId,
        executionId: `{fp:${partition}}:${uuid()}`,
      });
      ids.push(executionId);
    }
    const scan = (partition: string, limit: number) =>
      backend.scanEligibleExecutions({ laneId, partition, limit });
    expect(await scan("{fp:2}", 1)).toEqual([ids[2]]);
    expect(await scan("{fp:1}", 10)).toHaveLength(2);
    expect(await scan("{fp:3}", 10)).toEqual([]);
  });

  test("what one call takes is in order as well", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const ids = [];
    for (const priority of [0, 5, 0, 9]) {
      await bench.passTime(5);
      ids.push((await submitted(backend, { laneId, priority })).executionId);
    }
    await bench.passTime(SETTLED_MS);
    const { claimed } = await backend.claimMany({
      ...WORKER,
      lanes: [laneId],
      max: 10,
      leaseTtlMs: LEASE_TTL_MS,
    });
    expect(claimed.map((one) => one.executionId)).toEqual([
      ids[3],
      ids[1],
      ids[0],
      ids[2],
    ]);
  });

  test("lanes are served in turn, beginning with the first, and an empty one hides none", async (bench) => {
    const { backend } = bench;
    const [empty, first, second] = [lane(), lane(), lane()];
    const ids: string[] = [];
    for (const laneId of [first, first, second, second])
      ids.push((await submitted(backend, { laneId })).executionId);
    await bench.passTime(SETTLED_MS);
    const claim = async (lanes: string[], max: number) => {
      const { claimed } = await backend.claimMany({
        ...WORKER,
        lanes,
        max,
        leaseTtlMs: LEASE_TTL_MS,
      });
      return claimed.map((one) => one.laneId as string);
    };
    expect(await claim([empty, second, first], 1)).toEqual([second]);
    expect(await claim([first, second], 1)).toEqual([first]);
    expect((await claim([empty, first, second], 10)).sort()).toEqual(
      [first, second].sort(),
    );
  });

  test("however work is spread over many lanes, a claim takes all it asked for, the lanes in turn", async (bench) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 4 }), {
          minLength: 2,
          maxLength: 30,
        }),
        fc.array(fc.integer({ min: 1, max: 12 }), {
          minLength: 1,
          maxLength: 4,
        }),
        async (counts, claims) => {
          const lanes = counts.map(() => lane());
          const items = lanes.flatMap((laneId, index) =>
            Array.from({ length: counts[index]! }, () => ({
              executionKind: "k",
              laneId,
            })),
          );
          const results =
            items.length === 0 ? [] : await bench.backend.submitMany({ items });
          // Of each lane what is left, in no order: all of it is of one age.
          const left = new Map(lanes.map((laneId) => [laneId, new Set()]));
          for (const [index, result] of results.entries())
            if (result.kind !== "rejected")
              left.get(items[index]!.laneId)!.add(result.executionId);
          for (const max of claims) {
            const { claimed } = await bench.backend.claimMany({
              ...WORKER,
              lanes,
              max,
              leaseTtlMs: LEASE_TTL_MS,
            });
            const depths = lanes.map((laneId) => left.get(laneId)!.size);
            const inTurn = Array.from({ length: 4 }, (_unused, depth) =>
              lanes.filter((_laneId, index) => depths[index]! > depth),
            ).flat();
            expect(
              claimed.map(({ laneId }) => laneId as string).sort(),
            ).toEqual(inTurn.slice(0, max).sort());
            for (const { laneId, executionId } of claimed)
              expect(left.get(laneId)!.delete(executionId)).toBe(true);
          }
        },
      ),
      { numRuns: scaled(25), ...reproducible() },
    );
  });

  test("retries, replays and resumed work keep their age", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const retryPolicy = { backoff: { type: "fixed", delayMs: 1 } } as const;
    const old = [];
    for (let n = 0; n < 3; n++) {
      await bench.passTime(5);
      old.push(await running(backend, { laneId, policy: { retryPolicy } }));
    }
    await bench.passTime(5);
    const young = await submitted(backend, { laneId });
    const [retried, resumed, replayed] = old;
    await backend.complete({ handle: replayed!.handle });
    await backend.replayExecution({ executionId: replayed!.executionId });
    await backend.delay({ handle: resumed!.handle, delayUntilMs: 1 });
    await backend.fail({
      handle: retried!.handle,
      reason: { message: "once" },
      classification: "transient",
    });
    await bench.passTime(SETTLED_MS);

    expect(await drain(backend, laneId)).toEqual([
      ...old.map((claimed) => claimed.executionId),
      young.executionId,
    ]);
  });

  test("lost work is taken over in the order of ready work", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const lost = await running(backend, { laneId, priority: 5 });
    await bench.passTime(5);
    const waiting = await submitted(backend, { laneId, priority: 5 });
    const urgent = await submitted(backend, { laneId, priority: 6 });
    await bench.passTime(LEASE_TTL_MS);
    expect(await drain(backend, laneId)).toEqual([
      urgent.executionId,
      lost.executionId,
      waiting.executionId,
    ]);
  });

  test("what time alone made ready stands in line by priority, not by when that was", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const now = await backend.serverTimeMs();
    const expected: string[] = [];
    for (const priority of [1, 2, 3]) {
      // The least urgent comes due first.
      const { executionId } = await submitted(backend, {
        laneId,
        priority,
        delayUntilMs: now + 1_000 * priority,
      });
      expected.unshift(executionId);
    }
    await bench.passTime(3_000 + SETTLED_MS);
    expect(await backend.scanEligibleExecutions({ laneId })).toEqual(expected);
    expect(await drain(backend, laneId)).toEqual(expected);

    const lost = lane();
    expected.length = 0;
    for (const priority of [1, 2, 3]) {
      const { executionId } = await running(
        backend,
        { laneId: lost, priority },
        { leaseTtlMs: 1_000 * priority },
      );
      expected.unshift(executionId);
    }
    await bench.passTime(3_000 + SETTLED_MS);
    expect(await drain(backend, lost)).toEqual(expected);
  });

  test("delayed work is claimed from its due instant on, promoted in the same step", async (bench) => {
    const { backend } = bench;
    const delayUntilMs = (await backend.serverTimeMs()) + 60_000;
    const { executionId, laneId } = await submitted(backend, { delayUntilMs });
    await bench.passTime(30_000);
    expect(await drain(backend, laneId)).toEqual([]);
    await bench.passTime(30_000);
    expect(await drain(backend, laneId)).toEqual([executionId]);
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "promoted",
      "claimed",
    ]);
  });

  test("live grants, holds and other workers' capabilities hide nothing behind them", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const granted = await submitted(backend, { laneId, priority: 9 });
    await backend.issueClaimGrant({
      executionId: granted.executionId,
      ...OTHER_WORKER,
      grantTtlMs: 60_000,
    });
    const held = await submitted(backend, { laneId, priority: 8 });
    await backend.holdExecution({ executionId: held.executionId });
    for (let n = 0; n < 30; n++)
      await submitted(backend, {
        laneId,
        priority: 7,
        policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
      });
    const plain = await submitted(backend, { laneId });
    await bench.passTime(SETTLED_MS);
    expect(await drain(backend, laneId)).toEqual([plain.executionId]);
  });

  test("past its deadline nothing is begun, and it hides nothing behind it", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const executionDeadlineAtMs = (await backend.serverTimeMs()) + 1_000;
    await submitted(backend, { laneId, priority: 9, executionDeadlineAtMs });
    const behind = await submitted(backend, { laneId });
    await bench.passTime(SETTLED_MS);
    expect(await backend.scanEligibleExecutions({ laneId })).toEqual([
      behind.executionId,
    ]);
    expect(await drain(backend, laneId)).toEqual([behind.executionId]);
  });

  test("work is for workers that have every required token", async ({
    backend,
  }) => {
    const requiring = (requiredCapabilities: string[]) =>
      submitted(backend, {
        policy: { routingRequirements: { requiredCapabilities } },
      });
    const { laneId, executionId } = await requiring(["gpu", "eu"]);
    const miss = (capabilities: string[]) =>
      expect(taken(backend, laneId, { capabilities })).rejects.toThrow(
        "nothing to claim",
      );
    // A worker with all tokens is about, so that the route stays open.
    await backend.registerWorker({
      ...OTHER_WORKER,
      lanes: [laneId],
      capabilities: ["eu", "gpu"],
      livenessTtlMs: 60_000,
      namespace: "default",
    });
    await miss([]);
    await miss(["gpu"]);
    await miss(["EU", "gpu"]);
    expect(
      await taken(backend, laneId, { capabilities: ["eu", "fast", "gpu"] }),
    ).toMatchObject({ executionId });
  });

  test("a thousand jobs for others in front keep nobody from his own", async ({
    backend,
  }) => {
    const laneId = lane();
    await registered(backend, {
      worker: OTHER_WORKER,
      lanes: [laneId],
      capabilities: ["gpu"],
    });
    const { executionId } = await submitted(backend, { laneId });
    const policy = {
      routingRequirements: { requiredCapabilities: ["gpu"] },
    };
    await backend.submitMany({
      items: Array.from({ length: 1_000 }, () => ({
        executionKind: "k",
        laneId,
        priority: 5,
        policy,
      })),
    });
    await eventually(
      async () => {
        const { claimed } = await backend.claimMany({
          ...WORKER,
          lanes: [laneId],
          max: 1,
          leaseTtlMs: LEASE_TTL_MS,
        });
        return claimed[0]?.executionId === executionId;
      },
      // Five seconds are promised.
      25_000,
      "the one job for this worker",
    );
    // Somebody alive can take the others, so none of them was put aside.
    const { executions } = await backend.listExecutions({
      lanes: [laneId],
      limit: 20,
    });
    for (const other of executions.slice(1))
      expect(
        await backend.describeExecution({ executionId: other }),
      ).toMatchObject({ blockingReason: "waiting_for_worker" });
  });

  test("each further take-over waits longer: 0, 1, 2, 4 seconds", async (bench) => {
    const { backend } = bench;
    const lost = await lapsed(bench);
    const { laneId, executionId } = lost;
    for (const backoffMs of [0, 1_000, 2_000, 4_000]) {
      if (backoffMs > 0) {
        await bench.passTime(LEASE_TTL_MS);
        await bench.passTime(backoffMs - 300);
        expect(await drain(backend, laneId), `${backoffMs}`).toEqual([]);
        await bench.passTime(300);
      }
      expect(await taken(backend, laneId)).toMatchObject({
        executionId,
        kind: "reclaimed",
      });
    }
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      leaseReclaimCount: 4,
      totalAttemptCount: 5,
    });
  });

  test("work whose lease keeps being lost is not offered beyond its cap", async (bench) => {
    const { backend } = bench;
    const lost = await lapsed(bench, { policy: { maxReclaimCount: 1 } });
    const { laneId } = lost;
    await taken(backend, laneId);
    await bench.passTime(LEASE_TTL_MS + 60_000);
    expect(await drain(backend, laneId)).toEqual([]);
  });
});
