import { inspect } from "node:util";

import { EARLIEST, type HandlePayload } from "@flowfabric/core";
import { expect } from "vitest";

import {
  everythingAbout,
  expectRefused,
  expectRefusedUnchanged,
  sleep,
} from "./assertions.js";
import {
  LEASE_TTL_MS,
  markedLapsed,
  revoked,
  running,
  taken,
  UNKNOWN_ID,
  uuid,
  type Taken,
} from "./builders.js";
import { take } from "./feed-readers.js";
import { group, type Bench } from "./harness.js";
import { scaled } from "./settings.js";
import { forged } from "./stream-builders.js";
import {
  effectOf,
  keyed,
  onPending,
  signalInput,
  single,
  suspended,
  suspendRunning,
  waitpointOf,
} from "./suspension-builders.js";

const MINUTE_MS = 60_000;

/** Addresses that signals can be sent to before anybody waits. */
export const waitpointsConformance = group("waitpoints", (test) => {
  test("a waitpoint is listed from the moment it is made, without its token", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId } = claimed;
    const before = await backend.serverTimeMs();
    const { waitpointId, token } = await waitpointOf(backend, claimed, "a");
    const list = await backend.listPendingWaitpoints({ executionId });
    expect(list).toEqual({
      entries: [
        {
          executionId,
          waitpointId,
          waitpointKey: "a",
          state: "pending",
          requiredSignalNames: [],
          createdAtMs: expect.any(Number) as number,
          expiresAtMs: list.entries[0]!.createdAtMs + MINUTE_MS,
          tokenKid: "k1",
          tokenFingerprint: token.reveal().slice(3, 19),
          signalCount: 0,
          matchedSignalCount: 0,
        },
      ],
    });
    expect(list.entries[0]!.createdAtMs).toBeGreaterThanOrEqual(before);
    // A second one of the same key is another one.
    const second = await waitpointOf(backend, claimed, "a");
    expect(second.waitpointId).not.toBe(waitpointId);
    expect(second.token.reveal()).not.toBe(token.reveal());
    expect(
      (
        await backend.readWaitpointToken({ executionId, waitpointId })
      )?.reveal(),
    ).toBe(token.reveal());
    expect(token.reveal()).toMatch(/^k1:[0-9a-f]{64}$/);
  });

  test("tokens stay out of everything that is printed, listed or told", async ({
    backend,
  }) => {
    const held = await suspended(backend);
    const { executionId, target, outcome, handle } = held;
    const text = target.token.reveal();
    const refusal = await expectRefused(
      effectOf(backend, { ...target, waitpointId: uuid() }),
      "invalid_token",
    );
    const shown = [
      outcome,
      target.token,
      await everythingAbout(backend, executionId),
      await backend.listPendingWaitpoints({ executionId }),
      await backend.listSuspended({}),
      refusal,
      await backend.deliverSignal(signalInput(target)),
      await backend.observeSignals({ handle }),
      await take(
        await backend.subscribeSignalDelivery({ cursor: EARLIEST }),
        1,
      ),
    ].flatMap((one) => [inspect(one, { depth: 10 }), JSON.stringify(one)]);
    shown.push(String(target.token), refusal.message);
    for (const one of shown) expect(one).not.toContain(text.slice(-40));
    expect(String(target.token)).toBe("k1:<REDACTED:len=64>");
  });

  test("making one takes a live lease and right arguments", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const make = (claimed: Taken, change = {}) =>
      backend.createWaitpoint({
        handle: claimed.handle,
        waitpointKey: "a",
        expiresInMs: 1_000,
        ...change,
      });
    const live = await running(backend);
    for (const change of [
      { waitpointKey: "" },
      { waitpointKey: "é".repeat(129) },
      { expiresInMs: 0 },
      { expiresInMs: 1.5 },
      { expiresInMs: 2_592_000_001 },
    ])
      await expectRefused(make(live, change), "invalid_input");
    await make(live, {
      waitpointKey: "é".repeat(128),
      expiresInMs: 2_592_000_000,
    });

    const held = await suspended(backend);
    await expectRefused(
      make({ ...held.before, handle: held.handle }),
      "already_suspended",
    );
    await expectRefused(
      make({ ...live, handle: { ...live.handle, backend: "elsewhere" } }),
      "handle_from_other_backend",
    );
    for (const change of [
      { leaseId: uuid() as HandlePayload["leaseId"] },
      { leaseEpoch: 2 },
      { attemptId: uuid() as HandlePayload["attemptId"] },
      { attemptIndex: 1 },
    ])
      await expectRefusedUnchanged(
        backend,
        live.executionId,
        () => make({ ...live, ...forged(backend, live, change) }),
        "stale_lease",
      );
    const lost = await markedLapsed(bench);
    const refused = [
      [held.before, "execution_not_active"],
      [await revoked(bench), "lease_revoked"],
      [lost, "lease_expired"],
    ] as const;
    for (const [claimed, code] of refused)
      await expectRefusedUnchanged(
        backend,
        claimed.executionId,
        () => make(claimed),
        code,
      );
    await taken(backend, lost.laneId);
    await expectRefused(make(lost), "stale_lease");
    // Unlike an outcome, it does not write the lapse that it finds.
    const lapsing = await running(backend);
    await bench.passTime(LEASE_TTL_MS);
    await expectRefusedUnchanged(
      backend,
      lapsing.executionId,
      () => make(lapsing),
      "lease_expired",
    );
  });

  test("an id is used once, and 256 at most are open", async ({ backend }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { handle, executionId } = claimed;
    const first = await waitpointOf(backend, claimed);
    const make = (waitpointId = uuid()) =>
      backend.createWaitpoint({
        handle,
        waitpointKey: "a",
        expiresInMs: MINUTE_MS,
        waitpointId,
      });
    await expectRefused(make(first.waitpointId), "waitpoint_already_exists");
    await backend.closeWaitpoint({ handle, waitpointId: first.waitpointId });
    await expectRefused(make(first.waitpointId), "waitpoint_already_exists");
    for (let made = 0; made < 256; made++) await make();
    await expectRefused(make(), "waitpoint_limit_exceeded", { limit: 256 });
    const { entries } = await backend.listPendingWaitpoints({
      executionId,
      limit: 1,
    });
    await backend.closeWaitpoint({
      handle,
      waitpointId: entries[0]!.waitpointId,
    });
    await make();
  });

  test("past its time a pending waitpoint is over, swept or not", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    const { executionId, handle } = claimed;
    const target = await waitpointOf(backend, claimed, "a", 5_000);
    const { waitpointId } = target;
    const expire = () =>
      backend.expirePendingWaitpoint({ executionId, waitpointId });
    await bench.passTime(4_000);
    expect(await expire()).toEqual({ kind: "noOp" });
    expect(await effectOf(backend, target)).toBe(
      "buffered_for_pending_waitpoint",
    );
    const isOver = async () => {
      await expectRefused(
        backend.suspend({
          handle,
          ...onPending(target, { resumeCondition: single("a") }),
        }),
        "pending_waitpoint_expired",
      );
      await expectRefused(effectOf(backend, target), "waitpoint_closed");
      expect(
        (await backend.listPendingWaitpoints({ executionId })).entries,
      ).toEqual([]);
      expect(
        await backend.readWaitpointToken({ executionId, waitpointId }),
      ).toBeUndefined();
      expect(await backend.closeWaitpoint({ handle, waitpointId })).toEqual({
        kind: "alreadyClosed",
      });
    };
    await bench.passTime(1_000);
    await isOver();
    expect(await expire()).toEqual({ kind: "expired" });
    expect(await expire()).toEqual({ kind: "noOp" });
    await isOver();
    expect(
      await backend.expirePendingWaitpoint({
        executionId: UNKNOWN_ID,
        waitpointId,
      }),
    ).toEqual({ kind: "noOp" });
  });

  test("the sweep takes what is due, and never one that became active", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    const { executionId } = claimed;
    const active = await waitpointOf(backend, claimed, "a", 1_000);
    await waitpointOf(backend, claimed, "b", 1_000);
    const later = await waitpointOf(backend, claimed, "c", 9_000);
    await suspendRunning(
      backend,
      claimed,
      onPending(active, { resumeCondition: single("a") }),
    );
    await bench.passTime(2_000);
    const { waitpointId } = active;
    expect(
      await backend.expirePendingWaitpoint({ executionId, waitpointId }),
    ).toEqual({ kind: "noOp" });
    const sweep = () => backend.sweep({ name: "pending_wp_expiry" });
    expect(await sweep()).toMatchObject({ processed: 1, more: false });
    expect(await sweep()).toMatchObject({ processed: 0, more: false });
    expect(await effectOf(backend, later)).toBe(
      "buffered_for_pending_waitpoint",
    );
    expect(await effectOf(backend, active)).toBe("resume_condition_satisfied");
  });

  test("of the sweep and whoever suspends on it one has a waitpoint whose time comes", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    await keyed(backend);
    const race = async (round: number) => {
      const claimed = await running(backend);
      const { executionId, handle } = claimed;
      const target = await waitpointOf(backend, claimed, "a", 1 + round);
      const { waitpointId } = target;
      await sleep(Math.random() * 2 * round);
      const suspending = backend
        .suspend({
          handle,
          ...onPending(target, { resumeCondition: single("a") }),
        })
        .then(
          ({ kind }) => kind,
          (error: { code: string }) => error.code,
        );
      const sweeping = [
        other.expirePendingWaitpoint({ executionId, waitpointId }),
        other.sweep({ name: "pending_wp_expiry" }),
        backend.expirePendingWaitpoint({ executionId, waitpointId }),
      ];
      await Promise.all(sweeping);
      const { entries } = await backend.listPendingWaitpoints({ executionId });
      if ((await suspending) === "suspended") {
        expect(await other.sweep({ name: "pending_wp_expiry" })).toBeDefined();
        expect(await effectOf(backend, target)).toBe(
          "resume_condition_satisfied",
        );
      } else {
        expect(await suspending).toBe("pending_waitpoint_expired");
        expect(entries).toEqual([]);
        await expectRefused(effectOf(backend, target), "waitpoint_closed");
      }
    };
    for (let round = 0; round < scaled(10, 3); round++)
      await Promise.all(Array.from({ length: 20 }, (_unused, at) => race(at)));
  });

  test("closing is for good, and its worker may close pending ones only", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const claimed = await running(backend);
    const { handle, executionId } = claimed;
    const target = await waitpointOf(backend, claimed);
    const { waitpointId } = target;
    await expectRefused(
      backend.closeWaitpoint({ handle, waitpointId: uuid() }),
      "waitpoint_not_found",
    );
    const close = () => backend.closeWaitpoint({ handle, waitpointId });
    expect(await close()).toEqual({ kind: "closed" });
    expect(await close()).toEqual({ kind: "alreadyClosed" });
    await expectRefused(effectOf(backend, target), "waitpoint_closed");
    await expectRefused(
      backend.suspend({ handle, ...onPending(target) }),
      "waitpoint_not_pending",
    );

    const second = await waitpointOf(backend, claimed, "b");
    const held = await suspendRunning(backend, claimed);
    const closeAs = (by: object, at: { waitpointId: string }) =>
      backend.closeWaitpoint({ ...by, waitpointId: at.waitpointId } as never);
    await expectRefused(
      closeAs({ handle: held.handle }, held.target),
      "stale_lease",
    );
    await expectRefused(
      closeAs({ handle }, held.target),
      "execution_not_active",
    );
    await backend.resumeExecution({ executionId });
    const again = await taken(backend, claimed.laneId);
    expect(await closeAs({ handle: again.handle }, second)).toEqual({
      kind: "closed",
    });
    expect(await closeAs({ handle: again.handle }, held.target)).toEqual({
      kind: "alreadyClosed",
    });
  });

  test("an operator closes active ones too, and the suspension stays open", async ({
    backend,
  }) => {
    const held = await suspended(backend, { keys: ["a", "b"] });
    const { executionId } = held;
    const [a, b] = held.targets;
    const close = (waitpointId: string, id: string = executionId) =>
      backend.closeWaitpoint({
        operator: true,
        executionId: id,
        waitpointId,
        reason: "not needed",
      });
    await expectRefused(
      close(a!.waitpointId, UNKNOWN_ID),
      "execution_not_found",
    );
    expect(await close(a!.waitpointId)).toEqual({ kind: "closed" });
    expect(await close(a!.waitpointId)).toEqual({ kind: "alreadyClosed" });
    await expectRefused(effectOf(backend, a!), "waitpoint_closed");
    expect(await effectOf(backend, b!)).toBe("appended_to_waitpoint");
    expect(await backend.readExecutionState({ executionId })).toBe("suspended");
    expect(await backend.resumeExecution({ executionId })).toMatchObject({
      kind: "resumed",
    });
  });

  test("waitpoints end with their attempt, however that ends", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const policy = {
      retryPolicy: { maxRetries: 1 },
      timeoutPolicy: {
        attemptTimeoutMs: 500_000,
        executionDeadlineMs: 900_000,
      },
    };
    const ends: Record<
      string,
      (claimed: Taken, bench: Bench) => Promise<unknown>
    > = {
      complete: ({ handle }) => backend.complete({ handle }),
      fail: ({ handle }) =>
        backend.fail({
          handle,
          reason: { message: "m" },
          classification: "permanent",
        }),
      "fail with a retry left": ({ handle }) =>
        backend.fail({
          handle,
          reason: { message: "m" },
          classification: "transient",
        }),
      cancel: ({ handle }) => backend.cancel({ handle, reason: "r" }),
      "cancel by an operator": ({ executionId }) =>
        backend.cancelExecution({ executionId, reason: "r" }),
      "take-over": async ({ executionId, laneId }) => {
        await backend.revokeLease({ executionId });
        await taken(backend, laneId);
      },
      timeout: async ({ executionId }) => {
        await bench.passTime(500_000);
        await backend.expireExecution({ executionId });
      },
      deadline: async ({ executionId }) => {
        await bench.passTime(900_000);
        await backend.expireExecution({
          executionId,
          reason: "execution_deadline",
        });
      },
    };
    for (const [how, end] of Object.entries(ends)) {
      const claimed = await running(
        backend,
        { policy },
        { leaseTtlMs: 80_000_000 },
      );
      const { executionId } = claimed;
      const target = await waitpointOf(backend, claimed, "a", 2_000_000);
      await end(claimed, bench);
      const { entries } = await backend.listPendingWaitpoints({ executionId });
      expect(entries, how).toEqual([]);
      const { terminalOutcome } = (await backend.describeExecution({
        executionId,
      }))!.stateVector;
      await expectRefused(
        effectOf(backend, target),
        terminalOutcome === "none"
          ? "waitpoint_closed"
          : "target_not_signalable",
      );
    }
  });

  test("a delay ends no attempt, and a replay brings nothing back", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, laneId } = claimed;
    const target = await waitpointOf(backend, claimed);
    await backend.delay({ handle: claimed.handle, delayUntilMs: 1 });
    expect(await effectOf(backend, target)).toBe(
      "buffered_for_pending_waitpoint",
    );
    const resumed = await taken(backend, laneId);
    await backend.complete({ handle: resumed.handle });
    await backend.replayExecution({ executionId });
    await expectRefused(effectOf(backend, target), "waitpoint_closed");
    const second = await taken(backend, laneId, {});
    await expectRefused(
      backend.suspend({ handle: second.handle, ...onPending(target) }),
      "waitpoint_not_pending",
    );
  });
});
