/** Workers that come back after their lease is over: whatever they write is refused. */
import { setTimeout as sleep } from "node:timers/promises";

import type { EngineBackend } from "@flowfabric/core";
import { describe, expect, test } from "vitest";

import { findViolations } from "../src/invariants.js";
import { WRITES, type Write } from "../src/writes.js";
import { Program, until } from "./fleet.js";
import {
  createBench,
  input,
  TIMEOUT_MS,
  type CrashHarness,
} from "./harness.js";

const LEASE_TTL_MS = 1_000;

/** What became of the work while its holder stood still, by lane, and what the holder is then told. */
const MEANWHILE = {
  lapsed: "lease_expired",
  "taken-over": "stale_lease",
  finished: "execution_not_active",
} as const;
type Lane = keyof typeof MEANWHILE;
/** The same where it puts something out. */
const MEANWHILE_OF_OUTPUT: Readonly<Record<Lane, string>> = {
  lapsed: "stale_owner_cannot_append",
  "taken-over": "stale_owner_cannot_append",
  finished: "stream_closed",
};

function refusalIn(lane: Lane, { isOutput }: Write): string {
  return (isOutput ? MEANWHILE_OF_OUTPUT : MEANWHILE)[lane];
}

export function fencingTests(harness: CrashHarness): void {
  describe(
    `${harness.name}: workers that come back too late`,
    { timeout: TIMEOUT_MS },
    () => {
      test("a process stopped past its leases and continued is refused on every kind of write", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        const lanes = Object.keys(MEANWHILE) as Lane[];
        await backend.submitMany({
          items: lanes.flatMap((laneId) =>
            WRITES.map(() => ({ laneId, executionKind: "work" })),
          ),
        });
        const holder = Program.start("holder", {
          store,
          lanes,
          leaseTtlMs: LEASE_TTL_MS,
        });
        const { executionIds } = await holder.told("claimed");
        expect(executionIds).toHaveLength(lanes.length * WRITES.length);

        holder.signal("SIGSTOP");
        await until("the end of all leases", async () => {
          const { entries } = await backend.listExpiredLeases({});
          return entries.length === executionIds.length;
        });
        const successor = {
          workerId: "successor",
          workerInstanceId: "successor",
          max: WRITES.length,
          leaseTtlMs: 600_000,
        };
        const taken = await backend.claimMany({
          ...successor,
          lanes: ["taken-over"],
        });
        const finished = await backend.claimMany({
          ...successor,
          lanes: ["finished"],
        });
        await backend.completeMany({
          items: finished.claimed.map(({ handle }) => ({
            handle,
            payload: Buffer.from("by its successor"),
          })),
        });
        expect(taken.claimed).toHaveLength(WRITES.length);
        // Written down by now, so that being refused need not write it.
        await backend.sweep({ name: "lease_expiry" });
        const before = await everythingAbout(backend, executionIds);

        holder.signal("SIGCONT");
        holder.command({ kind: "write" });
        const { answers } = await holder.told("wrote");

        const tried = lanes.flatMap((lane) =>
          WRITES.map(
            (write) => `${write.operation}: ${refusalIn(lane, write)}`,
          ),
        );
        expect(
          answers.map(({ operation, answer }) => `${operation}: ${answer}`),
        ).toEqual(tried);
        expect(answers.map(({ executionId }) => executionId)).toEqual(
          executionIds,
        );
        expect(await everythingAbout(backend, executionIds)).toEqual(before);
        // Those who took over are not disturbed either.
        for (const { handle } of taken.claimed) await backend.renew({ handle });
        expect(await findViolations(backend)).toEqual([]);
      });

      test("it is refused also where nobody has noticed yet that its leases are over", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        await backend.submitMany({
          items: WRITES.map(() => ({ executionKind: "work" })),
        });
        const holder = Program.start("holder", {
          store,
          lanes: ["default"],
          leaseTtlMs: LEASE_TTL_MS,
        });
        const { executionIds } = await holder.told("claimed");
        holder.signal("SIGSTOP");
        await until("the end of all leases", async () => {
          const { entries } = await backend.listExpiredLeases({});
          return entries.length === executionIds.length;
        });
        const before = await everythingAbout(backend, executionIds);

        holder.signal("SIGCONT");
        holder.command({ kind: "write" });
        const { answers } = await holder.told("wrote");

        expect(answers.map(({ answer }) => answer)).toEqual(
          WRITES.map((write) => refusalIn("lapsed", write)),
        );
        expectNothingButLapses(
          before,
          await everythingAbout(backend, executionIds),
        );
        expect(await findViolations(backend)).toEqual([]);
      });

      test("the handler of a worker stopped past its lease is aborted, and nothing it writes is seen", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        const stopped = await Program.ready("worker", {
          store,
          leaseTtlMs: LEASE_TTL_MS,
        });
        const { executionId } = await backend.createExecution({
          executionKind: "hold",
          inputPayload: input(0),
        });
        await stopped.told("started");

        await stopBetweenWrites(stopped, backend);
        const { claimed } = await backend.claimMany({
          workerId: "successor",
          workerInstanceId: "successor",
          lanes: ["default"],
          max: 1,
          leaseTtlMs: 600_000,
          maxWaitMs: 10_000,
        });
        expect(claimed).toMatchObject([{ executionId, kind: "reclaimed" }]);
        const before = await everythingAbout(backend, [executionId]);
        stopped.signal("SIGCONT");
        const aborted = await stopped.told("aborted");
        // It drains behind its late result, so that this has been tried when it has ended.
        stopped.signal("SIGTERM");
        const report = await stopped.told("stopped");

        expect(aborted).toMatchObject({ executionId, error: "LeaseLostError" });
        expect(aborted.refused).not.toBe("done");
        expect(report).toMatchObject({ completed: 0, failed: 0, abandoned: 0 });
        expect(await everythingAbout(backend, [executionId])).toEqual(before);
        await backend.complete({
          handle: claimed[0]!.handle,
          payload: Buffer.from("by its successor"),
        });
        const result = await backend.getExecutionResult({ executionId });
        expect(Buffer.from(result!).toString()).toBe("by its successor");
        expect(await findViolations(backend)).toEqual([]);
      });
    },
  );
}

