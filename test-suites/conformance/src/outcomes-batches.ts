import { expect } from "vitest";

import { eventTypes, expectRefused, within } from "./assertions.js";
import {
  bytes,
  lane,
  LEASE_TTL_MS,
  reclaimed,
  running,
  submitted,
  textOf,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

/** Many outcomes in one trip, and the next claim with them. */
export const batchOutcomesConformance = group("many outcomes", (test) => {
  const failure = {
    reason: { message: "broken" },
    classification: "transient",
  } as const;

  test("each completion stands alone, answered at its index", async (bench) => {
    const { backend } = bench;
    const { stale } = await reclaimed(bench);
    const good = await running(backend);
    const cancelled = await running(backend);
    await backend.cancelExecution({
      executionId: cancelled.executionId,
      reason: "r",
    });
    const before = await running(backend);
    await backend.complete({ handle: before.handle });

    const results = await backend.completeMany({
      items: [
        { handle: stale.handle },
        { handle: good.handle, payload: bytes("good") },
        { handle: cancelled.handle },
        { handle: before.handle },
        { handle: { ...good.handle, opaque: new Uint8Array(3) } },
      ],
    });

    expect(results).toMatchObject([
      { kind: "rejected", code: "stale_lease" },
      { kind: "completed" },
      {
        kind: "rejected",
        code: "execution_not_active",
        detail: { terminalOutcome: "cancelled" },
      },
      { kind: "completed" },
      { kind: "rejected", code: "corruption" },
    ]);
    expect(textOf(await backend.getExecutionResult(good))).toBe("good");
    expect(await backend.readExecutionState(stale)).toBe("active");
  });

  test("the same completion twice in a batch ends the execution once", async ({
    backend,
  }) => {
    const { executionId, handle } = await running(backend);
    expect(
      await backend.completeMany({ items: [{ handle }, { handle }] }),
    ).toEqual([{ kind: "completed" }, { kind: "completed" }]);
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "completed",
    ]);
  });

  test("a batch has 1 to 1000 items and at most 8 MiB", async ({ backend }) => {
    const { executionId, handle } = await running(backend);
    const item = { handle };
    const large = { handle, payload: new Uint8Array(1_048_576) };
    for (const items of [
      [],
      Array.from({ length: 1_001 }, () => item),
      [
        ...Array.from({ length: 8 }, () => large),
        { handle, payload: bytes("x") },
      ],
    ]) {
      await expectRefused(backend.completeMany({ items }), "invalid_input");
      await expectRefused(backend.completeAndClaim({ items }), "invalid_input");
    }
    expect(await backend.readExecutionState({ executionId })).toBe("active");
  });

  test("outcomes and the next claim go in one trip, and neither spoils the other", async (bench) => {
    const { backend } = bench;
    const laneId = lane();
    const { stale } = await reclaimed(bench);
    const done = await running(backend, { laneId });
    const broken = await running(backend, { laneId });
    const next = await submitted(backend, { laneId });

    const answer = await backend.completeAndClaim({
      items: [
        { handle: stale.handle },
        { handle: done.handle, payload: bytes("done") },
        { handle: broken.handle, failure },
      ],
      claim: { ...WORKER, lanes: [laneId], max: 5, leaseTtlMs: LEASE_TTL_MS },
    });

    expect(answer.results).toMatchObject([
      { kind: "rejected", code: "stale_lease" },
      { kind: "completed" },
      { kind: "terminalFailed" },
    ]);
    expect(answer.claimed).toMatchObject([
      { executionId: next.executionId, kind: "fresh" },
    ]);
    expect(await backend.readExecutionState(done)).toBe("completed");
    expect(await backend.readExecutionState(broken)).toBe("failed");
  });

  test("a retry that an outcome schedules is for the next call", async ({
    backend,
    passTime,
  }) => {
    const { executionId, laneId, handle } = await running(backend, {
      policy: {
        retryPolicy: { backoff: { type: "fixed", delayMs: 0 } },
      },
    });
    const claim = {
      ...WORKER,
      lanes: [laneId],
      max: 5,
      leaseTtlMs: LEASE_TTL_MS,
    };
    const answer = await backend.completeAndClaim({
      items: [{ handle, failure }],
      claim,
    });
    expect(answer.results).toMatchObject([{ kind: "retryScheduled" }]);
    expect(answer.claimed).toEqual([]);
    await passTime(10);
    const { claimed } = await backend.claimMany(claim);
    expect(claimed).toMatchObject([{ executionId, attemptType: "retry" }]);
  });

  test("without a claim nothing is claimed, and with one the call does not wait", async ({
    backend,
  }) => {
    const laneId = lane();
    const first = await running(backend, { laneId });
    const second = await running(backend, { laneId });
    await submitted(backend, { laneId });
    expect(
      await backend.completeAndClaim({ items: [{ handle: first.handle }] }),
    ).toEqual({ results: [{ kind: "completed" }], claimed: [] });

    const call = backend.completeAndClaim({
      items: [{ handle: second.handle }],
      claim: {
        ...WORKER,
        lanes: [lane()],
        max: 1,
        leaseTtlMs: LEASE_TTL_MS,
        maxWaitMs: 30_000,
      },
    });
    expect(await within(10_000, "the answer", call)).toMatchObject({
      results: [{ kind: "completed" }],
      claimed: [],
    });
  });

  test("a repeated call answers its outcomes and its claim again", async ({
    backend,
  }) => {
    const laneId = lane();
    const { handle } = await running(backend, { laneId });
    await submitted(backend, { laneId });
    await submitted(backend, { laneId });
    const input = {
      items: [{ handle }],
      claim: {
        ...WORKER,
        lanes: [laneId],
        max: 1,
        leaseTtlMs: LEASE_TTL_MS,
        requestId: "tick-1",
      },
    };
    const first = await backend.completeAndClaim(input);
    const again = await backend.completeAndClaim({
      ...input,
      claim: { ...input.claim, repeat: true },
    });
    expect(again.results).toEqual([{ kind: "completed" }]);
    expect(again.claimed.map((claimed) => claimed.leaseId)).toEqual(
      first.claimed.map((claimed) => claimed.leaseId),
    );
  });

  test("results of a large batch keep apart", async ({ backend }) => {
    const laneId = lane();
    await backend.submitMany({
      items: Array.from({ length: 300 }, (_unused, n) => ({
        executionKind: "k",
        laneId,
        inputPayload: bytes(`input ${n}`),
      })),
    });
    const items = [];
    for (let call = 0; call < 3; call++) {
      const { claimed } = await backend.claimMany({
        ...WORKER,
        lanes: [laneId],
        max: 100,
        leaseTtlMs: LEASE_TTL_MS,
      });
      items.push(...claimed);
    }
    expect(items).toHaveLength(300);
    const results = await backend.completeMany({
      items: items.map(({ handle, context }) => ({
        handle,
        payload: context.inputPayload,
      })),
    });
    expect(new Set(results.map((result) => result.kind))).toEqual(
      new Set(["completed"]),
    );
    for (const { executionId, context } of items.slice(0, 20)) {
      const result = await backend.getExecutionResult({ executionId });
      expect(textOf(result)).toBe(textOf(context.inputPayload));
    }
  });
});
