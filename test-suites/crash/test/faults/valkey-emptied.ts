/** A server that loses what it had while everybody goes on: its functions, or all of its data. */
import type { EngineBackend } from "@flowfabric/core";
import { describe, expect, onTestFinished, test } from "vitest";

import { openStore } from "../../src/open.js";
import { machineMs } from "../../src/reports.js";
import { allEnded } from "../endings.js";
import { pause, Program, until } from "../fleet.js";
import { input, scaled, SLACK, tell, TIMEOUT_MS } from "../harness.js";
import { expectEndedOnce, Load } from "./load.js";
import { createValkeyBench, type ServerOf } from "./valkey-bench.js";

/** From submission to start where a waiting worker hears of it. */
const HEARD_MS = 50;

export function valkeyEmptiedTests(serverOf: ServerOf): void {
  describe("valkey: a server that was emptied", { timeout: TIMEOUT_MS }, () => {
    test("functions that are flushed are loaded again, and nobody sees an error", async () => {
      const { store, ask } = createValkeyBench(serverOf());
      const load = await Load.start({ store: store(), direct: store() });
      const backend = await open(store());
      let flushed = 0;
      for (let round = 0; round < scaled(10, 2); round++) {
        // Not asynchronously, as is the default of Valkey 8.0: 8.0.1 crashes where a load meets such a flush.
        await ask("FUNCTION", "FLUSH", "SYNC");
        flushed++;
        // A refusal would end the test.
        const claim = backend.claimMany({
          workerId: "waiter",
          workerInstanceId: "waiter",
          lanes: ["nobody's"],
          leaseTtlMs: 10_000,
          max: 1,
          maxWaitMs: 50,
        });
        await pause(20);
        await ask("FUNCTION", "FLUSH", "SYNC");
        flushed++;
        await Promise.all([claim, backend.listExecutions({ limit: 1 })]);
        await pause(200);
      }
      await load.recovered(`functions flushed ${flushed} times`, machineMs());
      expect(load.transportFaults).toBe(0);
      await load.finish();
    });

    test("workers that wait go on with the emptied store, whatever numbers its lanes have now", async () => {
      const { store, ask } = createValkeyBench(serverOf());
      const backend = await open(store());
      // Lanes and workers that nobody needs take the first numbers, so that others have them later.
      for (const laneId of ["a", "b", "c"])
        await backend.createExecution({ executionKind: "work", laneId });
      await backend.claimMany({
        workerId: "early",
        workerInstanceId: "early",
        lanes: ["a"],
        leaseTtlMs: 10_000,
        max: 1,
      });
      const workers = await Promise.all(
        [1, 2].map(() => Program.ready("worker", { store: store() })),
      );
      await expectPickedUp(backend, workers, "before");

      for (let round = 0; round < scaled(10, 3); round++) {
        await ask("FLUSHALL");
        if (round % 2 === 1) {
          // The numbers of the worker's own lane, and of its instance, go to others.
          for (const laneId of ["x", "y", "z"].slice(0, 1 + (round % 3)))
            await backend.createExecution({ executionKind: "work", laneId });
          await backend.claimMany({
            workerId: "other",
            workerInstanceId: `other-${round}`,
            lanes: ["x"],
            leaseTtlMs: 10_000,
            max: 1,
          });
        }
        const { executionIds } = await expectPickedUp(
          backend,
          workers,
          `emptied, round ${round}`,
        );
        await until("the ends", async () => {
          const states = await Promise.all(
            executionIds.map((executionId) =>
              backend.describeExecution({ executionId }),
            ),
          );
          return states.every((state) => state?.publicState === "completed");
        });
        for (const worker of workers) worker.requireRunning();
      }
    });

    test("workers whose running work vanishes with the store stay up, and run what comes next", async () => {
      const { store, ask } = createValkeyBench(serverOf());
      const backend = await open(store());
      const workers = await Promise.all(
        [1, 2].map(() =>
          Program.ready("worker", { store: store(), maxConcurrentTasks: 4 }),
        ),
      );
      for (let round = 0; round < scaled(5, 2); round++) {
        for (let count = 0; count < 20; count++)
          await backend.createExecution({
            executionKind: "work",
            inputPayload: input(200),
          });
        await until("work under way", async () =>
          workers.every((worker) => worker.all("started").length > 0),
        );
        await pause(Math.random() * 200);
        await ask("FLUSHALL");
        const { executionIds } = await expectPickedUp(
          backend,
          workers,
          `emptied at work, round ${round}`,
          10 * HEARD_MS,
        );
        await allEnded(backend);
        await expectEndedOnce(backend, executionIds);
        await ask("FLUSHALL");
      }
    });
  });
}

async function open(store: string): Promise<EngineBackend> {
  const backend = await openStore(store);
  onTestFinished(() => backend.close());
  return backend;
}

/** Some new work, one after the other. */
async function expectPickedUp(
  backend: EngineBackend,
  workers: readonly Program[],
  what: string,
  withinMs = HEARD_MS,
): Promise<{ readonly executionIds: readonly string[] }> {
  const executionIds: string[] = [];
  const delays: number[] = [];
  for (let count = 0; count < 5; count++) {
    const submittedAtMs = machineMs();
    const { executionId } = await backend.createExecution({
      executionKind: "work",
      inputPayload: input(0),
    });
    executionIds.push(executionId);
    const started = await Promise.race(
      workers.map((worker) =>
        worker.told("started", (told) => told.executionId === executionId),
      ),
    );
    delays.push(started.atMs - submittedAtMs);
  }
  tell(
    `${what}: started after ${delays.map((ms) => ms.toFixed(0)).join(", ")} ms`,
  );
  expect(Math.max(...delays)).toBeLessThan(SLACK * withinMs);
  return { executionIds };
}
