import { ADMISSION_REASONS, type EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import {
  eventTypes,
  eventually,
  everythingAbout,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  failed,
  HOUR_MS,
  lane,
  LEASE_TTL_MS,
  OTHER_WORKER,
  parked,
  registered,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

/** Blocks on waiting work, and why a block stands. */
export const admissionConformance = group("admission", (test) => {
  const block = (backend: EngineBackend, executionId: string, reason: string) =>
    backend.blockExecutionForAdmission({ executionId, reason });

  test("each reason blocks in its own way and is derived into one public state", async ({
    backend,
  }) => {
    const seen: unknown[] = [];
    for (const reason of ADMISSION_REASONS) {
      const { executionId, laneId } = await submitted(backend);
      expect(
        await backend.blockExecutionForAdmission({
          executionId,
          reason,
          reasonDetail: "why",
        }),
      ).toEqual({ kind: "blocked", executionId, reason });
      await expect(taken(backend, laneId)).rejects.toThrow("nothing to claim");
      const snapshot = await backend.describeExecution({ executionId });
      expect(snapshot).toMatchObject({
        blockingReason: reason,
        blockingDetail: "why",
        stateVector: { attemptState: "pending_first_attempt" },
      });
      seen.push([
        snapshot?.stateVector.eligibilityState,
        snapshot?.publicState,
      ]);
      expect(
        await backend.unblockExecution({
          executionId,
          expectedBlockingReason: reason,
        }),
      ).toEqual({ kind: "unblocked", publicState: "waiting" });
      expect(await eventTypes(backend, executionId)).toEqual([
        "created",
        "blocked",
        "unblocked",
      ]);
      const after = await backend.describeExecution({ executionId });
      expect(after?.blockingDetail ?? "").toBe("");
      await taken(backend, laneId);
    }
    expect(seen).toEqual([
      ["blocked_by_budget", "rate_limited"],
      ["blocked_by_quota", "rate_limited"],
      ["blocked_by_route", "waiting"],
      ["blocked_by_operator", "waiting"],
      ["blocked_by_lane_state", "waiting"],
    ]);
  });

  test("the same block again is already satisfied and writes nothing", async ({
    backend,
  }) => {
    for (const reason of ADMISSION_REASONS) {
      const { executionId } = await submitted(backend);
      await block(backend, executionId, reason);
      const before = await everythingAbout(backend, executionId);
      expect(await block(backend, executionId, reason)).toEqual({
        kind: "alreadySatisfied",
      });
      expect(await everythingAbout(backend, executionId)).toEqual(before);
    }
  });

  test("a block that is not a hold never overwrites another state", async ({
    backend,
  }) => {
    const delayed = await submitted(backend, {
      delayUntilMs: (await backend.serverTimeMs()) + HOUR_MS,
    });
    const blocked = await submitted(backend);
    await block(backend, blocked.executionId, "waiting_for_budget");
    const held = await submitted(backend);
    await backend.holdExecution(held);
    for (const { executionId } of [delayed, blocked, held])
      await expectRefusedUnchanged(
        backend,
        executionId,
        () => block(backend, executionId, "waiting_for_quota"),
        "execution_not_eligible",
      );
  });

  test("holds stack upon what stands below, and each is lifted by its own name", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend, {
      delayUntilMs: (await backend.serverTimeMs()) + HOUR_MS,
    });
    const stateOf = async () =>
      (await backend.describeExecution({ executionId }))?.stateVector
        .eligibilityState;
    const unblock = (expectedBlockingReason?: string) =>
      backend.unblockExecution({
        executionId,
        ...(expectedBlockingReason === undefined
          ? {}
          : { expectedBlockingReason }),
      });
    await block(backend, executionId, "paused_by_policy");
    expect(await stateOf()).toBe("blocked_by_lane_state");
    await block(backend, executionId, "paused_by_operator");
    expect(await stateOf()).toBe("blocked_by_operator");
    // Nobody lifts an operator's hold by accident.
    await expectRefused(unblock(), "execution_not_eligible");
    await expectRefused(unblock("paused_by_policy"), "execution_not_eligible");
    await unblock("paused_by_operator");
    expect(await stateOf()).toBe("blocked_by_lane_state");
    expect(await unblock("paused_by_policy")).toEqual({
      kind: "unblocked",
      publicState: "delayed",
    });
    expect(await stateOf()).toBe("not_eligible_until_time");
  });

  test("blocking is refused in the contractual order", async ({ backend }) => {
    const { executionId: ended } = await failed(backend);
    const { executionId: active } = await running(backend);
    const { executionId: ready } = await submitted(backend);
    await expectRefused(
      block(backend, UNKNOWN_ID, "bad luck"),
      "execution_not_found",
    );
    await expectRefused(
      block(backend, ended, "bad luck"),
      "execution_not_active",
      { terminalOutcome: "failed" },
    );
    await expectRefused(
      block(backend, active, "bad luck"),
      "execution_not_eligible",
    );
    await expectRefused(
      block(backend, ready, "bad luck"),
      "invalid_blocking_reason",
      { reason: "bad luck" },
    );
    await expectRefused(
      block(backend, ready, "waiting_for_children"),
      "invalid_blocking_reason",
    );
  });

  test("unblocking what is not blocked, or not for this reason, is refused", async ({
    backend,
  }) => {
    const ready = await submitted(backend);
    const active = await running(backend);
    const ended = await failed(backend);
    const blocked = await submitted(backend);
    await block(backend, blocked.executionId, "waiting_for_budget");
    const unblock = (executionId: string, expectedBlockingReason?: string) =>
      backend.unblockExecution({
        executionId,
        ...(expectedBlockingReason === undefined
          ? {}
          : { expectedBlockingReason }),
      });
    await expectRefused(unblock(UNKNOWN_ID), "execution_not_found");
    await expectRefused(
      unblock(UNKNOWN_ID, "bad luck"),
      "invalid_blocking_reason",
    );
    for (const { executionId } of [ready, active, ended])
      await expectRefusedUnchanged(
        backend,
        executionId,
        () => unblock(executionId),
        "execution_not_eligible",
      );
    await expectRefusedUnchanged(
      backend,
      blocked.executionId,
      () => unblock(blocked.executionId, "waiting_for_quota"),
      "execution_not_eligible",
    );
    await unblock(blocked.executionId);
  });

  test("what was interrupted is still so behind a block", async ({
    backend,
  }) => {
    const { executionId, laneId, attemptId } = await parked(backend);
    await block(backend, executionId, "waiting_for_budget");
    await backend.unblockExecution({ executionId });
    expect(await taken(backend, laneId)).toMatchObject({
      kind: "resumed",
      attemptId,
    });
  });

  test("a route is blocked for want of a worker, and opens when one registers", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend, {
      policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
    });
    expect(
      await backend.blockRoute({ executionId, reasonDetail: "gpu" }),
    ).toEqual({
      kind: "blocked",
      executionId,
      reason: "waiting_for_capable_worker",
    });
    await registered(backend, { lanes: [laneId], capabilities: ["gpu"] });
    await eventually(
      async () => {
        const { claimed } = await backend.claimMany({
          ...WORKER,
          lanes: [laneId],
          capabilities: ["gpu"],
          max: 1,
          leaseTtlMs: LEASE_TTL_MS,
        });
        return claimed.length > 0;
      },
      10_000,
      "the route to open",
    );
  });

  test("a worker that cannot take the work never keeps it from one that can", async ({
    backend,
  }) => {
    const laneId = lane();
    await submitted(backend, {
      laneId,
      policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
    });
    const claim = async (
      worker: typeof WORKER | typeof OTHER_WORKER,
      capabilities: string[],
    ) => {
      const { claimed } = await backend.claimMany({
        ...worker,
        lanes: [laneId],
        capabilities,
        max: 1,
        leaseTtlMs: LEASE_TTL_MS,
      });
      return claimed;
    };
    for (let n = 0; n < 5; n++) expect(await claim(WORKER, [])).toEqual([]);
    await eventually(
      async () => (await claim(OTHER_WORKER, ["gpu"])).length > 0,
      10_000,
      "the capable worker's claim",
    );
  });

  test("why nobody takes it is told by who is there and what each lacks", async ({
    backend,
  }) => {
    const laneId = lane();
    const { executionId } = await submitted(backend, {
      laneId,
      policy: { routingRequirements: { requiredCapabilities: ["b", "a"] } },
    });
    const explain = () => backend.explainCapabilityMismatch({ executionId });
    expect(await explain()).toEqual({
      required: ["a", "b"],
      verdict: "no_workers",
      workers: [],
    });
    const register = (
      workerInstanceId: string,
      lanes: string[],
      capabilities: string[],
      namespace = "default",
    ) =>
      registered(backend, {
        worker: { workerId: `w-${workerInstanceId}`, workerInstanceId },
        lanes,
        capabilities,
        namespace,
      });
    await register("z", [laneId], ["a", "b"], "elsewhere");
    expect((await explain()).verdict).toBe("no_workers");
    await register("m", ["another"], ["a", "b"]);
    expect((await explain()).verdict).toBe("no_worker_on_lane");
    await register("k", [laneId], ["a"]);
    await register("j", [laneId], ["b", "c"]);
    await register("i", [laneId], []);
    expect(await explain()).toEqual({
      required: ["a", "b"],
      verdict: "no_superset",
      workers: [
        { workerInstanceId: "m", lanes: ["another"], missing: [] },
        { workerInstanceId: "j", lanes: [laneId], missing: ["a"] },
        { workerInstanceId: "k", lanes: [laneId], missing: ["b"] },
        { workerInstanceId: "i", lanes: [laneId], missing: ["a", "b"] },
      ],
    });
    await register("c", [laneId], ["a", "b", "c"]);
    expect((await explain()).verdict).toBe("covered");
  });

  test("an explanation tells since when, and has none for what needs none", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend, {
      policy: { routingRequirements: { requiredCapabilities: ["gpu"] } },
    });
    await expectRefused(
      backend.issueClaimGrant({ executionId, ...WORKER, grantTtlMs: 1_000 }),
      "capability_mismatch",
    );
    await backend.blockRoute({ executionId });
    const explained = await backend.explainCapabilityMismatch({
      executionId,
    });
    const snapshot = await backend.describeExecution({ executionId });
    expect(explained.lastMismatchAtMs).toBe(
      snapshot?.lastCapabilityMismatchAtMs,
    );
    expect(explained.blockedSinceMs).toBe(snapshot?.lastTransitionAtMs);

    const plain = await submitted(backend);
    const active = await running(backend);
    for (const ref of [plain, active])
      expect(await backend.explainCapabilityMismatch(ref)).toMatchObject({
        required: [],
        verdict: "not_applicable",
      });
    await expectRefused(
      backend.explainCapabilityMismatch({ executionId: UNKNOWN_ID }),
      "execution_not_found",
    );
  });

  test("a lane of another name is refused wherever it may be given", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () =>
        backend.blockExecutionForAdmission({
          executionId,
          laneId: "elsewhere",
          reason: "waiting_for_budget",
        }),
      "invalid_input",
      { reason: expect.stringContaining("lane_mismatch") },
    );
  });
});
