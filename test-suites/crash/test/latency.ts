/** How soon one process hears of another. The figures are printed; a busy machine gets ten times the promise. */
import { describe, expect, test } from "vitest";

import { machineMs } from "../src/reports.js";
import { pause, Program } from "./fleet.js";
import {
  createBench,
  input,
  percentile,
  scaled,
  SLACK,
  tell,
  TIMEOUT_MS,
  type CrashHarness,
} from "./harness.js";

const CANCEL_MS = 1_000;
const PICKUP_MS = 20;

export function latencyTests(harness: CrashHarness): void {
  describe(
    `${harness.name}: from process to process`,
    { timeout: TIMEOUT_MS },
    () => {
      test("cancelling a running execution aborts its handler in another process", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        // Nothing but the push tells it in time.
        const worker = await Program.ready("worker", {
          store,
          leaseTtlMs: 600_000,
        });
        const delays: number[] = [];
        for (let round = 0; round < scaled(30, 5); round++) {
          const { executionId } = await backend.createExecution({
            executionKind: "hold",
            inputPayload: input(0),
          });
          const isThis = (told: { executionId: string }) =>
            told.executionId === executionId;
          await worker.told("started", isThis);

          const cancelledAtMs = machineMs();
          await backend.cancelExecution({ executionId, reason: "no longer" });
          const aborted = await worker.told("aborted", isThis);

          delays.push(aborted.atMs - cancelledAtMs);
          expect(aborted).toMatchObject({
            error: "TaskCancelledError",
            detail: { reason: "no longer", source: "operator_override" },
          });
          expect(aborted.refused).not.toBe("done");
        }
        tellDelays("cancelled to aborted", delays);
        expect(Math.max(...delays)).toBeLessThan(SLACK * CANCEL_MS);
      });

      test("what one process submits, an idle worker of another begins at once", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        const worker = await Program.ready("worker", {
          store,
          leaseTtlMs: 30_000,
        });
        const delays: number[] = [];
        for (let round = 0; round < scaled(200, 60); round++) {
          // Idle again, at any phase of whatever it does meanwhile.
          await pause(15 + Math.random() * 30);
          const submittedAtMs = machineMs();
          const { executionId } = await backend.createExecution({
            executionKind: "work",
            inputPayload: input(0),
          });
          const started = await worker.told(
            "started",
            (told) => told.executionId === executionId,
          );
          delays.push(started.atMs - submittedAtMs);
        }
        tellDelays("submitted to started", delays);
        expect(percentile(delays, 0.5)).toBeLessThan(SLACK * PICKUP_MS);
        // The rest belongs to the machine: one that is busy lets any process wait now and then.
        expect(percentile(delays, 0.9)).toBeLessThan(SLACK * PICKUP_MS);
      });
    },
  );
}

function tellDelays(what: string, delays: readonly number[]): void {
  const at = (share: number) => percentile(delays, share).toFixed(1);
  tell(
    `${what}: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms of ${delays.length}`,
  );
}
