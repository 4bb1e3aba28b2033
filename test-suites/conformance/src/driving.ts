import type { EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes, eventually, sleep, within } from "./assertions.js";
import {
  HOUR_MS,
  lane,
  lapsed,
  LEASE_TTL_MS,
  MINUTE_MS,
  OTHER_WORKER,
  registered,
  running,
  submitted,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";
import { keyed, suspended, suspendRunning } from "./suspension-builders.js";

/**
 * A claim takes what is due in its lanes at once and runs a portion of everything else four times a second: what any
 * portion does is done within a few seconds of claims. Ten times that is waited.
 */
const DRIVEN_WITHIN_MS = 25_000;

/** Nothing but claims runs here: no sweep, no server. The engine must do everything all the same. */
export const drivingConformance = group("the engine drives itself", (test) => {
  const claim = async (backend: EngineBackend, lanes: string[], max = 10) => {
    const { claimed } = await backend.claimMany({
      ...OTHER_WORKER,
      lanes,
      max,
      leaseTtlMs: LEASE_TTL_MS,
    });
    return claimed;
  };
  /** Claims on a lane without work until the last event is the awaited one. */
  const driven = async (
    backend: EngineBackend,
    executionId: string,
    event: string,
  ) => {
    const idle = lane();
    await eventually(
      async () => {
        await claim(backend, [idle]);
        return (await eventTypes(backend, executionId)).at(-1) === event;
      },
      DRIVEN_WITHIN_MS,
      `${event} by claims alone`,
    );
  };

  test("due work is promoted, lost work taken over, in the claim itself", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const delayed = await submitted(backend, {
      laneId,
      delayUntilMs: (await backend.serverTimeMs()) + 1_000,
    });
    const lost = await lapsed(bench, { laneId });
    const claimed = await claim(backend, [laneId]);
    expect(claimed.map((one) => [one.executionId, one.kind])).toEqual([
      [delayed.executionId, "fresh"],
      [lost.executionId, "reclaimed"],
    ]);
  });

  test("all work of a dead worker is taken over by a living one", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const lost = new Set<string>();
    for (let n = 0; n < 100; n++) {
      const { executionId } = await running(backend, { laneId });
      lost.add(executionId);
    }
    await bench.passTime(LEASE_TTL_MS);
    const recovered = new Set<string>();
    await eventually(
      async () => {
        for (const one of await claim(backend, [laneId], 30)) {
          expect(recovered.has(one.executionId)).toBe(false);
          recovered.add(one.executionId);
          await backend.complete({ handle: one.handle });
        }
        return recovered.size === lost.size;
      },
      DRIVEN_WITHIN_MS,
      "all taken over",
    );
    expect(recovered).toEqual(lost);
  });

  test("a deadline fires on a lane that no worker serves", async (bench) => {
    const { backend } = bench;
    const { executionId } = await submitted(backend, {
      executionDeadlineAtMs: (await backend.serverTimeMs()) + MINUTE_MS,
    });
    await bench.passTime(MINUTE_MS);
    await driven(backend, executionId, "expired");
  });

  test("a suspension's time runs out on a lane that no worker serves", async (bench) => {
    const { backend } = bench;
    const timeoutAtMs = (await backend.serverTimeMs()) + MINUTE_MS;
    const { executionId } = await suspended(backend, { timeoutAtMs });
    await bench.passTime(MINUTE_MS);
    await driven(backend, executionId, "failed");
  });

  test("a parked claim goes on with a suspension whose time runs out meanwhile", async ({
    backend,
  }) => {
    const laneId = lane();
    await keyed(backend);
    const claimed = await running(backend, { laneId });
    const parked = backend.claimMany({
      ...OTHER_WORKER,
      lanes: [laneId],
      max: 1,
      leaseTtlMs: LEASE_TTL_MS,
      maxWaitMs: 25_000,
    });
    // By then the claim waits, and for nothing that soon.
    await sleep(1_000);
    const suspendedAtMs = performance.now();
    await suspendRunning(backend, claimed, {
      timeoutAtMs: (await backend.serverTimeMs()) + 1_000,
      timeoutBehavior: "autoResume",
    });
    const answer = await within(20_000, "the parked claim", parked);
    expect(answer.claimed).toMatchObject([
      { kind: "resumed", executionId: claimed.executionId },
    ]);
    expect(performance.now() - suspendedAtMs).toBeLessThan(11_000);
  });

  test("past its deadline nothing is begun, and it hides nothing behind it", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const soon = (await backend.serverTimeMs()) + MINUTE_MS;
    await running(backend, { laneId, executionDeadlineAtMs: soon });
    for (let count = 0; count < 3; count++)
      await submitted(backend, { laneId, executionDeadlineAtMs: soon });
    const { executionId } = await submitted(backend, { laneId });
    await bench.passTime(MINUTE_MS);
    const [claimed, ...more] = await claim(backend, [laneId]);
    expect(claimed?.executionId).toBe(executionId);
    expect(more).toEqual([]);
  });

  test("an attempt that runs too long is ended", async (bench) => {
    const { backend } = bench;
    const { executionId } = await running(
      backend,
      { policy: { timeoutPolicy: { attemptTimeoutMs: MINUTE_MS } } },
      { leaseTtlMs: HOUR_MS },
    );
    await bench.passTime(MINUTE_MS);
    await driven(backend, executionId, "expired");
  });

  test("work that nobody can finish ends as poison", async (bench) => {
    const { backend } = bench;
    const { executionId } = await lapsed(bench, {
      policy: { maxReclaimCount: 0 },
    });
    await driven(backend, executionId, "failed");
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      failureReason: "max_reclaims_exceeded",
      totalAttemptCount: 1,
    });
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "lease_expired",
      "failed",
    ]);
  });

  test("a lapse is written down although nobody serves its lane", async (bench) => {
    const { backend } = bench;
    const { executionId } = await lapsed(bench);
    await driven(backend, executionId, "lease_expired");
  });

  test("a delay is written down as over although nobody serves its lane", async (bench) => {
    const { backend } = bench;
    const { executionId } = await submitted(backend, {
      delayUntilMs: (await backend.serverTimeMs()) + MINUTE_MS,
    });
    await bench.passTime(MINUTE_MS);
    await driven(backend, executionId, "promoted");
  });

  test("a blocked route opens for a worker that registers elsewhere", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend, {
      policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
    });
    await backend.blockRoute({ executionId });
    await registered(backend, { lanes: [laneId], capabilities: ["gpu"] });
    await driven(backend, executionId, "unblocked");
  });

  test("a waiting claim drives as well, also what is armed while it waits", async ({
    backend,
  }) => {
    const soon = async () => ({
      executionDeadlineAtMs: (await backend.serverTimeMs()) + 300,
    });
    const before = await submitted(backend, await soon());
    const giveUp = new AbortController();
    const waiting = backend.claimMany({
      ...WORKER,
      lanes: [lane()],
      max: 1,
      leaseTtlMs: LEASE_TTL_MS,
      maxWaitMs: 30_000,
      signal: giveUp.signal,
    });
    const expired = ({ executionId }: { executionId: string }) =>
      eventually(
        async () =>
          (await eventTypes(backend, executionId)).at(-1) === "expired",
        DRIVEN_WITHIN_MS,
        "the deadline",
      );
    await expired(before);
    await expired(await submitted(backend, await soon()));
    giveUp.abort();
    await within(5_000, "the abort", waiting);
  });

  test("work that is lost for good ends on time, however much else a waiting claim hears of", async ({
    backend,
  }) => {
    const laneId = lane();
    const { executionId } = await running(
      backend,
      { laneId, policy: { maxReclaimCount: 0 } },
      { leaseTtlMs: 1_000 },
    );
    const giveUp = new AbortController();
    const waiting = backend.claimMany({
      ...OTHER_WORKER,
      lanes: [laneId],
      max: 1,
      leaseTtlMs: LEASE_TTL_MS,
      maxWaitMs: 30_000,
      signal: giveUp.signal,
    });
    const delayUntilMs = (await backend.serverTimeMs()) + HOUR_MS;
    await eventually(
      async () => {
        // News of the lane, in the moment as well in which the lease runs out, and nothing to claim.
        await submitted(backend, { laneId, delayUntilMs });
        for (let round = 0; round < 20; round++)
          await submitted(backend, {
            laneId,
            policy: {
              routingRequirements: { requiredCapabilities: ["nobody"] },
            },
          });
        return (await eventTypes(backend, executionId)).at(-1) === "failed";
      },
      10_000,
      "the end at the reclaim cap",
    );
    giveUp.abort();
    await within(5_000, "the abort", waiting);
  });

  test("completing drives as well as claiming", async (bench) => {
    const { backend } = bench;
    const late = await submitted(backend, {
      executionDeadlineAtMs: (await backend.serverTimeMs()) + MINUTE_MS,
    });
    await bench.passTime(MINUTE_MS);
    const laneId = lane();
    await eventually(
      async () => {
        const { handle } = await running(backend, { laneId });
        await backend.completeAndClaim({
          items: [{ handle }],
          claim: {
            ...WORKER,
            lanes: [laneId],
            max: 1,
            leaseTtlMs: LEASE_TTL_MS,
          },
        });
        return (
          (await eventTypes(backend, late.executionId)).at(-1) === "expired"
        );
      },
      DRIVEN_WITHIN_MS,
      "the deadline",
    );
  });
});
