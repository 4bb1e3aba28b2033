/** Workers that vanish: their work goes to others, once. */
import { describe, expect, test } from "vitest";

import { findViolations } from "../src/invariants.js";
import { machineMs } from "../src/reports.js";
import { allEnded } from "./endings.js";
import { Fleet, pause, Program, until } from "./fleet.js";
import {
  createBench,
  input,
  scaled,
  SLACK,
  tell,
  TIMEOUT_MS,
  type CrashHarness,
} from "./harness.js";

const LEASE_TTL_MS = 1_000;
/** Beyond the lease, with an idle worker at hand. */
const RECOVERY_MS = 1_000;

export function recoveryTests(harness: CrashHarness): void {
  describe(
    `${harness.name}: workers that vanish`,
    { timeout: TIMEOUT_MS },
    () => {
      test("what a killed worker ran is recovered exactly once while five others race for it", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        const leaseTtlMs = 2 * LEASE_TTL_MS;
        const victim = await Program.ready("worker", { store, leaseTtlMs });
        const { executionId } = await backend.createExecution({
          executionKind: "linger",
          inputPayload: input(20),
        });
        await victim.told("started");
        const rescuers = await Promise.all(
          Array.from({ length: 5 }, () =>
            Program.ready("worker", { store, leaseTtlMs }),
          ),
        );

        const killedAtMs = machineMs();
        await victim.kill();
        const taken = await Promise.race(
          rescuers.map((rescuer) => rescuer.told("started")),
        );
        await isTerminal(backend, executionId);
        const recoveryMs = taken.atMs - killedAtMs;
        tell(
          `taken over ${recoveryMs.toFixed(0)} ms after the kill (lease ${leaseTtlMs} ms)`,
        );

        // The last renewal was at most a third of the lease ago: before that nobody may have taken it.
        expect(recoveryMs).toBeGreaterThan(leaseTtlMs / 3);
        expect(recoveryMs).toBeLessThan(leaseTtlMs + SLACK * RECOVERY_MS);
        expect(rescuers.flatMap((rescuer) => rescuer.all("started"))).toEqual([
          { ...taken, handleKind: "reclaimed", attemptIndex: 1, leaseEpoch: 2 },
        ]);
        expect(await backend.listAttempts({ executionId })).toMatchObject([
          { attemptType: "initial", attemptState: "interrupted_reclaimed" },
          {
            attemptType: "reclaim",
            attemptState: "ended_success",
            reclaimReason: "lease_expired",
          },
        ]);
        expect(text(await backend.getExecutionResult({ executionId }))).toBe(
          "1:2",
        );
        expect(await findViolations(backend)).toEqual([]);
      });

      test("with a worker killed every second nothing is lost and every execution ends exactly once", async () => {
        const { store, open, damage } = await createBench(harness);
        const backend = await open();
        const seconds = scaled(30, 4);
        const fleet = new Fleet({
          store,
          leaseTtlMs: LEASE_TTL_MS,
          maxConcurrentTasks: 4,
          prefetch: 4,
        });
        await fleet.hire(5);

        const submitted: string[] = [];
        for (let tick = 0; tick < seconds * 10; tick++) {
          const answers = await backend.submitMany({
            items: Array.from({ length: 8 }, () => ({
              executionKind: "work",
              inputPayload: input(50 + Math.random() * 200),
            })),
          });
          for (const answer of answers)
            if (answer.kind === "created") submitted.push(answer.executionId);
          if (tick % 10 === 9)
            fleet.member(Math.floor(Math.random() * 5)).signal("SIGKILL");
          await pause(100);
        }
        await allEnded(backend);
        await fleet.close();

        let reclaims = 0;
        for (const executionId of submitted) {
          const snapshot = await backend.describeExecution({
            executionId: executionId,
          });
          expect(snapshot).toMatchObject({ publicState: "completed" });
          reclaims += snapshot!.leaseReclaimTotal;
          const result = await backend.getExecutionResult({
            executionId: executionId,
          });
          // Told by the lease that did complete it.
          expect(text(result)).toBe(
            `${snapshot!.totalAttemptCount - 1}:${snapshot!.leaseEpoch}`,
          );
        }
        tell(
          `${submitted.length} executions, ${fleet.deaths} workers killed, ${reclaims} take-overs`,
        );
        expect(submitted).toHaveLength(seconds * 80);
        expect(fleet.deaths).toBe(seconds);
        expect(reclaims).toBeGreaterThan(0);
        expect(await findViolations(backend)).toEqual([]);
        expect(await damage()).toEqual([]);
      });

      test("an execution that kills every worker stops at its reclaim cap while others go on", async () => {
        const { store, open } = await createBench(harness);
        const backend = await open();
        const fleet = new Fleet({
          store,
          leaseTtlMs: LEASE_TTL_MS,
          maxConcurrentTasks: 2,
        });
        await fleet.hire(3);

        const poison = await backend.createExecution({
          executionKind: "poison",
          inputPayload: input(0),
          policy: { maxReclaimCount: 2 },
        });
        const others = await backend.submitMany({
          items: Array.from({ length: 60 }, () => ({
            executionKind: "work",
            inputPayload: input(50),
          })),
        });
        for (const other of others)
          if (other.kind === "created")
            await isTerminal(backend, other.executionId);
        await isTerminal(backend, poison.executionId);

        expect(
          await backend.describeExecution({ executionId: poison.executionId }),
        ).toMatchObject({
          publicState: "failed",
          failureReason: "max_reclaims_exceeded",
          totalAttemptCount: 3,
          leaseReclaimCount: 2,
        });
        expect(fleet.deaths).toBe(3);
        const { executions } = await backend.listExecutions({
          publicStates: ["completed"],
        });
        expect(executions).toHaveLength(60);
        expect(await findViolations(backend)).toEqual([]);
      });
    },
  );
}

function isTerminal(
  backend: Awaited<ReturnType<Awaited<ReturnType<typeof createBench>>["open"]>>,
  executionId: string,
): Promise<void> {
  return until(`the end of ${executionId}`, async () => {
    const snapshot = await backend.describeExecution({
      executionId: executionId,
    });
    return snapshot?.stateVector.lifecyclePhase === "terminal";
  });
}

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes).toString();
}
