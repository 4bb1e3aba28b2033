import type { StreamCloseReason } from "@flowfabric/core";
import { expect } from "vitest";

import { within } from "./assertions.js";
import {
  bytes,
  lapsed,
  LEASE_TTL_MS,
  markedLapsed,
  OTHER_WORKER,
  registered,
  revoked,
  running,
  submitted,
  taken,
  WORKER,
  type Taken,
} from "./builders.js";
import { group, type Bench } from "./harness.js";
import { append, read } from "./stream-builders.js";

const RETRY = {
  retryPolicy: { backoff: { type: "fixed", delayMs: 60_000 } },
} as const;
const failure = (classification: "transient" | "permanent") => ({
  reason: { message: "broken" },
  classification,
});

interface Ending {
  readonly reason: StreamCloseReason;
  /** An attempt that runs. */
  readonly begin: (bench: Bench) => Promise<Taken>;
  readonly end: (bench: Bench, claimed: Taken) => Promise<unknown>;
}

/** Whatever ends an attempt that runs, at the instant of the call. */
const ENDINGS: Readonly<Record<string, Ending>> = {
  complete: {
    reason: "attempt_success",
    begin: ({ backend }) => running(backend),
    end: ({ backend }, { handle }) => backend.complete({ handle }),
  },
  "complete of many": {
    reason: "attempt_success",
    begin: ({ backend }) => running(backend),
    end: ({ backend }, { handle }) =>
      backend.completeAndClaim({ items: [{ handle }] }),
  },
  "complete by an operator": {
    reason: "attempt_success",
    begin: ({ backend }) => running(backend),
    end: ({ backend }, { executionId }) =>
      backend.completeExecution({ executionId, source: "operator_override" }),
  },
  "the last failure": {
    reason: "attempt_failure",
    begin: ({ backend }) => running(backend),
    end: ({ backend }, { handle }) =>
      backend.fail({ handle, ...failure("permanent") }),
  },
  "a failure before a retry": {
    reason: "attempt_failure",
    begin: ({ backend }) => running(backend, { policy: RETRY }),
    end: ({ backend }, { handle }) =>
      backend.fail({ handle, ...failure("transient") }),
  },
  "cancel by the holder": {
    reason: "attempt_cancelled",
    begin: ({ backend }) => running(backend),
    end: ({ backend }, { handle }) => backend.cancel({ handle, reason: "r" }),
  },
  "cancel from outside": {
    reason: "attempt_cancelled",
    begin: ({ backend }) => running(backend),
    end: ({ backend }, { executionId }) =>
      backend.cancelExecution({ executionId, reason: "r" }),
  },
  "a revoked lease": {
    reason: "lease_revoked",
    begin: ({ backend }) => running(backend),
    end: ({ backend }, { executionId }) => backend.revokeLease({ executionId }),
  },
  "an attempt timeout": {
    reason: "expired",
    begin: async ({ backend, passTime }) => {
      const claimed = await running(backend, {
        policy: { timeoutPolicy: { attemptTimeoutMs: 1_000 } },
      });
      await passTime(1_000);
      return claimed;
    },
    end: ({ backend }, { executionId }) =>
      backend.expireExecution({ executionId, reason: "attempt_timeout" }),
  },
  "an attempt timeout before a retry": {
    reason: "expired",
    begin: async ({ backend, passTime }) => {
      const claimed = await running(backend, {
        policy: {
          ...RETRY,
          timeoutPolicy: { attemptTimeoutMs: 1_000, retryOnTimeout: true },
        },
      });
      await passTime(1_000);
      return claimed;
    },
    end: ({ backend }, { executionId }) =>
      backend.expireExecution({ executionId, reason: "attempt_timeout" }),
  },
  "a deadline": {
    reason: "expired",
    begin: async ({ backend, passTime }) => {
      const claimed = await running(backend, {
        policy: { timeoutPolicy: { executionDeadlineMs: 1_000 } },
      });
      await passTime(1_000);
      return claimed;
    },
    end: ({ backend }, { executionId }) =>
      backend.expireExecution({ executionId, reason: "execution_deadline" }),
  },
  "a worker declared dead": {
    reason: "lease_expired",
    begin: async ({ backend }) => {
      const worker = {
        workerId: WORKER.workerId,
        workerInstanceId: `dying-${Math.random()}`,
      };
      const { laneId } = await submitted(backend);
      await registered(backend, { worker, lanes: [laneId] });
      return taken(backend, laneId, { worker });
    },
    end: ({ backend }, { handle: _handle, ...claimed }) =>
      backend.describeExecution(claimed).then((snapshot) =>
        backend.markWorkerDead({
          workerInstanceId: snapshot!.currentLease!.workerInstanceId,
          namespace: "default",
          reason: "gone",
          expireLeases: true,
        }),
      ),
  },
};

