/** A server at its memory limit that evicts nothing: it takes no new work, and drains what it has. */
import { randomUUID } from "node:crypto";

import {
  formatExecutionId,
  type ClaimedExecution,
  type EngineBackend,
  type EngineError,
} from "@flowfabric/core";
import { infoField, startRestartableValkey } from "@flowfabric/valkey-testing";
import { describe, expect, onTestFinished, test } from "vitest";

import { findViolations, listAll } from "../../src/invariants.js";
import { openStore } from "../../src/open.js";
import { machineMs } from "../../src/reports.js";
import { Program, until } from "../fleet.js";
import { input, scaled, tell, TIMEOUT_MS } from "../harness.js";
import { createValkeyBench, type ValkeyBench } from "./valkey-bench.js";

/** What the store may use beyond what an empty one does. */
const ROOM_BYTES = 4 * 1024 * 1024;
const INPUT_BYTES = 8_000;
const LEASE_TTL_MS = 60_000;
/** Gone as soon as they have ended. */
const NOT_KEPT = { streamPolicy: { retentionTtlMs: 0 } };
const CLAIMANT = {
  workerId: "drainer",
  workerInstanceId: "drainer",
  lanes: ["default"],
  leaseTtlMs: LEASE_TTL_MS,
};

export function valkeyMemoryTests(): void {
  describe("valkey: a server that is full", { timeout: TIMEOUT_MS }, () => {
    test("new work is refused whole and says why; every end and all maintenance go on", async () => {
      const bench = await createFullBench();
      const backend = await open(bench);
      await bench.ask("CONFIG", "SET", "maxmemory", "1gb");
      for (let count = 0; count < 60; count++) await submit(backend);
      const [short] = await claim(backend, 1, 200);
      const held = await claim(backend, 6);
      // Whatever is asked for now is asked for beyond the limit.
      await bench.ask("CONFIG", "SET", "maxmemory", "1mb");

      const before = (await listAll(backend)).sort();
      await expectRefused(backend);
      expect((await listAll(backend)).sort()).toEqual(before);

      // A process that comes to help needs a way in.
      const helper = await open(bench);
      expect(await claim(helper, 2)).toHaveLength(2);
      expect(
        (await backend.renew({ handle: held[0]!.handle })).leaseEpoch,
      ).toBe(held[0]!.leaseEpoch);
      await backend.progress({ handle: held[0]!.handle, percent: 50 });
      await backend.complete({
        handle: held[0]!.handle,
        payload: Buffer.from("done"),
      });
      expect(
        await backend.fail({
          handle: held[1]!.handle,
          reason: { message: "terminal" },
          classification: "permanent",
        }),
      ).toMatchObject({ kind: "terminalFailed" });
      await backend.cancel({ handle: held[2]!.handle, reason: "no more" });
      await backend.delay({
        handle: held[3]!.handle,
        delayUntilMs: (await backend.serverTimeMs()) + 60_000,
      });
      const ridden = await backend.completeAndClaim({
        items: [{ handle: held[4]!.handle }],
        claim: { ...CLAIMANT, max: 1 },
      });
      expect(ridden.results).toEqual([{ kind: "completed" }]);
      expect(ridden.claimed).toHaveLength(1);
      await backend.cancelExecution({
        executionId: held[5]!.executionId,
        source: "operator_override",
        reason: "no more",
      });
      await until("the lapse", async () => {
        await backend.sweep({ name: "lease_expiry" });
        const marking = await backend.markLeaseExpiredIfDue({
          executionId: short!.executionId,
        });
        return (
          marking.kind === "alreadySatisfied" &&
          marking.reason === "already_expired"
        );
      });
      const { processed } = await backend.sweep({ name: "retention_trimmer" });
      expect(processed).toBeGreaterThanOrEqual(5);
      // This look adds something of its own.
      await bench.ask("CONFIG", "SET", "maxmemory", "1gb");
      expect(await findViolations(backend)).toEqual([]);
    });

    test("waitpoints and signals are refused; suspending and every way out of it go on", async () => {
      const bench = await createFullBench();
      const backend = await open(bench);
      await bench.ask("CONFIG", "SET", "maxmemory", "1gb");
      await backend.seedWaitpointHmacSecret({
        kid: "k1",
        secretHex: "0f".repeat(32),
      });
      for (let count = 0; count < 5; count++) await submit(backend);
      const [holder, ...held] = await claim(backend, 5);
      const pending = await backend.createWaitpoint({
        handle: holder!.handle,
        waitpointKey: "before",
        expiresInMs: 60_000,
      });
      await bench.ask("CONFIG", "SET", "maxmemory", "1mb");

      expectMemoryError(
        await failureOf(
          backend.createWaitpoint({
            handle: holder!.handle,
            waitpointKey: "beyond",
            expiresInMs: 60_000,
          }),
        ),
      );
      expectMemoryError(
        await failureOf(
          backend.deliverSignal({
            executionId: holder!.executionId,
            waitpointId: pending.waitpointId,
            waitpointToken: pending.hmacToken,
            signalId: randomUUID(),
            signalName: "go",
          }),
        ),
      );
      const { executionId } = holder!;
      expect(
        await backend.listPendingWaitpoints({ executionId }),
      ).toMatchObject({
        entries: [{ waitpointId: pending.waitpointId, signalCount: 0 }],
      });
      await backend.closeWaitpoint({
        handle: holder!.handle,
        waitpointId: pending.waitpointId,
      });

      const timeoutAtMs = (await backend.serverTimeMs()) + 200;
      for (const { handle } of held)
        expect(
          await backend.suspend({
            handle,
            suspensionId: randomUUID(),
            waitpoints: [
              {
                kind: "fresh",
                waitpointId: randomUUID(),
                waitpointKey: "never",
              },
            ],
            resumeCondition: { kind: "timeoutOnly" },
            timeoutAtMs,
            reasonCode: "step_boundary",
          }),
        ).toMatchObject({ kind: "suspended" });
      const [first, second, ...others] = held.map((one) => one.executionId);
      await backend.resumeExecution({ executionId: first! });
      await backend.cancelExecution({
        executionId: second!,
        source: "operator_override",
        reason: "no more",
      });
      await until("the timeouts", async () => {
        await backend.sweep({ name: "suspension_timeout" });
        const { entries } = await backend.listSuspended({});
        return entries.length === 0;
      });
      for (const executionId of others)
        expect(await backend.readExecutionState({ executionId })).toBe(
          "failed",
        );
      expect(await claim(backend, 5)).toMatchObject([{ executionId: first }]);
      await bench.ask("CONFIG", "SET", "maxmemory", "1gb");
      expect(await findViolations(backend)).toEqual([]);
    });

    test("a store filled up to the limit is drained by workers, and accepts again", async () => {
      const bench = await createFullBench();
      const backend = await open(bench);
      const worker = await Program.ready("worker", {
        store: bench.store(),
        leaseTtlMs: 3_000,
        maxConcurrentTasks: 4,
      });
      for (let round = 0; round < scaled(5, 1); round++) {
        worker.signal("SIGSTOP");
        const filled: string[] = [];
        let refused: unknown;
        while (refused === undefined) {
          try {
            filled.push(await submit(backend));
          } catch (error) {
            refused = error;
          }
        }
        expectMemoryError(refused);
        await expectRefused(backend);
        expect((await listAll(backend)).sort()).toEqual(filled.sort());
        const begunBefore = worker.all("started").length;
        const fromMs = machineMs();
        worker.signal("SIGCONT");
        await until("room again", async () => {
          worker.requireRunning();
          try {
            await submit(backend);
            return true;
          } catch (error) {
            expectMemoryError(error);
            return false;
          }
        });
        const roomMs = machineMs() - fromMs;
        // An idle worker is in no hurry to trim.
        await until("an empty store", async () => {
          await backend.sweep({ name: "retention_trimmer", limit: 1_000 });
          return (await listAll(backend)).length === 0;
        });
        const begun = worker
          .all("started")
          .slice(begunBefore)
          .map(({ executionId }) => executionId);
        expect(begun).toHaveLength(new Set(begun).size);
        expect(begun).toHaveLength(filled.length + 1);
        tell(
          `full with ${filled.length} executions; accepts again after ${roomMs.toFixed(0)} ms; ` +
            `all ended once and trimmed after ${(machineMs() - fromMs).toFixed(0)} ms`,
        );
      }
    });
  });
}

