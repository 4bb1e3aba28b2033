import { decodeHandle } from "@flowfabric/core";
import { expect } from "vitest";

import {
  eventTypes,
  everythingAbout,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  HOUR_MS,
  OTHER_WORKER,
  running,
  taken,
  uuid,
  type Taken,
} from "./builders.js";
import { group, type Group } from "./harness.js";
import {
  effectOf,
  keyed,
  onPending,
  signalInput,
  single,
  suspendArgs,
  suspended,
  suspendRunning,
  waitpointOf,
} from "./suspension-builders.js";
import { conditionsConformance } from "./suspension-conditions.js";
import { suspendedListsConformance } from "./suspension-lists.js";
import { suspendRefusalsConformance } from "./suspension-refusals.js";
import { suspendRepeatsConformance } from "./suspension-repeats.js";
import { resumesConformance } from "./suspension-resumed.js";
import { timeoutsConformance } from "./suspension-timeouts.js";
import { waitpointsConformance } from "./waitpoints.js";

const suspending = group("suspension", (test) => {
  test("a suspended execution has no lease, keeps epoch and attempt, and says what it waits for", async (bench) => {
    const { backend } = bench;
    const { executionId, before, outcome, args, target } = await suspended(
      backend,
      { reasonCode: "waiting_for_approval" },
      { policy: { timeoutPolicy: { attemptTimeoutMs: HOUR_MS } } },
    );
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot).toMatchObject({
      publicState: "suspended",
      stateVector: {
        lifecyclePhase: "suspended",
        ownershipState: "unowned",
        eligibilityState: "not_applicable",
        blockingReason: "waiting_for_approval",
        terminalOutcome: "none",
        attemptState: "attempt_interrupted",
      },
      blockingDetail: "waiting_for_approval",
      leaseEpoch: before.leaseEpoch,
      currentAttempt: { attemptId: before.attemptId, attemptIndex: 0 },
      currentWaitpoint: target.waitpointId,
    });
    for (const field of ["currentLease", "attemptTimeoutAtMs", "completedAtMs"])
      expect(snapshot).not.toHaveProperty(field);
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptId: before.attemptId, attemptState: "suspended" },
    ]);
    expect(outcome.details).toMatchObject({
      suspensionId: args.suspensionId,
      waitpointId: target.waitpointId,
      waitpointKey: "approve",
      additionalWaitpoints: [],
    });
    expect(outcome.handle.kind).toBe("suspended");
    const label = backend.backendLabel();
    expect(decodeHandle(outcome.handle, label)).toEqual(
      decodeHandle(before.handle, label),
    );
    const { events } = await backend.readEvents({ executionId });
    expect(events.at(-1)).toMatchObject({
      type: "suspended",
      actor: "worker",
      reason: "waiting_for_approval",
      leaseEpoch: 1,
      data: {
        suspensionId: args.suspensionId,
        waitpoints: [target.waitpointId],
      },
      toState: snapshot!.stateVector,
    });
    // It is nobody's work, and no lapse comes of it.
    await bench.passTime(HOUR_MS * 2);
    expect(await backend.readExecutionState({ executionId })).toBe("suspended");
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "suspended",
    ]);
  });

  test("every reason blocks as what it is", async ({ backend }) => {
    const reasons = {
      waiting_for_signal: "waiting_for_signal",
      waiting_for_callback: "waiting_for_callback",
      waiting_for_tool_result: "waiting_for_tool_result",
      waiting_for_operator_review: "paused_by_operator",
      paused_by_policy: "paused_by_policy",
      paused_by_budget: "waiting_for_budget",
      step_boundary: "waiting_for_signal",
      manual_pause: "paused_by_operator",
    } as const;
    for (const [reasonCode, blockingReason] of Object.entries(reasons)) {
      const { executionId } = await suspended(backend, {
        reasonCode: reasonCode as keyof typeof reasons,
      });
      expect(await backend.describeExecution({ executionId })).toMatchObject({
        blockingReason,
        blockingDetail: reasonCode,
      });
    }
  });

  test("the handle it was suspended with is good for nothing any more, nor is the one it got", async ({
    backend,
  }) => {
    const { executionId, before, handle } = await suspended(backend);
    const calls = (own: Taken["handle"]) => [
      () => backend.renew({ handle: own }),
      () => backend.progress({ handle: own, percent: 1 }),
      () => backend.complete({ handle: own }),
      () => backend.cancel({ handle: own, reason: "r" }),
      () => backend.delay({ handle: own, delayUntilMs: 1 }),
      () =>
        backend.fail({
          handle: own,
          reason: { message: "m" },
          classification: "transient",
        }),
    ];
    const suspend = (own: Taken["handle"]) => () =>
      backend.suspend({ handle: own, ...suspendArgs() });
    const refusedAlike = async () => {
      for (const call of [...calls(before.handle), suspend(before.handle)])
        await expectRefusedUnchanged(
          backend,
          executionId,
          call,
          "execution_not_active",
        );
      for (const call of calls(handle))
        await expectRefusedUnchanged(backend, executionId, call, "stale_lease");
      await expectRefused(suspend(handle)(), "already_suspended");
    };
    await refusedAlike();
    // Resumed it is again where a delay leaves an execution; still no call of that lease has had this effect.
    await backend.resumeExecution({ executionId });
    await refusedAlike();
  });

  test("of many suspends at once one is the first", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, handle } = claimed;
    const answers = await Promise.allSettled(
      Array.from({ length: 100 }, (_unused, n) =>
        (n % 2 === 0 ? backend : other).suspend({ handle, ...suspendArgs() }),
      ),
    );
    const won = answers.filter(({ status }) => status === "fulfilled");
    expect(won).toHaveLength(1);
    for (const answer of answers)
      if (answer.status === "rejected")
        expect(answer.reason).toMatchObject({ code: "execution_not_active" });
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "suspended",
    ]);
    const { entries } = await backend.listPendingWaitpoints({ executionId });
    expect(entries).toHaveLength(1);
  });

  test("signals that came before may satisfy, and then nothing is given up", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, handle } = claimed;
    const target = await waitpointOf(backend, claimed, "a");
    const { signalId } = signalInput(target);
    await backend.deliverSignal(signalInput(target, { signalId }));
    const before = await everythingAbout(backend, executionId);

    const args = onPending(target, { resumeCondition: single("a") });
    const outcome = await backend.suspend({ handle, ...args });
    expect(outcome).toMatchObject({
      kind: "alreadySatisfied",
      details: {
        suspensionId: args.suspensionId,
        waitpointId: target.waitpointId,
        waitpointKey: "a",
      },
    });
    expect(outcome.details.waitpointToken.reveal()).toBe(target.token.reveal());
    expect(await everythingAbout(backend, executionId)).toEqual(before);
    await expectRefused(effectOf(backend, target), "waitpoint_closed");
    expect(await backend.observeSignals({ handle })).toMatchObject([
      { signalId },
    ]);
    await backend.renew({ handle });

    // A later suspension is none of its business.
    const later = await suspendRunning(backend, claimed);
    await expectRefused(effectOf(backend, target), "waitpoint_closed");
    expect(await backend.readExecutionState({ executionId })).toBe("suspended");
    expect(await effectOf(backend, later.target)).toBe(
      "resume_condition_satisfied",
    );
    const again = await taken(backend, claimed.laneId);
    await backend.complete({ handle: again.handle });
  });

  test("what came before is carried over, and the token stays", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const target = await waitpointOf(backend, claimed, "a");
    await effectOf(backend, target, { sourceIdentity: "x" });
    await effectOf(backend, target, { sourceIdentity: "x" });
    const held = await suspendRunning(
      backend,
      claimed,
      onPending(target, {
        resumeCondition: {
          kind: "composite",
          body: {
            kind: "count",
            n: 2,
            countKind: "distinctSources",
            waitpoints: ["a"],
          },
        },
      }),
    );
    expect(held.target.token.reveal()).toBe(target.token.reveal());
    const { executionId } = held;
    expect(
      (await backend.listPendingWaitpoints({ executionId })).entries,
    ).toMatchObject([
      { state: "active", signalCount: 2, matchedSignalCount: 2 },
    ]);
    expect(await effectOf(backend, target, { sourceIdentity: "x" })).toBe(
      "appended_to_waitpoint_duplicate",
    );
    expect(await effectOf(backend, target, { sourceIdentity: "y" })).toBe(
      "resume_condition_satisfied",
    );
    expect(
      await backend.observeSignals({ handle: claimed.handle }),
    ).toMatchObject([{ sourceIdentity: "x" }, { sourceIdentity: "y" }]);
  });

  test("more than a thousand signals may have come before, the right one first", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend, {}, { leaseTtlMs: HOUR_MS });
    const target = await waitpointOf(backend, claimed, "a", HOUR_MS);
    await effectOf(backend, target, { signalName: "right" });
    const others = Array.from({ length: 1_050 }, () =>
      effectOf(backend, target, { signalName: "wrong" }),
    );
    await Promise.all(others);
    const outcome = await backend.suspend({
      handle: claimed.handle,
      ...onPending(target, { resumeCondition: single("a", "right") }),
    });
    expect(outcome.kind).toBe("alreadySatisfied");
    expect(
      await backend.observeSignals({ handle: claimed.handle }),
    ).toMatchObject([{ signalName: "right" }]);
  });

  test("suspending and resuming go on for as long as one likes, each with tokens of its own", async ({
    backend,
  }) => {
    await keyed(backend);
    let claimed = await running(backend);
    const { executionId, laneId, attemptId } = claimed;
    const seen = new Set<string>();
    let last: Parameters<typeof effectOf>[1] | undefined;
    for (let round = 0; round < 50; round++) {
      const held = await suspendRunning(backend, claimed);
      seen.add(held.target.token.reveal());
      if (last !== undefined)
        await expectRefused(effectOf(backend, last), "waitpoint_closed");
      last = held.target;
      expect(await effectOf(backend, last)).toBe("resume_condition_satisfied");
      claimed = await taken(backend, laneId);
      expect(claimed).toMatchObject({ attemptId, leaseEpoch: round + 2 });
    }
    expect(seen.size).toBe(50);
    await backend.complete({ handle: claimed.handle });
    expect(await backend.listAttempts({ executionId })).toHaveLength(1);
  });

  test("a token of an earlier suspension never touches a later one, however that ended", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const endings: Record<string, (executionId: string) => Promise<unknown>> = {
      operator: (executionId) => backend.resumeExecution({ executionId }),
      timeout: async (executionId) => {
        await bench.passTime(5_000);
        await backend.expireSuspension({ executionId });
      },
    };
    for (const [how, end] of Object.entries(endings)) {
      const first = await suspended(backend, {
        timeoutAtMs: (await backend.serverTimeMs()) + 4_000,
        timeoutBehavior: "autoResume",
      });
      const { executionId } = first;
      await end(executionId);
      const second = await suspendRunning(
        backend,
        await taken(backend, first.laneId, { worker: OTHER_WORKER }),
      );
      await expectRefused(effectOf(backend, first.target), "waitpoint_closed");
      expect(await backend.readExecutionState({ executionId }), how).toBe(
        "suspended",
      );
      expect(await effectOf(backend, second.target), how).toBe(
        "resume_condition_satisfied",
      );
    }
  });

  test("by fence it is the same", async ({ backend }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, fence, handle } = claimed;
    const args = suspendArgs({ keys: ["a", "b"] });
    const outcome = await backend.suspendByTriple({
      executionId,
      fence,
      ...args,
    });
    if (outcome.kind !== "suspended") throw new Error(outcome.kind);
    const label = backend.backendLabel();
    expect(decodeHandle(outcome.handle, label)).toEqual(
      decodeHandle(handle, label),
    );
    expect(await backend.readExecutionState({ executionId })).toBe("suspended");
    expect(outcome.details.additionalWaitpoints).toHaveLength(1);

    const other = await running(backend);
    const by = (change: object) =>
      backend.suspendByTriple({
        executionId: other.executionId,
        fence: { ...other.fence, ...change },
        ...suspendArgs(),
      });
    for (const change of [
      { attemptId: uuid() },
      { leaseId: uuid() },
      { leaseEpoch: 7 },
    ])
      await expectRefusedUnchanged(
        backend,
        other.executionId,
        () => by(change),
        "stale_lease",
      );
    await expectRefused(by({ leaseId: undefined }), "partial_fence_triple");
    await expectRefused(
      backend.suspendByTriple({
        executionId: other.executionId,
        ...suspendArgs(),
      }),
      "fence_required",
    );
  });

  test("several waitpoints have a token each, and all close together", async ({
    backend,
  }) => {
    const held = await suspended(backend, { keys: ["a", "b", "c"] });
    const { executionId, targets } = held;
    const tokens = targets.map(({ token }) => token.reveal());
    expect(new Set(tokens).size).toBe(3);
    const { entries } = await backend.listPendingWaitpoints({ executionId });
    expect(
      entries.map(({ waitpointKey, state }) => [waitpointKey, state]),
    ).toEqual([
      ["a", "active"],
      ["b", "active"],
      ["c", "active"],
    ]);
    for (const [index, target] of targets.entries()) {
      const token = targets[(index + 1) % 3]!.token;
      await expectRefused(
        effectOf(backend, { ...target, token }),
        "invalid_token",
      );
    }
    expect(await effectOf(backend, targets[2]!)).toBe("appended_to_waitpoint");
    expect(await effectOf(backend, targets[0]!)).toBe("appended_to_waitpoint");
    expect(await effectOf(backend, targets[1]!)).toBe(
      "resume_condition_satisfied",
    );
    for (const target of targets)
      await expectRefused(effectOf(backend, target), "waitpoint_closed");
    expect(
      (await backend.listPendingWaitpoints({ executionId })).entries,
    ).toEqual([]);
    expect((await backend.observeSignals({ handle: held.handle })).length).toBe(
      3,
    );
  });

  test("other waitpoints of the attempt stay pending through a suspension", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const spare = await waitpointOf(backend, claimed, "later");
    const held = await suspendRunning(backend, claimed);
    expect(await effectOf(backend, spare)).toBe(
      "buffered_for_pending_waitpoint",
    );
    await effectOf(backend, held.target);
    expect(await effectOf(backend, spare)).toBe(
      "buffered_for_pending_waitpoint",
    );
    const again = await taken(backend, claimed.laneId);
    const outcome = await backend.suspend({
      handle: again.handle,
      ...onPending(spare, { resumeCondition: single("later") }),
    });
    expect(outcome.kind).toBe("alreadySatisfied");
    expect(await backend.observeSignals({ handle: again.handle })).toHaveLength(
      1,
    );
  });
});

/** Waiting for others without a worker. */
export const suspensionConformance: Group = (harness, registrar) => {
  suspending(harness, registrar);
  suspendRefusalsConformance(harness, registrar);
  suspendRepeatsConformance(harness, registrar);
  waitpointsConformance(harness, registrar);
  conditionsConformance(harness, registrar);
  timeoutsConformance(harness, registrar);
  resumesConformance(harness, registrar);
  suspendedListsConformance(harness, registrar);
};
