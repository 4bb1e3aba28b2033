import { newLeaseId } from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes, expectRefused, within } from "./assertions.js";
import {
  bytes,
  HOUR_MS,
  LEASE_TTL_MS,
  OTHER_WORKER,
  SIBLING,
  submitted,
  taken,
  textOf,
  UNKNOWN_ID,
  WORKER,
} from "./builders.js";
import { drainCompletions, drainLeases } from "./feed-readers.js";
import { claimInput, issueGrant, resumeInput } from "./grant-builders.js";
import { group } from "./harness.js";
import {
  effectOf,
  signalInput,
  suspended,
  suspendRunning,
} from "./suspension-builders.js";

/** Going on after a suspension: who resumes it, how it is claimed, what it is told. */
export const resumesConformance = group("resumes", (test) => {
  test("an operator resumes what is suspended, and everything closes", async ({
    backend,
  }) => {
    const { executionId, targets, laneId, before } = await suspended(backend, {
      keys: ["a", "b"],
      timeoutAtMs: (await backend.serverTimeMs()) + HOUR_MS,
    });
    await effectOf(backend, targets[0]!);
    expect(await backend.resumeExecution({ executionId })).toEqual({
      kind: "resumed",
      publicState: "waiting",
    });
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot).toMatchObject({
      leaseEpoch: 1,
      stateVector: {
        lifecyclePhase: "runnable",
        eligibilityState: "eligible_now",
        attemptState: "attempt_interrupted",
      },
    });
    for (const field of [
      "currentWaitpoint",
      "blockingDetail",
      "attemptTimeoutAtMs",
    ])
      expect(snapshot).not.toHaveProperty(field);
    const { events } = await backend.readEvents({ executionId });
    expect(events.at(-1)).toMatchObject({
      type: "unblocked",
      actor: "operator",
      reason: "operator",
      toState: snapshot!.stateVector,
    });
    for (const target of targets)
      await expectRefused(effectOf(backend, target), "waitpoint_closed");
    await expectRefused(
      backend.resumeExecution({ executionId }),
      "execution_not_suspended",
    );
    const claimed = await taken(backend, laneId, { worker: OTHER_WORKER });
    expect(claimed).toMatchObject({
      kind: "resumed",
      attemptId: before.attemptId,
      attemptIndex: 0,
      leaseEpoch: 2,
    });
    // Nobody's signal resumed it.
    expect(await backend.observeSignals(claimed)).toEqual([]);
    await backend.complete({ handle: claimed.handle });
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "ended_success", leaseEpoch: 2 },
    ]);
  });

  test("only what is suspended can be resumed", async ({ backend }) => {
    await expectRefused(
      backend.resumeExecution({ executionId: UNKNOWN_ID }),
      "execution_not_found",
    );
    const { executionId } = await submitted(backend);
    await expectRefused(
      backend.resumeExecution({ executionId }),
      "execution_not_suspended",
    );
    const other = await suspended(backend, {}, { namespace: "shop" });
    await expectRefused(
      backend.resumeExecution({
        executionId: other.executionId,
        namespace: "default",
      }),
      "execution_not_found",
    );
  });

  test("a delay is kept to, and the sender has no say where the suspension has one", async (bench) => {
    const { backend } = bench;
    const delayed = async (
      resumeDelayMs: number | undefined,
      sent: number | undefined,
    ) => {
      const { executionId, target } = await suspended(backend, {
        resumePolicy: resumeDelayMs === undefined ? {} : { resumeDelayMs },
      });
      await effectOf(
        backend,
        target,
        sent === undefined ? {} : { resumeDelayMs: sent },
      );
      const { delayUntilMs, lastTransitionAtMs, stateVector, blockingReason } =
        (await backend.describeExecution({ executionId }))!;
      return {
        executionId,
        ms: delayUntilMs === undefined ? 0 : delayUntilMs - lastTransitionAtMs,
        eligibility: stateVector.eligibilityState,
        blockingReason,
      };
    };
    expect((await delayed(undefined, undefined)).ms).toBe(0);
    expect((await delayed(0, 60_000)).ms).toBe(0);
    expect((await delayed(undefined, 60_000)).ms).toBe(60_000);
    const slow = await delayed(90_000, 60_000);
    expect(slow).toMatchObject({
      ms: 90_000,
      eligibility: "not_eligible_until_time",
      blockingReason: "waiting_for_resume_delay",
    });
    const { executionId } = slow;
    const { laneId } = (await backend.describeExecution({ executionId }))!;
    const claim = { laneId, policy: { ...WORKER, leaseTtlMs: LEASE_TTL_MS } };
    expect(await backend.claim(claim)).toBeUndefined();
    await bench.passTime(90_000);
    expect(await backend.readExecutionState({ executionId })).toBe("waiting");
    expect(await backend.claim(claim)).toMatchObject({ kind: "resumed" });

    const held = await suspended(backend, {
      resumePolicy: { resumeDelayMs: HOUR_MS },
    });
    expect(
      await backend.resumeExecution({
        executionId: held.executionId,
        resumeDelayMs: 5_000,
      }),
    ).toEqual({ kind: "resumed", publicState: "delayed" });
  });

  test("a wait is no end, and going on is another lease: so subscribers are told", async ({
    backend,
  }) => {
    const { executionId, target, laneId, before } = await suspended(backend);
    await effectOf(backend, target);
    const resumed = await taken(backend, laneId, { worker: OTHER_WORKER });
    expect(await drainCompletions(backend)).toEqual([]);
    await backend.complete({ handle: resumed.handle });
    expect(await drainLeases(backend)).toMatchObject([
      {
        kind: "acquired",
        executionId,
        leaseId: before.leaseId,
        reason: "claim",
      },
      {
        kind: "acquired",
        executionId,
        leaseId: resumed.leaseId,
        leaseEpoch: 2,
        attemptId: before.attemptId,
        attemptIndex: 0,
        ...OTHER_WORKER,
        reason: "claim_resumed",
      },
    ]);
    expect(await drainCompletions(backend)).toMatchObject([
      { executionId, outcome: "success", attemptIndex: 0 },
    ]);
  });

  test("a signal wakes a parked claim", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    const { target, laneId } = await suspended(backend);
    const parked = backend.claim({
      laneId,
      policy: { ...WORKER, leaseTtlMs: LEASE_TTL_MS, maxWaitMs: 20_000 },
    });
    await effectOf(other, target);
    expect(await within(10_000, "the claim", parked)).toMatchObject({
      kind: "resumed",
    });
  });

  test("a grant to resume is for its worker, once, in its time", async (bench) => {
    const { backend } = bench;
    const { executionId, target, before } = await suspended(backend);
    await expectRefused(
      issueGrant(backend, executionId),
      "execution_not_eligible",
    );
    await effectOf(backend, target);
    await expectRefused(
      backend.claimResumedExecution(resumeInput(executionId)),
      "invalid_claim_grant",
    );
    const grant = await issueGrant(backend, executionId);
    expect(grant.kind).toBe("resume");
    await expectRefused(
      backend.claimExecution(claimInput(executionId)),
      "use_claim_resumed_execution",
    );
    await expectRefused(
      backend.claimResumedExecution(resumeInput(executionId, OTHER_WORKER)),
      "invalid_claim_grant",
    );
    await bench.passTime(60_000);
    await expectRefused(
      backend.claimResumedExecution(resumeInput(executionId)),
      "claim_grant_expired",
    );
    await issueGrant(backend, executionId);
    const leaseId = newLeaseId();
    const token = {
      ...SIBLING,
      grant: { ...grant },
      leaseTtlMs: LEASE_TTL_MS,
      leaseId,
    };
    const claimed = await backend.claimFromResumeGrant(token);
    expect(claimed).toMatchObject({
      kind: "resumed",
      attemptId: before.attemptId,
      leaseEpoch: 2,
    });
    expect(await backend.claimFromResumeGrant(token)).toEqual(claimed);
    expect(
      await backend.claimFromResumeGrant({ ...token, leaseId: newLeaseId() }),
    ).toBeUndefined();
  });

  test("the attempt has what was left of its time when it suspended", async (bench) => {
    const { backend } = bench;
    const { executionId, target, laneId, before } = await suspended(
      backend,
      { timeoutAtMs: (await backend.serverTimeMs()) + HOUR_MS },
      { policy: { timeoutPolicy: { attemptTimeoutMs: 20_000 } } },
    );
    const acquiredAtMs = before.leaseExpiresAtMs - LEASE_TTL_MS;
    const { lastTransitionAtMs } = (await backend.describeExecution({
      executionId,
    }))!;
    const leftMs = acquiredAtMs + 20_000 - lastTransitionAtMs;
    await bench.passTime(HOUR_MS / 2);
    await effectOf(backend, target);
    await taken(backend, laneId);
    const after = (await backend.describeExecution({ executionId }))!;
    expect(after.attemptTimeoutAtMs).toBe(
      after.currentLease!.acquiredAtMs + leftMs,
    );
    await bench.passTime(leftMs);
    expect(await backend.expireExecution({ executionId })).toEqual({
      kind: "expired",
    });
  });

  test("who goes on is told what resumed it, in order and byte by byte", async ({
    backend,
  }) => {
    const held = await suspended(backend, {
      keys: ["a", "b"],
      resumeCondition: {
        kind: "composite",
        body: {
          kind: "count",
          n: 2,
          countKind: "distinctSources",
          waitpoints: ["a", "b"],
        },
      },
    });
    const { executionId, targets, handle, before, laneId } = held;
    const payload = Uint8Array.from({ length: 256 }, (_unused, byte) => byte);
    expect(await backend.observeSignals({ handle })).toEqual([]);
    const first = signalInput(targets[1]!, {
      signalName: "vote",
      signalCategory: "human",
      sourceType: "user",
      sourceIdentity: "ann",
      correlationId: "c-1",
      payload,
    });
    await backend.deliverSignal(first);
    // So far, for whoever holds what the suspend gave; for others it is open still.
    expect(await backend.observeSignals({ handle })).toHaveLength(1);
    expect(await backend.observeSignals(before)).toEqual([]);
    await effectOf(backend, targets[0]!, {
      sourceType: "user",
      sourceIdentity: "ann",
    });
    const last = signalInput(targets[0]!, { payload: bytes("") });
    await backend.deliverSignal(last);

    const { events } = await backend.readEvents({ executionId });
    const at = (signalId: string) =>
      events.find((event) => event.data?.["signalId"] === signalId)!.atMs;
    const expected = [
      {
        signalId: first.signalId,
        signalName: "vote",
        signalCategory: "human",
        sourceType: "user",
        sourceIdentity: "ann",
        correlationId: "c-1",
        acceptedAtMs: at(first.signalId),
      },
      {
        signalId: last.signalId,
        signalName: "go",
        signalCategory: "",
        sourceType: "",
        sourceIdentity: "",
        correlationId: "",
        acceptedAtMs: at(last.signalId),
      },
    ];
    const claimed = await taken(backend, laneId);
    for (const own of [claimed, before, { handle }]) {
      const observed = await backend.observeSignals(own);
      expect(observed.map(({ payload: _bytes, ...rest }) => rest)).toEqual(
        expected,
      );
      expect(Buffer.compare(observed[0]!.payload!, payload)).toBe(0);
      expect(textOf(observed[1]!.payload)).toBe("");
    }

    // The next suspension hides this one.
    const second = await suspendRunning(backend, claimed);
    expect(await backend.observeSignals({ handle: second.handle })).toEqual([]);
    await backend.resumeExecution({ executionId });
    const again = await taken(backend, laneId);
    expect(await backend.observeSignals(again)).toEqual([]);
    await backend.fail({
      handle: again.handle,
      reason: { message: "m" },
      classification: "permanent",
    });
    await backend.replayExecution({ executionId });
    const replayed = await taken(backend, laneId);
    expect(await backend.observeSignals(replayed)).toEqual([]);
  });

  test("a hold or an end in between is what it is for any runnable execution", async ({
    backend,
  }) => {
    const { executionId, target } = await suspended(backend);
    await expectRefused(
      backend.holdExecution({ executionId }),
      "execution_not_eligible",
    );
    await effectOf(backend, target);
    await backend.holdExecution({ executionId });
    await backend.unholdExecution({ executionId });
    expect(await backend.readExecutionState({ executionId })).toBe("waiting");

    const other = await suspended(backend);
    await backend.cancelExecution({
      executionId: other.executionId,
      reason: "r",
    });
    await expectRefused(
      effectOf(backend, other.target),
      "target_not_signalable",
    );
    expect(await eventTypes(backend, other.executionId)).toEqual([
      "created",
      "claimed",
      "suspended",
      "cancelled",
    ]);
    await backend.replayExecution({ executionId: other.executionId });
    await expectRefused(effectOf(backend, other.target), "waitpoint_closed");
  });
});
