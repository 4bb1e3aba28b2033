import type { EngineBackend, TaskEndedNotice } from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes, expectRefused, sleep, within } from "./assertions.js";
import {
  lane,
  LEASE_TTL_MS,
  OTHER_WORKER,
  registered,
  running,
  SIBLING,
  taken,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";

/** A notice is there well under a second after its cause. */
const NOTICE_WITHIN_MS = 10_000;

export const workersConformance = group("workers", (test) => {
  const me = {
    workerInstanceId: WORKER.workerInstanceId,
    namespace: "default",
  };
  const instances = async (backend: EngineBackend, namespace?: string) => {
    const { entries } = await backend.listWorkers(
      namespace === undefined ? {} : { namespace },
    );
    return entries.map((entry) => entry.workerInstanceId);
  };

  test("a worker is known from registration to the end of its time", async ({
    backend,
    passTime,
  }) => {
    const before = await backend.serverTimeMs();
    const register = () =>
      backend.registerWorker({
        ...WORKER,
        lanes: ["b", "a", "b"],
        capabilities: ["gpu", "eu", "gpu"],
        livenessTtlMs: 60_000,
        namespace: "default",
      });
    expect(await register()).toEqual({ kind: "registered" });
    const { entries } = await backend.listWorkers({});
    expect(entries).toHaveLength(1);
    expect(entries[0]).toMatchObject({
      ...WORKER,
      namespace: "default",
      capabilities: ["eu", "gpu"],
      livenessTtlMs: 60_000,
    });
    expect([...entries[0]!.lanes].sort()).toEqual(["a", "b"]);
    const { registeredAtMs } = entries[0]!;
    expect(registeredAtMs).toBeGreaterThanOrEqual(before);

    await passTime(59_000);
    const beat = await backend.heartbeatWorker(me);
    expect(beat).toMatchObject({ kind: "refreshed" });
    await passTime(59_000);
    expect(await register()).toEqual({ kind: "refreshed" });
    expect((await backend.listWorkers({})).entries[0]).toMatchObject({
      registeredAtMs,
    });

    await passTime(60_000);
    expect(await instances(backend)).toEqual([]);
    expect(await backend.heartbeatWorker(me)).toEqual({
      kind: "notRegistered",
    });
    expect(await register()).toEqual({ kind: "registered" });
  });

  test("a heartbeat says until when it is good", async ({ backend }) => {
    await registered(backend, { livenessTtlMs: 5_000 });
    const before = await backend.serverTimeMs();
    const answer = await backend.heartbeatWorker(me);
    const after = await backend.serverTimeMs();
    if (answer.kind !== "refreshed") throw new Error(answer.kind);
    expect(answer.nextExpiryMs).toBeGreaterThanOrEqual(before + 5_000);
    expect(answer.nextExpiryMs).toBeLessThanOrEqual(after + 5_000);
    expect(
      await backend.heartbeatWorker({ ...me, namespace: "other" }),
    ).toEqual({ kind: "notRegistered" });
  });

  test("a registration replaces lanes and capabilities", async ({
    backend,
  }) => {
    await registered(backend, { lanes: ["a"], capabilities: ["x"] });
    await registered(backend, { lanes: ["b"], capabilities: [] });
    expect((await backend.listWorkers({})).entries).toMatchObject([
      { lanes: ["b"], capabilities: [] },
    ]);
  });

  test("a live instance belongs to its worker, a lapsed one to whoever comes", async ({
    backend,
    passTime,
  }) => {
    const { workerInstanceId } = WORKER;
    await registered(backend, { livenessTtlMs: 5_000 });
    const reassign = () =>
      registered(backend, {
        worker: { workerId: OTHER_WORKER.workerId, workerInstanceId },
      });
    await expectRefused(reassign(), "invalid_input", {
      reason: expect.stringContaining("instance_id reassigned"),
    });
    await passTime(5_000);
    await reassign();
  });

  test("registration has bounds", async ({ backend }) => {
    const tokens = (count: number) =>
      Array.from({ length: count }, (_unused, n) => `t${n}`);
    for (const [change, code] of [
      [{ livenessTtlMs: 999 }, "invalid_input"],
      [{ livenessTtlMs: 3_600_001 }, "invalid_input"],
      [{ lanes: [] }, "invalid_input"],
      [{ worker: { workerId: "", workerInstanceId: "i" } }, "invalid_input"],
      [{ namespace: "two words" }, "invalid_input"],
      [{ capabilities: tokens(257) }, "invalid_capabilities"],
      [{ capabilities: ["x".repeat(4_097)] }, "invalid_capabilities"],
    ] as const)
      await expectRefused(registered(backend, change), code);
    await registered(backend, {
      capabilities: tokens(256),
      livenessTtlMs: 1_000,
    });
    await registered(backend, { capabilities: ["x".repeat(4_096)] });
  });

  test("workers are listed by instance, in pages, of one namespace or of all", async ({
    backend,
  }) => {
    for (const [workerInstanceId, namespace] of [
      ["c", "one"],
      ["a", "two"],
      ["b", "one"],
      ["B", "two"],
    ] as const)
      await registered(backend, {
        worker: { workerId: "w", workerInstanceId },
        namespace,
      });
    expect(await instances(backend)).toEqual(["B", "a", "b", "c"]);
    expect(await instances(backend, "one")).toEqual(["b", "c"]);
    const first = await backend.listWorkers({ limit: 3 });
    expect(first.entries).toHaveLength(3);
    const rest = await backend.listWorkers({ after: first.nextCursor! });
    expect(rest.entries.map((entry) => entry.workerInstanceId)).toEqual(["c"]);
    expect(rest).not.toHaveProperty("nextCursor");
    expect(await backend.listWorkers({ limit: 0 })).toEqual({ entries: [] });
  });

  test("whoever leaves is gone, and its leases run on", async ({ backend }) => {
    const { handle } = await running(backend);
    await registered(backend);
    expect(await backend.deregisterWorker(me)).toEqual({
      kind: "deregistered",
    });
    expect(await backend.deregisterWorker(me)).toEqual({
      kind: "notRegistered",
    });
    expect(await instances(backend)).toEqual([]);
    await backend.renew({ handle });
  });

  test("a dead worker's leases run on, unless they are ended with it", async ({
    backend,
  }) => {
    const kept = await running(backend);
    await registered(backend);
    expect(
      await backend.markWorkerDead({ ...me, reason: "no answer" }),
    ).toEqual({ kind: "marked" });
    expect(
      await backend.markWorkerDead({ ...me, reason: "no answer" }),
    ).toEqual({ kind: "notRegistered" });
    await backend.renew({ handle: kept.handle });

    const spared = await running(backend, {}, { worker: SIBLING });
    await registered(backend);
    await backend.markWorkerDead({
      ...me,
      reason: "no answer",
      expireLeases: true,
    });
    expect((await eventTypes(backend, kept.executionId)).at(-1)).toBe(
      "lease_expired",
    );
    await expectRefused(
      backend.renew({ handle: kept.handle }),
      "lease_expired",
    );
    await backend.renew({ handle: spared.handle });
    expect(
      await taken(backend, kept.laneId, { worker: OTHER_WORKER }),
    ).toMatchObject({ kind: "reclaimed" });
  });

  test("the reason of a death is short plain text", async ({ backend }) => {
    for (const reason of ["x".repeat(257), "ä".repeat(129), "line\nbreak"])
      await expectRefused(
        backend.markWorkerDead({ ...me, reason }),
        "invalid_input",
      );
    await backend.markWorkerDead({ ...me, reason: "ä".repeat(128) });
  });

  test("a holder is told by push when its task is ended from outside", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    const causes: [
      string,
      (b: EngineBackend, executionId: string) => Promise<unknown>,
      Partial<TaskEndedNotice>,
    ][] = [
      [
        "cancel",
        (b, executionId) =>
          b.cancelExecution({ executionId, reason: "not needed" }),
        {
          code: "execution_not_active",
          outcome: "cancelled",
          reason: "not needed",
          source: "operator_override",
        },
      ],
      [
        "revoke",
        (b, executionId) => b.revokeLease({ executionId, reason: "stuck" }),
        { code: "lease_revoked", reason: "stuck" },
      ],
    ];
    for (const writer of [backend, other])
      for (const [what, cause, expected] of causes) {
        const giveUp = new AbortController();
        const notices = backend
          .watchWorker({
            workerInstanceId: WORKER.workerInstanceId,
            signal: giveUp.signal,
          })
          [Symbol.asyncIterator]();
        const first = notices.next();
        const { executionId } = await running(backend);
        await running(backend, {}, { worker: OTHER_WORKER });
        await sleep(20);
        await cause(writer, executionId);
        const { value } = await within(NOTICE_WITHIN_MS, what, first);
        expect(value).toMatchObject({
          kind: "taskEnded",
          executionId,
          leaseEpoch: 1,
          ...expected,
        });
        giveUp.abort();
        expect(
          (await within(NOTICE_WITHIN_MS, "the end", notices.next())).done,
        ).toBe(true);
      }
  });

  test("a holder is told of a deadline that ended its task and of a lapse that was marked", async (bench) => {
    const { backend } = bench;
    const notices = backend
      .watchWorker({ workerInstanceId: WORKER.workerInstanceId })
      [Symbol.asyncIterator]();
    const next = async (what: string) =>
      (await within(NOTICE_WITHIN_MS, what, notices.next()))
        .value as TaskEndedNotice;
    let waiting = next("the deadline");
    const due = await running(backend, {
      executionDeadlineAtMs: (await backend.serverTimeMs()) + 1_000,
    });
    await bench.passTime(1_000);
    await backend.expireExecution({
      executionId: due.executionId,
      reason: "execution_deadline",
    });
    expect(await waiting).toMatchObject({
      executionId: due.executionId,
      code: "execution_not_active",
      outcome: "expired",
    });

    waiting = next("the lapse");
    const lost = await running(backend);
    await bench.passTime(LEASE_TTL_MS);
    await backend.markLeaseExpiredIfDue({ executionId: lost.executionId });
    const notice = await waiting;
    expect(notice).toMatchObject({
      executionId: lost.executionId,
      code: "lease_expired",
    });
    expect(notice.outcome).toBeUndefined();
    await notices.return?.();
  });

  test("its own endings are no news to a holder", async ({ backend }) => {
    const giveUp = new AbortController();
    const seen: TaskEndedNotice[] = [];
    const watching = (async () => {
      for await (const notice of backend.watchWorker({
        workerInstanceId: WORKER.workerInstanceId,
        signal: giveUp.signal,
      }))
        seen.push(notice);
    })();
    await sleep(20);
    const laneId = lane();
    for (let n = 0; n < 3; n++) {
      const { handle } = await running(backend, { laneId });
      if (n === 0) await backend.complete({ handle });
      if (n === 1) await backend.cancel({ handle, reason: "mine" });
      if (n === 2) await backend.delay({ handle, delayUntilMs: 1 });
    }
    await sleep(200);
    giveUp.abort();
    await within(5_000, "the end of the watch", watching);
    expect(seen).toEqual([]);
  });
});
