import {
  newAttemptId,
  newLeaseId,
  type EngineBackend,
  type IssueReclaimGrantInput,
  type ReclaimExecutionInput,
} from "@flowfabric/core";
import { expect } from "vitest";

import {
  eventTypes,
  everythingAbout,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  lapsed,
  LEASE_TTL_MS,
  markedLapsed,
  MINUTE_MS,
  OTHER_WORKER,
  registered,
  revoked,
  running,
  SIBLING,
  submitted,
  taken,
  UNKNOWN_ID,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

const GRANT_TTL_MS = 5_000;

/** Taking over lost work by hand. */
export const reclaimConformance = group("reclaim", (test) => {
  const issue = (
    backend: EngineBackend,
    executionId: string,
    change: Partial<IssueReclaimGrantInput> = {},
  ) =>
    backend.issueReclaimGrant({
      executionId,
      ...WORKER,
      grantTtlMs: GRANT_TTL_MS,
      ...change,
    });
  const input = (
    executionId: string,
    change: Partial<ReclaimExecutionInput> = {},
  ): ReclaimExecutionInput => ({
    executionId,
    ...WORKER,
    leaseId: newLeaseId(),
    attemptId: newAttemptId(),
    leaseTtlMs: LEASE_TTL_MS,
    ...change,
  });

  test("a reclaim ends the lost attempt and begins another, counted apart from retries", async (bench) => {
    const { backend } = bench;
    const lost = await lapsed(bench);
    const { executionId, laneId } = lost;
    await registered(backend, { lanes: [laneId] });

    expect(await issue(backend, executionId)).toMatchObject({
      kind: "granted",
      grant: { kind: "reclaim", executionId, laneId },
    });
    const ask = input(executionId);
    const answer = await backend.reclaimExecution(ask);

    expect(answer).toMatchObject({
      kind: "claimed",
      claimed: {
        kind: "reclaimed",
        leaseId: ask.leaseId,
        attemptId: ask.attemptId,
        attemptIndex: 1,
        attemptType: "reclaim",
        leaseEpoch: 2,
        handle: { kind: "reclaimed" },
      },
    });
    expect(await backend.reclaimExecution(ask)).toEqual(answer);
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      leaseReclaimCount: 1,
      leaseReclaimTotal: 1,
      retryCount: 0,
      totalAttemptCount: 2,
    });
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "interrupted_reclaimed" },
      { attemptState: "started", reclaimReason: "lease_expired" },
    ]);
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "lease_expired",
      "granted",
      "reclaimed",
    ]);
  });

  test("what holds a lease, waits or has ended is not reclaimable", async ({
    backend,
  }) => {
    const active = await running(backend);
    const waiting = await submitted(backend);
    const ended = await running(backend);
    await backend.complete({ handle: ended.handle });
    await registered(backend);
    for (const { executionId } of [active, waiting, ended]) {
      const before = await everythingAbout(backend, executionId);
      expect(await issue(backend, executionId)).toEqual({
        kind: "notReclaimable",
        executionId,
        detail: "execution_not_reclaimable",
      });
      expect(await backend.reclaimExecution(input(executionId))).toMatchObject({
        kind: "notReclaimable",
        executionId,
      });
      expect(await everythingAbout(backend, executionId)).toEqual(before);
    }
    await expectRefused(issue(backend, UNKNOWN_ID), "execution_not_found");
    await expectRefused(
      backend.reclaimExecution(input(UNKNOWN_ID)),
      "execution_not_found",
    );
  });

  test("a reclaim grant needs a live worker of the namespace with the capabilities", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await submitted(backend, {
      namespace: "shop",
      policy: { routingRequirements: { requiredCapabilities: ["a", "b"] } },
    });
    await taken(backend, laneId, {
      capabilities: ["a", "b"],
      worker: OTHER_WORKER,
    });
    await bench.passTime(MINUTE_MS);

    const refusal = async (change = {}) => {
      const answer = await issue(backend, executionId, change);
      return answer.kind === "notReclaimable" ? answer.detail : answer.kind;
    };
    expect(await refusal()).toBe("worker_not_live");
    await registered(backend, { lanes: [laneId], namespace: "elsewhere" });
    expect(await refusal()).toBe("namespace_mismatch");
    await backend.deregisterWorker({
      workerInstanceId: WORKER.workerInstanceId,
      namespace: "elsewhere",
    });
    await registered(backend, { lanes: [laneId], namespace: "shop" });
    expect(await refusal({ workerCapabilities: ["b"] })).toBe(
      "capability_mismatch: a",
    );
    expect(await refusal({ workerCapabilities: ["a", "b"] })).toBe("granted");
  });

  test("a lapse nobody marked is marked by the grant", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await lapsed(bench);
    await registered(backend, { lanes: [laneId] });
    await issue(backend, executionId);
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "lease_expired",
      "granted",
    ]);
  });

  test("without a grant of its own nobody takes over, and none is used twice", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await markedLapsed(bench);
    await registered(backend, { lanes: [laneId] });
    const notFound = { kind: "grantNotFound", executionId };
    const use = (change = {}) =>
      backend.reclaimExecution(input(executionId, change));

    expect(await use()).toEqual(notFound);
    await issue(backend, executionId);
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => issue(backend, executionId),
      "grant_already_exists",
    );
    expect(await use(OTHER_WORKER)).toEqual(notFound);
    await bench.passTime(GRANT_TTL_MS);
    expect(await use()).toEqual(notFound);
    await issue(backend, executionId);
    expect(await use(SIBLING)).toMatchObject({ kind: "claimed" });
    expect(await use()).toMatchObject({ kind: "notReclaimable" });
  });

  test("while a reclaim grant lives no claim takes the execution", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await markedLapsed(bench);
    await registered(backend, { lanes: [laneId] });
    await issue(backend, executionId);
    await expect(
      taken(backend, laneId, { worker: OTHER_WORKER }),
    ).rejects.toThrow("nothing to claim");
    await bench.passTime(GRANT_TTL_MS);
    expect(
      await taken(backend, laneId, { worker: OTHER_WORKER }),
    ).toMatchObject({ executionId, kind: "reclaimed" });
  });

  test("at the cap a grant is refused and nothing is written", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await markedLapsed(bench, {
      policy: { maxReclaimCount: 0 },
    });
    await registered(backend, { lanes: [laneId] });
    const before = await everythingAbout(backend, executionId);
    expect(await issue(backend, executionId)).toEqual({
      kind: "reclaimCapExceeded",
      executionId,
      reclaimCount: 0,
    });
    // No grant, hence no way to end it, cap or not.
    expect(await backend.reclaimExecution(input(executionId))).toEqual({
      kind: "grantNotFound",
      executionId,
    });
    expect(await everythingAbout(backend, executionId)).toEqual(before);
  });

  test("a grant used at the caller's cap ends the execution as poison", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await markedLapsed(bench);
    await registered(backend, { lanes: [laneId] });
    await issue(backend, executionId);
    expect(
      await backend.reclaimExecution(
        input(executionId, { maxReclaimCount: 0 }),
      ),
    ).toEqual({ kind: "reclaimCapExceeded", executionId, reclaimCount: 0 });

    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot).toMatchObject({
      publicState: "failed",
      failureReason: "max_reclaims_exceeded",
      totalAttemptCount: 1,
      leaseEpoch: 1,
    });
    expect(snapshot?.currentLease).toBeUndefined();
    expect(await backend.listAttempts({ executionId })).toMatchObject([
      { attemptState: "ended_failure" },
    ]);
    expect((await eventTypes(backend, executionId)).at(-1)).toBe("failed");
  });

  test("the policy's cap wins over the caller's", async (bench) => {
    const { backend } = bench;
    const { executionId, laneId } = await markedLapsed(bench, {
      policy: { timeoutPolicy: { maxReclaimCount: 5 } },
    });
    await registered(backend, { lanes: [laneId] });
    await issue(backend, executionId);
    expect(
      await backend.reclaimExecution(
        input(executionId, { maxReclaimCount: 0 }),
      ),
    ).toMatchObject({ kind: "claimed" });
  });

  test("the taken-over attempt lives its whole timeout", async (bench) => {
    const { backend } = bench;
    const lost = await lapsed(bench, {
      policy: { timeoutPolicy: { attemptTimeoutMs: MINUTE_MS } },
    });
    await taken(backend, lost.laneId);
    const snapshot = await backend.describeExecution(lost);
    expect(snapshot?.attemptTimeoutAtMs).toBe(
      snapshot!.currentLease!.acquiredAtMs + MINUTE_MS,
    );
  });

  test("wrong arguments are refused before anything is read", async ({
    backend,
  }) => {
    for (const change of [{ grantTtlMs: 0 }, { grantTtlMs: 60_001 }])
      await expectRefused(issue(backend, UNKNOWN_ID, change), "invalid_input");
    await expectRefused(
      issue(backend, UNKNOWN_ID, { workerCapabilities: [""] }),
      "invalid_capabilities",
    );
    await expectRefused(
      backend.reclaimExecution(input(UNKNOWN_ID, { leaseTtlMs: 0 })),
      "invalid_input",
    );
  });

  test("lapsed leases are listed by expiry and id, marked or not, over all partitions", async (bench) => {
    const { backend } = bench;
    const all = [];
    for (let n = 0; n < 5; n++) {
      const claimed = await running(
        backend,
        { namespace: n % 2 ? "odd" : "even" },
        { leaseTtlMs: 10_000 + (n % 3) * 1_000 },
      );
      all.push(claimed);
    }
    await running(backend);
    await bench.passTime(15_000);
    await backend.markLeaseExpiredIfDue(all[1]!);

    const expected = all
      .map((claimed, n) => ({
        executionId: claimed.executionId,
        leaseId: claimed.leaseId,
        leaseEpoch: 1,
        workerInstanceId: WORKER.workerInstanceId,
        expiresAtMs: claimed.leaseExpiresAtMs,
        attemptIndex: 0,
        n,
      }))
      .sort(
        (a, b) =>
          a.expiresAtMs - b.expiresAtMs ||
          (a.executionId < b.executionId ? -1 : 1),
      );
    const withoutN = (rows: typeof expected) =>
      rows.map(({ n: _unused, ...row }) => row);
    const { entries } = await backend.listExpiredLeases({});
    expect(entries).toEqual(withoutN(expected));
    expect(
      (await backend.listExpiredLeases({ namespace: "odd" })).entries,
    ).toEqual(withoutN(expected.filter((row) => row.n % 2 === 1)));

    const paged = [];
    let after: { expiresAtMs: number; executionId: string } | undefined;
    do {
      const page = await backend.listExpiredLeases({
        limit: 2,
        ...(after === undefined ? {} : { after }),
      });
      paged.push(...page.entries);
      after = page.nextCursor;
    } while (after !== undefined);
    expect(paged).toEqual(entries);
    expect(await backend.listExpiredLeases({ limit: 0 })).toEqual({
      entries: [],
    });
    expect(
      await backend.listExpiredLeases({
        asOfMs: expected[0]!.expiresAtMs - 1,
      }),
    ).toEqual({ entries: [] });
  });

  test("a lease that was revoked or taken over is not listed", async (bench) => {
    const { backend } = bench;
    await revoked(bench);
    const lost = await lapsed(bench);
    await taken(backend, lost.laneId);
    expect(await backend.listExpiredLeases({})).toEqual({ entries: [] });
  });
});
