import type { EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import {
  countListeners,
  expectRefused,
  mostListeners,
  sleep,
  within,
} from "./assertions.js";
import {
  lane,
  LEASE_TTL_MS,
  OTHER_WORKER,
  parked,
  running,
  submitted,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

/** Long enough that only a wake-up can end the wait before the test's own bound. */
const WAIT_MS = 30_000;
/** Waking takes milliseconds with push, a second by the safety poll. */
const WOKEN_WITHIN_MS = 10_000;

/** Claims that wait for work instead of coming back empty. */
export const parkedClaimsConformance = group("claims that wait", (test) => {
  const parkedClaim = (
    backend: EngineBackend,
    laneId: string,
    signal?: AbortSignal,
  ) =>
    backend.claimMany({
      ...WORKER,
      lanes: [laneId],
      max: 5,
      leaseTtlMs: LEASE_TTL_MS,
      maxWaitMs: WAIT_MS,
      ...(signal === undefined ? {} : { signal }),
    });

  test("a wait ends empty when its time is over", async ({ backend }) => {
    const began = performance.now();
    const answer = await backend.claimMany({
      ...WORKER,
      lanes: [lane()],
      max: 1,
      leaseTtlMs: LEASE_TTL_MS,
      maxWaitMs: 100,
    });
    expect(answer.claimed).toEqual([]);
    expect(performance.now() - began).toBeGreaterThan(90);
    expect(performance.now() - began).toBeLessThan(5_000);
  });

  test("new work wakes a waiting claim", async ({ backend }) => {
    const laneId = lane();
    const waiting = parkedClaim(backend, laneId);
    await sleep(50);
    const { executionId } = await submitted(backend, { laneId });
    const { claimed } = await within(WOKEN_WITHIN_MS, "the wake-up", waiting);
    expect(claimed).toMatchObject([{ executionId }]);
  });

  test("new work through another connection wakes it as well", async (bench) => {
    const laneId = lane();
    const other = await bench.reopen();
    const waiting = parkedClaim(bench.backend, laneId);
    await sleep(50);
    const { executionId } = await submitted(other, { laneId });
    const { claimed } = await within(WOKEN_WITHIN_MS, "the wake-up", waiting);
    expect(claimed).toMatchObject([{ executionId }]);
  });

  test("what becomes ready again wakes it: handed back, released, revoked, replayed", async ({
    backend,
  }) => {
    const wakes = async (
      what: string,
      laneId: string,
      cause: () => Promise<unknown>,
    ) => {
      const waiting = parkedClaim(backend, laneId);
      await sleep(20);
      await cause();
      const { claimed } = await within(WOKEN_WITHIN_MS, what, waiting);
      expect(claimed, what).toHaveLength(1);
    };
    const back = await running(backend);
    await wakes("delay", back.laneId, () =>
      backend.delay({ handle: back.handle, delayUntilMs: 1 }),
    );
    const held = await submitted(backend);
    await backend.holdExecution(held);
    await wakes("unhold", held.laneId, () => backend.unholdExecution(held));
    const lost = await running(backend);
    await wakes("revoke", lost.laneId, () => backend.revokeLease(lost));
    const ended = await running(backend);
    await backend.complete({ handle: ended.handle });
    await wakes("replay", ended.laneId, () => backend.replayExecution(ended));
  });

  test("a wait ends when a delay of its lane is over", async ({ backend }) => {
    const laneId = lane();
    const delayUntilMs = (await backend.serverTimeMs()) + 300;
    const { executionId } = await submitted(backend, {
      laneId,
      delayUntilMs,
    });
    const { claimed } = await within(
      WOKEN_WITHIN_MS,
      "the due work",
      parkedClaim(backend, laneId),
    );
    expect(claimed).toMatchObject([{ executionId }]);
    expect(await backend.serverTimeMs()).toBeGreaterThanOrEqual(delayUntilMs);
  });

  test("a wait ends when a lease of its lane lapses", async ({ backend }) => {
    const { executionId, laneId } = await running(
      backend,
      {},
      { leaseTtlMs: 300, worker: OTHER_WORKER },
    );
    const { claimed } = await within(
      WOKEN_WITHIN_MS,
      "the lost work",
      parkedClaim(backend, laneId),
    );
    expect(claimed).toMatchObject([{ executionId, kind: "reclaimed" }]);
  });

  test("an abort answers empty, and work that comes later is not lost", async ({
    backend,
  }) => {
    const laneId = lane();
    const giveUp = new AbortController();
    const waiting = parkedClaim(backend, laneId, giveUp.signal);
    await sleep(20);
    giveUp.abort();
    expect((await within(5_000, "the abort", waiting)).claimed).toEqual([]);

    const { executionId } = await submitted(backend, { laneId });
    const { claimed } = await parkedClaim(backend, laneId);
    expect(claimed).toMatchObject([{ executionId }]);
  });

  test("claims under one signal put one listener on it, which goes with the last", async ({
    backend,
  }) => {
    const giveUp = new AbortController();
    const waiting = Array.from({ length: 20 }, () =>
      parkedClaim(backend, lane(), giveUp.signal),
    );
    const most = await mostListeners(giveUp.signal);
    giveUp.abort();
    await within(5_000, "the abort", Promise.all(waiting));
    expect([most, countListeners(giveUp.signal)]).toEqual([1, 0]);
  });

  test("a claim that is given up before it starts does not wait", async ({
    backend,
  }) => {
    const waiting = parkedClaim(backend, lane(), AbortSignal.abort());
    expect((await within(5_000, "the abort", waiting)).claimed).toEqual([]);
  });

  test("one new execution goes to one of many that wait", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const giveUp = new AbortController();
    const waiting = Array.from({ length: 5 }, () =>
      parkedClaim(backend, laneId, giveUp.signal),
    );
    await sleep(20);
    await submitted(backend, { laneId });
    await within(WOKEN_WITHIN_MS, "one of them", Promise.race(waiting));
    await sleep(100);
    giveUp.abort();
    const claims = await Promise.all(waiting);
    expect(claims.flatMap((answer) => answer.claimed)).toHaveLength(1);
  });

  test("a scheduler can wait for a grant", async ({ backend }) => {
    const laneId = lane();
    const waiting = backend.claimForWorker({
      ...WORKER,
      laneId,
      grantTtlMs: 5_000,
      maxWaitMs: WAIT_MS,
    });
    await sleep(20);
    const { executionId } = await submitted(backend, { laneId });
    expect(await within(WOKEN_WITHIN_MS, "the grant", waiting)).toMatchObject({
      kind: "granted",
      grant: { executionId },
    });
  });

  test("resumed work reaches a waiting claim with its attempt", async ({
    backend,
  }) => {
    const { laneId, attemptId } = await parked(backend);
    const { claimed } = await parkedClaim(backend, laneId);
    expect(claimed).toMatchObject([{ kind: "resumed", attemptId }]);
  });

  test("closing the store ends the waits in it", async (bench) => {
    const other = await bench.reopen();
    if (other === bench.backend) return;
    const waiting = parkedClaim(other, lane());
    await sleep(20);
    await other.close();
    await within(5_000, "the parked claim", Promise.allSettled([waiting]));
    await expectRefused(other.ping(), "unavailable");
  });
});
