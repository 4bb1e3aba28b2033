import type { EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes, eventually, within } from "./assertions.js";
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