/** A server of its own, with little room. */
async function createFullBench(): Promise<ValkeyBench> {
  const server = await startRestartableValkey({
    settings: { appendonly: "no", "maxmemory-policy": "noeviction" },
  });
  onTestFinished(() => server.stop());
  const bench = createValkeyBench(server);
  // With the library in it.
  await open(bench);
  const used = infoField(
    String(await bench.ask("INFO", "memory")),
    "used_memory",
  );
  await bench.ask(
    "CONFIG",
    "SET",
    "maxmemory",
    String(Number(used) + ROOM_BYTES),
  );
  return bench;
}

async function open(bench: ValkeyBench): Promise<EngineBackend> {
  const backend = await openStore(bench.store());
  onTestFinished(() => backend.close());
  return backend;
}

async function submit(
  backend: EngineBackend,
  executionId = formatExecutionId(0, randomUUID()),
): Promise<string> {
  await backend.createExecution({
    executionId,
    executionKind: "work",
    inputPayload: Buffer.from(
      Buffer.from(input(1)).toString().padEnd(INPUT_BYTES),
    ),
    policy: NOT_KEPT,
  });
  return executionId;
}

async function claim(
  backend: EngineBackend,
  max: number,
  leaseTtlMs = LEASE_TTL_MS,
): Promise<readonly ClaimedExecution[]> {
  return (await backend.claimMany({ ...CLAIMANT, leaseTtlMs, max })).claimed;
}

/** Nothing of it is there. */
async function expectRefused(backend: EngineBackend): Promise<void> {
  const executionId = formatExecutionId(0, randomUUID());
  expectMemoryError(await failureOf(submit(backend, executionId)));
  expect(await backend.describeExecution({ executionId })).toBeUndefined();
}

/** Nothing where there was none. */
function failureOf(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => undefined,
    (error: unknown) => error,
  );
}

function expectMemoryError(error: unknown): void {
  expect(error).toMatchObject({
    code: "transport",
    detail: { backend: "valkey", backendKind: "other" },
  });
  expect((error as EngineError).message).toMatch(
    /memory limit; nothing was written.*maxmemory/,
  );
}