/** What an end leaves of a stream. */
export const closingConformance = group("the end of streams", (test) => {
  for (const [name, ending] of Object.entries(ENDINGS))
    test(`${name} closes the stream, for readers, for tails and for good`, async (bench) => {
      const { backend, passTime } = bench;
      const claimed = await ending.begin(bench);
      const { executionId, attemptIndex } = claimed;
      const { streamId: after } = await append(backend, claimed, "x");
      expect((await read(backend, claimed)).closedAtMs).toBeUndefined();
      const waiting = backend.tailStream({
        executionId,
        attemptIndex,
        after,
        blockMs: 20_000,
        countLimit: 1,
      });
      const beforeMs = await backend.serverTimeMs();

      await ending.end(bench, claimed);

      const afterMs = await backend.serverTimeMs();
      const end = await within(500, "the tail", waiting);
      expect(end.closedReason).toBe(ending.reason);
      expect(end.closedAtMs).toBeGreaterThanOrEqual(beforeMs);
      expect(end.closedAtMs).toBeLessThanOrEqual(afterMs);
      const { events } = await backend.readEvents({ executionId });
      expect(end.closedAtMs).toBe(events.at(-1)!.atMs);
      const closed = await read(backend, claimed);
      expect(closed).toMatchObject({
        closedReason: end.closedReason,
        closedAtMs: end.closedAtMs,
      });
      expect(closed.frames).toHaveLength(1);
      await passTime(1_000);
      expect(await read(backend, claimed)).toEqual(closed);
    });

  test("a lapse closes at its instant, written down or not", async (bench) => {
    const { backend, passTime } = bench;
    const unwritten = await lapsed(bench);
    const expected = {
      closedReason: "lease_expired",
      closedAtMs: unwritten.leaseExpiresAtMs,
    };
    await passTime(5_000);
    expect(await read(backend, unwritten)).toMatchObject(expected);
    await backend.markLeaseExpiredIfDue(unwritten);
    expect(await read(backend, unwritten)).toMatchObject(expected);
    const written = await markedLapsed(bench);
    expect(await read(backend, written)).toMatchObject({
      closedReason: "lease_expired",
      closedAtMs: written.leaseExpiresAtMs,
    });
  });

  test("a take-over closes the old stream as of the loss, and opens another", async (bench) => {
    const { backend, passTime } = bench;
    for (const lose of [lapsed, markedLapsed, revoked]) {
      const lost = await lose(bench);
      const { closedAtMs } = await read(backend, lost);
      await passTime(2_000);
      const current = await taken(backend, lost.laneId, {
        worker: OTHER_WORKER,
      });
      expect(await read(backend, lost)).toMatchObject({
        closedReason: "reclaimed",
        closedAtMs,
      });
      expect((await read(backend, current)).closedAtMs).toBeUndefined();
      await backend.complete({ handle: current.handle });
      expect(await read(backend, lost)).toMatchObject({
        closedReason: "reclaimed",
        closedAtMs,
      });
      expect((await read(backend, current)).closedReason).toBe(
        "attempt_success",
      );
    }
  });

  test("the reclaim cap closes as of the loss", async (bench) => {
    const { backend, passTime } = bench;
    const policy = { maxReclaimCount: 0 };
    for (const lose of [lapsed, revoked]) {
      const lost = await lose(bench, { policy });
      const { closedAtMs } = await read(backend, lost);
      await passTime(2_000);
      await backend.markLeaseExpiredIfDue(lost);
      await backend.sweep({ name: "reclaim_driver" });
      expect(await backend.readExecutionState(lost)).toBe("failed");
      expect(await read(backend, lost)).toMatchObject({
        closedReason: "max_reclaims_exceeded",
        closedAtMs,
      });
    }
  });

  test("who ends what is lost already changes nothing about its stream", async (bench) => {
    const { backend, passTime } = bench;
    const policy = { timeoutPolicy: { executionDeadlineMs: 40_000 } };
    for (const lose of [lapsed, markedLapsed, revoked]) {
      const cancelled = await lose(bench);
      const expired = await lose(bench, { policy });
      const before = [
        await read(backend, cancelled),
        await read(backend, expired),
      ];
      await passTime(41_000);
      await backend.cancelExecution({ ...cancelled, reason: "r" });
      await backend.expireExecution({
        executionId: expired.executionId,
        reason: "execution_deadline",
      });
      expect(await backend.readExecutionState(expired)).toBe("expired");
      expect([
        await read(backend, cancelled),
        await read(backend, expired),
      ]).toEqual(before);
      await backend.replayExecution(cancelled);
      expect(await read(backend, cancelled)).toEqual(before[0]);
    }
  });

  test("a timeout of what is lost already keeps its stream's end", async (bench) => {
    const { backend, passTime } = bench;
    const lost = await lapsed(bench, {
      policy: {
        ...RETRY,
        timeoutPolicy: { attemptTimeoutMs: 35_000, retryOnTimeout: true },
      },
    });
    const before = await read(backend, lost);
    expect(before.closedReason).toBe("lease_expired");
    await passTime(5_000);
    await backend.expireExecution({
      executionId: lost.executionId,
      reason: "attempt_timeout",
    });
    expect(await read(backend, lost)).toEqual(before);
  });

  test("parking, renewing and steering leave a stream open", async ({
    backend,
    passTime,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    const claimed = await taken(backend, laneId);
    const isOpen = async () =>
      expect((await read(backend, claimed)).closedAtMs).toBeUndefined();
    await append(backend, claimed, "x");
    await passTime(LEASE_TTL_MS / 2);
    await backend.renew({ handle: claimed.handle });
    await backend.progress({ handle: claimed.handle, percent: 5 });
    await isOpen();
    const delayUntilMs = (await backend.serverTimeMs()) + 60_000;
    await backend.delay({ handle: claimed.handle, delayUntilMs });
    await isOpen();
    await backend.holdExecution({ executionId });
    await isOpen();
    await backend.unholdExecution({ executionId });
    await passTime(60_000);
    await isOpen();
    const resumed = await taken(backend, laneId);
    expect(resumed.attemptIndex).toBe(0);
    await isOpen();
    await backend.complete({ handle: resumed.handle });
    expect((await read(backend, claimed)).closedReason).toBe("attempt_success");
  });

  test("ends while it is parked close what stood open", async ({
    backend,
    passTime,
  }) => {
    const delayed = async () => {
      const claimed = await running(backend, {
        policy: { timeoutPolicy: { executionDeadlineMs: 60_000 } },
      });
      await backend.delay({
        handle: claimed.handle,
        delayUntilMs: (await backend.serverTimeMs()) + 600_000,
      });
      return claimed;
    };
    const cancelled = await delayed();
    const expired = await delayed();
    await backend.cancelExecution({ ...cancelled, reason: "r" });
    await passTime(60_000);
    await backend.sweep({ name: "execution_deadline" });
    expect((await read(backend, cancelled)).closedReason).toBe(
      "attempt_cancelled",
    );
    expect((await read(backend, expired)).closedReason).toBe("expired");
  });

  test("replays keep the ends of the attempts before them", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    const reasons: (string | undefined)[] = [];
    const ends = [
      async ({ handle }: Taken) =>
        backend.complete({ handle, payload: bytes("r") }),
      async ({ handle }: Taken) =>
        backend.fail({ handle, ...failure("permanent") }),
      async ({ handle }: Taken) => backend.cancel({ handle, reason: "r" }),
    ];
    for (const end of ends) {
      const claimed = await taken(backend, laneId);
      await end(claimed);
      const closed = await read(backend, claimed);
      reasons.push(closed.closedReason);
      await backend.replayExecution({ executionId });
      expect(await read(backend, claimed)).toEqual(closed);
    }
    expect(reasons).toEqual([
      "attempt_success",
      "attempt_failure",
      "attempt_cancelled",
    ]);
    // The next attempt has not begun; its stream is open.
    expect(
      (await read(backend, { executionId, attemptIndex: 3 })).closedAtMs,
    ).toBeUndefined();
  });
});
