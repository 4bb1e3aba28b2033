/** Workers that are asked to stop: they finish, or hand back what they have, and nothing is counted as lost. */
import { describe, expect, test } from "vitest";

import { findViolations } from "../src/invariants.js";
import { Program, until } from "./fleet.js";
import {
  createBench,
  input,
  TIMEOUT_MS,
  type CrashHarness,
} from "./harness.js";

export function drainingTests(harness: CrashHarness): void {
  describe(
    `${harness.name}: workers that are asked to stop`,
    { timeout: TIMEOUT_MS },
    () => {
      test("SIGTERM lets running handlers finish and hands back what was claimed ahead, with its attempt", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        const first = await Program.ready("worker", {
          store,
          leaseTtlMs: 30_000,
          maxConcurrentTasks: 2,
          prefetch: 4,
        });
        await backend.submitMany({
          items: Array.from({ length: 6 }, () => ({
            executionKind: "work",
            inputPayload: input(1_000),
          })),
        });
        await until("six leases", async () => {
          const { executions } = await backend.listExecutions({
            publicStates: ["active"],
          });
          return executions.length === 6;
        });
        await until(
          "two handlers",
          async () => first.all("started").length === 2,
        );

        first.signal("SIGTERM");
        const report = await first.told("stopped");
        expect(await first.exited).toEqual({ code: 0, signal: null });

        expect(report).toMatchObject({ completed: 2, failed: 0, abandoned: 0 });
        const { executions: left } = await backend.listExecutions({
          publicStates: ["waiting"],
        });
        expect(left).toHaveLength(4);

        const second = await Program.ready("worker", {
          store,
          maxConcurrentTasks: 4,
        });
        await until("the end of all", async () => {
          const { executions } = await backend.listExecutions({
            publicStates: ["completed"],
          });
          return executions.length === 6;
        });
        expect(second.all("started")).toHaveLength(4);
        for (const started of second.all("started"))
          expect(started).toMatchObject({
            handleKind: "resumed",
            attemptIndex: 0,
          });
        for (const executionId of left)
          expect(
            await backend.describeExecution({ executionId }),
          ).toMatchObject({
            totalAttemptCount: 1,
            leaseReclaimTotal: 0,
            retryCount: 0,
          });
        expect(await findViolations(backend)).toEqual([]);
      });

      test("what runs longer than the drain time is handed back, and the next worker goes on with the same attempt", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        const first = await Program.ready("worker", {
          store,
          leaseTtlMs: 30_000,
          maxConcurrentTasks: 2,
          drainTimeoutMs: 300,
        });
        const jobs = await backend.submitMany({
          items: ["polite", "deaf"].map((executionKind) => ({
            executionKind,
            inputPayload: input(60_000),
          })),
        });
        await until(
          "two handlers",
          async () => first.all("started").length === 2,
        );

        first.signal("SIGTERM");
        const report = await first.told("stopped");
        expect(await first.exited).toEqual({ code: 0, signal: null });
        expect(report).toMatchObject({ completed: 0, failed: 0, abandoned: 2 });
        const second = await Program.ready("worker", {
          store,
          maxConcurrentTasks: 2,
        });
        await until("the end of both", async () => {
          const { executions } = await backend.listExecutions({
            publicStates: ["completed"],
          });
          return executions.length === 2;
        });

        expect(second.all("started")).toHaveLength(2);
        for (const started of second.all("started"))
          expect(started).toMatchObject({
            handleKind: "resumed",
            attemptIndex: 0,
            leaseEpoch: 2,
          });
        for (const job of jobs)
          expect(
            await backend.describeExecution({
              executionId: job.kind === "created" ? job.executionId : "",
            }),
          ).toMatchObject({
            totalAttemptCount: 1,
            leaseReclaimTotal: 0,
            retryCount: 0,
          });
        expect(await findViolations(backend)).toEqual([]);
      });
    },
  );
}
