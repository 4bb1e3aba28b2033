import {
  isEngineError,
  SUPPORT_FLAGS,
  type EngineOperations,
} from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused, sleep, within } from "./assertions.js";
import {
  bytes,
  completed,
  lane,
  LEASE_TTL_MS,
  running,
  submitted,
  textOf,
  UNKNOWN_ID,
  uuid,
  WORKER,
} from "./builders.js";
import { group } from "./harness.js";
import { NotOffered, OPTIONAL_OPERATIONS } from "./support.js";

const REF = { executionId: UNKNOWN_ID };
const INSTANCE = {
  workerInstanceId: WORKER.workerInstanceId,
  namespace: "default",
};
const CLAIM = {
  ...WORKER,
  lanes: ["default"],
  max: 1,
  leaseTtlMs: LEASE_TTL_MS,
};

/** Good arguments for those operations that take more than an id. */
const ARGUMENTS: Partial<Record<keyof EngineOperations, object>> = {
  submitMany: { items: [{ executionKind: "k" }] },
  cancelExecution: { ...REF, reason: "r" },
  changePriority: { ...REF, newPriority: 1 },
  searchByTags: { match: { all: [{ key: "a", value: "" }] } },
  countByTags: { match: { all: [{ key: "a", value: "" }] } },
  claimMany: CLAIM,
  claimForWorker: { ...WORKER, laneId: "default", grantTtlMs: 1_000 },
  blockExecutionForAdmission: { ...REF, reason: "waiting_for_budget" },
  issueReclaimGrant: { ...REF, ...WORKER, grantTtlMs: 1_000 },
  reclaimExecution: {
    ...REF,
    ...WORKER,
    leaseId: uuid(),
    attemptId: uuid(),
    leaseTtlMs: LEASE_TTL_MS,
  },
  listExpiredLeases: {},
  completeMany: { items: [] },
  completeAndClaim: { items: [] },
  registerWorker: {
    ...WORKER,
    ...INSTANCE,
    lanes: ["a"],
    livenessTtlMs: 1_000,
  },
  deregisterWorker: INSTANCE,
  heartbeatWorker: INSTANCE,
  markWorkerDead: { ...INSTANCE, reason: "r" },
  listWorkers: {},
  watchWorker: { workerInstanceId: WORKER.workerInstanceId },
  subscribeCompletion: {},
  subscribeLeaseHistory: {},
  subscribeSignalDelivery: {},
  subscribeInstanceTags: {},
  listPendingWaitpoints: { executionId: UNKNOWN_ID },
  seedWaitpointHmacSecret: { kid: "k", secretHex: "00".repeat(32) },
  rotateWaitpointHmacSecretAll: { newKid: "k", newSecretHex: "00".repeat(32) },
  createExecutionInTransaction: { executionKind: "k", transaction: {} },
};

/** The store as a process sees it. */
export const adminConformance = group("administration", (test) => {
  test("a backend says what it is and what it can do", async ({ backend }) => {
    const { identity, supports } = backend.capabilities();
    expect(identity.family).not.toBe("");
    expect(Object.keys(supports).sort()).toEqual([...SUPPORT_FLAGS].sort());
    expect(backend.capabilities()).toEqual({ identity, supports });
    const { handle } = await running(backend);
    expect(handle.backend).toBe(backend.backendLabel());
    expect(backend.partitions.flow).toBeGreaterThanOrEqual(1);
  });

  for (const { flag, operation } of OPTIONAL_OPERATIONS) {
    test(`${operation} is there, or supports.${flag} is off and it answers unavailable`, async ({
      backend,
    }) => {
      // Where it is off, the call ends the case with that answer; where it is on, any other answer will do.
      const call = backend[operation] as (input: unknown) => unknown;
      const answered = (async () => {
        const answer = await call.call(backend, ARGUMENTS[operation] ?? REF);
        if (
          operation === "watchWorker" &&
          !backend.capabilities().supports[flag]
        )
          await (answer as AsyncIterable<unknown>)
            [Symbol.asyncIterator]()
            .next();
      })();
      const error = await answered.then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      if (error instanceof NotOffered) throw error;
      expect(isEngineError(error, "unavailable")).toBe(false);
    });
  }

  test("a live store answers, and preparing it again does nothing", async ({
    backend,
  }) => {
    await backend.ping();
    await backend.prepare();
    expect(await backend.prepare()).toEqual({ kind: "noOp" });
  });

  test("a second connection finds everything and shares the partitions", async (bench) => {
    const done = await completed(bench.backend, {}, bytes("x"));
    const second = await bench.reopen();
    expect(second.partitions).toEqual(bench.backend.partitions);
    await second.prepare();
    expect(textOf(await second.getExecutionResult(done))).toBe("x");
  });

  test("before shutdown waits end, new ones are refused, and work can still be finished", async ({
    backend,
  }) => {
    const { handle, executionId } = await running(backend);
    const wait = (laneId: string) =>
      backend.claimMany({
        ...WORKER,
        lanes: [laneId],
        max: 1,
        leaseTtlMs: LEASE_TTL_MS,
        maxWaitMs: 30_000,
      });
    const parked = wait(lane());
    const tail = backend.tailEvents({ executionId, after: 2, blockMs: 30_000 });
    const feed = (async () => {
      for await (const _event of await backend.subscribeCompletion({}));
    })();
    await sleep(50);

    await backend.shutdownPrepare({ graceMs: 5_000 });

    const ends = await within(
      10_000,
      "the waits",
      Promise.allSettled([parked, tail, feed]),
    );
    expect(ends[0]).toMatchObject({
      status: "fulfilled",
      value: { claimed: [] },
    });
    expect(ends[1]).toMatchObject({ status: "fulfilled" });
    await expectRefused(wait(lane()), "unavailable", { op: "shutdown" });
    await expectRefused(backend.subscribeCompletion({}), "unavailable", {
      op: "shutdown",
    });
    await backend.complete({ handle });
    expect(await backend.readExecutionState({ executionId })).toBe("completed");
  });

  test("a closed store answers unavailable, and closing twice is closing once", async ({
    backend,
  }) => {
    const { executionId } = await submitted(backend);
    await backend.close();
    await backend.close();
    await expectRefused(backend.ping(), "unavailable");
    await expectRefused(
      backend.readExecutionState({ executionId }),
      "unavailable",
    );
    await expectRefused(submitted(backend), "unavailable");
  });

  test("leaving a block that disposes closes the store", async (bench) => {
    const second = await bench.reopen();
    await second[Symbol.asyncDispose]();
    await expectRefused(second.ping(), "unavailable");
  });
});
