/** Work that waits for signals, while those who wait and those who signal are killed. */
import type { EngineBackend, ExecutionEvent } from "@flowfabric/core";
import { describe, expect, test } from "vitest";

import { findViolations, readHistory } from "../src/invariants.js";
import { allEnded } from "./endings.js";
import { Fleet, pause, type Program } from "./fleet.js";
import {
  createBench,
  input,
  scaled,
  tell,
  TIMEOUT_MS,
  type CrashHarness,
} from "./harness.js";

const SIGNALS = 3;

export function waitingTests(harness: CrashHarness): void {
  describe(
    `${harness.name}: work that waits for signals`,
    { timeout: TIMEOUT_MS },
    () => {
      test("with suspending workers and signalling processes killed at any instant no signal is lost, and each wait ends once", async () => {
        const { store, open, damage } = await createBench(harness);
        const backend = await open();
        const workers = new Fleet({
          store,
          leaseTtlMs: 2_000,
          maxConcurrentTasks: 4,
        });
        const signallers = new Fleet({ store, signals: SIGNALS }, "signaller");
        await Promise.all([workers.hire(3), signallers.hire(2)]);

        const submitted: string[] = [];
        const ticks = scaled(50, 10);
        for (let tick = 0; tick < ticks; tick++) {
          const answers = await backend.submitMany({
            items: Array.from({ length: 10 }, () => ({
              executionKind: "await",
              inputPayload: input(SIGNALS),
            })),
          });
          for (const answer of answers)
            if (answer.kind === "created") submitted.push(answer.executionId);
          await pause(Math.random() * 300);
          const victims = tick % 2 === 0 ? workers : signallers;
          victims.member(Math.floor(Math.random() * 6)).signal("SIGKILL");
        }
        await allEnded(backend);
        await Promise.all([workers.close(), signallers.close()]);
        await expectNoFaults([...workers.all, ...signallers.all]);

        const accepted = signalsOf(signallers.all);
        let resumes = 0;
        for (const executionId of submitted) {
          const events = await readHistory(backend, executionId);
          const told = accepted.get(executionId) ?? [];
          resumes += await expectWaitedOnce(backend, executionId, events, told);
        }
        tell(
          `${submitted.length} executions, ${workers.deaths} workers and ${signallers.deaths} signallers killed, ${resumes} resumed`,
        );
        expect(submitted).toHaveLength(ticks * 10);
        // Whoever is hit again before its end was noticed died once.
        const deaths = workers.deaths + signallers.deaths;
        expect(deaths).toBeGreaterThanOrEqual(ticks / 2);
        expect(deaths).toBeLessThanOrEqual(ticks);
        expect(resumes).toBeGreaterThan(0);
        expect(await findViolations(backend)).toEqual([]);
        expect(await damage()).toEqual([]);
      });
    },
  );
}

/** Nobody ended but by being killed. */
async function expectNoFaults(programs: readonly Program[]): Promise<void> {
  for (const program of programs)
    expect(await program.exited).toEqual({ code: null, signal: "SIGKILL" });
}

/** By execution: what somebody was told is delivered. */
function signalsOf(programs: readonly Program[]): Map<string, string[]> {
  const accepted = new Map<string, string[]>();
  for (const { executionId, signalId } of programs.flatMap((program) =>
    program.all("signalled"),
  ))
    accepted.set(executionId, [...(accepted.get(executionId) ?? []), signalId]);
  return accepted;
}

/** @returns how often the execution was resumed by a signal */
async function expectWaitedOnce(
  backend: EngineBackend,
  executionId: string,
  events: readonly ExecutionEvent[],
  told: readonly string[],
): Promise<number> {
  const delivered = events.filter(({ type }) => type === "signal");
  const idsOf = (list: readonly ExecutionEvent[]) =>
    list.map(({ data }) => (data as { signalId: string }).signalId);
  // What was answered is there, once.
  expect(new Set(idsOf(delivered)).size).toBe(delivered.length);
  expect(idsOf(delivered)).toEqual(expect.arrayContaining([...told]));

  const last = Math.max(...events.map(({ attemptIndex }) => attemptIndex ?? 0));
  let resumes = 0;
  for (let attempt = 0; attempt <= last; attempt++) {
    const ofAttempt = events.filter(
      ({ attemptIndex }) => attemptIndex === attempt,
    );
    const count = (type: ExecutionEvent["type"]) =>
      ofAttempt.filter((event) => event.type === type).length;
    const resumed = ofAttempt.filter(
      ({ type, toState }) => type === "signal" && toState !== undefined,
    ).length;
    expect(count("suspended")).toBeLessThanOrEqual(1);
    expect(resumed).toBe(count("suspended"));
    expect(count("resumed")).toBe(resumed);
    resumes += resumed;
  }
  const counted = idsOf(
    delivered.filter(({ attemptIndex }) => attemptIndex === last),
  );
  const result = await backend.getExecutionResult({ executionId });
  const seen = JSON.parse(Buffer.from(result!).toString()) as {
    signalId: string;
    signalName: string;
  }[];
  expect(counted).toEqual(seen.map(({ signalId }) => signalId));
  // Sent over and over, each counted once.
  expect(seen.map(({ signalName }) => signalName).sort()).toEqual(
    Array.from({ length: SIGNALS }, (_one, n) => String(n)),
  );
  return resumes;
}