/** On SQLite whoever stands still in the middle of a write holds up everybody else's, and nobody could take over. */
async function stopBetweenWrites(
  program: Program,
  backend: EngineBackend,
): Promise<void> {
  for (;;) {
    program.signal("SIGSTOP");
    const written = backend.createExecution({
      executionKind: "aside",
      laneId: "aside",
    });
    const isWritten = written.then(() => true);
    if (await Promise.race([isWritten, sleep(LEASE_TTL_MS / 4, false)])) return;
    program.signal("SIGCONT");
    await written;
  }
}

/** The end of the lease is written down by whoever finds out, and nothing but that. */
export function expectNothingButLapses(
  before: readonly Records[],
  after: readonly Records[],
): void {
  expect(after).toHaveLength(before.length);
  for (const [index, { history, snapshot, ...rest }] of after.entries()) {
    const { history: told, snapshot: seen, ...same } = before[index]!;
    expect(rest).toEqual(same);
    expect(history.slice(0, told.length)).toEqual(told);
    for (const { type } of history.slice(told.length))
      expect(type).toBe("lease_expired");
    expect({
      ...snapshot,
      lastTransitionAtMs: 0,
      lastMutationAtMs: 0,
    }).toEqual({ ...seen, lastTransitionAtMs: 0, lastMutationAtMs: 0 });
  }
}

type Records = Awaited<ReturnType<typeof recordsAbout>>[number];

/** All that a write could have changed; one after the other, for so many reads of streams at once are refused. */
export async function everythingAbout(
  backend: EngineBackend,
  executionIds: readonly string[],
) {
  const all = [];
  for (const records of await recordsAbout(backend, executionIds)) {
    const output = await framesOf(backend, records.snapshot!.executionId);
    all.push({ ...records, output });
  }
  return all;
}

/** But for what it has put out. */
export async function recordsAbout(
  backend: EngineBackend,
  executionIds: readonly string[],
) {
  const all = [];
  for (const executionId of executionIds)
    all.push({
      snapshot: await backend.describeExecution({ executionId }),
      attempts: await backend.listAttempts({ executionId }),
      history: (await backend.readEvents({ executionId })).events,
      result: await backend.getExecutionResult({ executionId }),
      waitpoints: await backend.listPendingWaitpoints({ executionId }),
    });
  return all;
}

/** Closed or not, which time alone may change. */
async function framesOf(backend: EngineBackend, executionId: string) {
  const output = [];
  for (const { attemptIndex } of await backend.listAttempts({ executionId })) {
    const attempt = { executionId, attemptIndex };
    const page = await backend.readStream({ ...attempt, countLimit: 1_000 });
    const summary = await backend.readSummary(attempt);
    output.push({ frames: page.frames, summary });
  }
  return output;
}
