/** Processes that call everything at random on one store. */
import type { EngineBackend } from "@flowfabric/core";
import { describe, expect, test } from "vitest";

import { findViolations, listAll } from "../src/invariants.js";
import { findUntold } from "../src/told.js";
import { answerOf } from "../src/program.js";
import { Program } from "./fleet.js";
import {
  createBench,
  scaled,
  tell,
  TIMEOUT_MS,
  type CrashHarness,
} from "./harness.js";

const PROCESSES = 4;
/** With so many, each kind has come up dozens of times. */
const CALLS_LEAST = 2_000;

/** Back-off before the last take-over that the hammers' policy allows, and some time to spare. */
const FINISHED_WITHIN_MS = 30_000;

export function hammeringTests(harness: CrashHarness): void {
  describe(`${harness.name}: many at once`, { timeout: TIMEOUT_MS }, () => {
    const durationMs = scaled(60_000, 6_000);
    test("processes that hammer one store are refused nothing but what the contract says, and leave it sound", async () => {
      const { store, open, damage } = await createBench(harness);
      const backend = await open();
      // Before any of them puts another key in its place.
      await backend.seedWaitpointHmacSecret({
        kid: "first",
        secretHex: "0f".repeat(32),
      });
      const seed = Math.floor(Math.random() * 1_000_000);
      tell(`seed ${seed}`);
      const hammers = await Promise.all(
        Array.from({ length: PROCESSES }, (_unused, index) =>
          Program.ready("hammer", { store, seed: seed + index, durationMs }),
        ),
      );

      const results = await Promise.all(
        hammers.map((hammer) =>
          hammer.told("hammered", undefined, durationMs + 60_000),
        ),
      );
      for (const hammer of hammers)
        expect(await hammer.exited).toEqual({ code: 0, signal: null });

      const totals = new Map<string, number>();
      for (const { tally } of results)
        for (const answers of Object.values(tally))
          for (const [answer, count] of Object.entries(answers))
            totals.set(answer, (totals.get(answer) ?? 0) + count);
      const calls = [...totals.values()].reduce((sum, n) => sum + n, 0);
      const executions = (await listAll(backend)).length;
      tell(
        `${calls} calls on ${executions} executions: ${[...totals].map(([answer, count]) => `${answer} ${count}`).join(", ")}`,
      );
      expect(results.flatMap(({ faults }) => faults)).toEqual([]);
      expect(await damage()).toEqual([]);
      expect(await findViolations(backend)).toEqual([]);
      const told = results.map((result) => result.told);
      expect(await findUntold(backend, told)).toEqual([]);
      const amounts = {
        suspensions: told.flatMap(({ suspensions }) => suspensions).length,
        signals: told.flatMap(({ signals }) => signals).length,
        resumes: told
          .flatMap(({ signals }) => signals)
          .filter(({ effect }) => effect === "resume_condition_satisfied")
          .length,
        frames: told.flatMap(({ frames }) => frames).length,
      };
      tell(JSON.stringify(amounts));
      // Where there is none of something, nothing is proved of it; a machine that is busy with other tests comes to few calls.
      if (calls >= CALLS_LEAST)
        for (const amount of Object.values(amounts))
          expect(amount).toBeGreaterThan(0);

      await finishAll(backend);
      expect(await findViolations(backend)).toEqual([]);
    });
  });
}

/** Claims alone bring everything to its end, once operators let go of what they hold. */
async function finishAll(backend: EngineBackend): Promise<void> {
  const openOnes = async () =>
    await backend.listExecutions({
      publicStates: ["waiting", "delayed", "active", "suspended"],
      limit: 1_000,
    });
  const endsAtMs = performance.now() + FINISHED_WITHIN_MS;
  for (;;) {
    const { executions } = await openOnes();
    if (executions.length === 0) return;
    if (performance.now() > endsAtMs)
      throw new Error(`${executions.length} executions do not end`);
    for (const executionId of executions) {
      const snapshot = await backend.describeExecution({ executionId });
      if (snapshot?.operatorHold === true)
        await backend.unholdExecution({ executionId });
      // Its time may be up meanwhile.
      else if (snapshot?.publicState === "suspended")
        await answerOf(backend.resumeExecution({ executionId }));
    }
    const { claimed } = await backend.claimMany({
      workerId: "finisher",
      workerInstanceId: "finisher",
      lanes: ["red", "green"],
      max: 100,
      leaseTtlMs: 60_000,
      maxWaitMs: 500,
    });
    if (claimed.length > 0)
      await backend.completeMany({
        items: claimed.map(({ handle }) => ({ handle })),
      });
  }
}
