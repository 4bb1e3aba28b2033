/** The listening connection dies silently: nobody loses work by it, and it is replaced. */
import type { EngineBackend } from "@flowfabric/core";
import { describe, expect, onTestFinished, test } from "vitest";

import { openStore } from "../../src/open.js";
import { machineMs } from "../../src/reports.js";
import { allEnded } from "../endings.js";
import { pause, Program, until } from "../fleet.js";
import {
  input,
  percentile,
  scaled,
  SLACK,
  tell,
  TIMEOUT_MS,
} from "../harness.js";
import { expectEndedOnce } from "./load.js";
import {
  createPostgresBench,
  startProxy,
  type ServerOf,
} from "./postgres-bench.js";

/** From submission to start: where a claim hears, and where it only looks by itself. */
const HEARD_MS = 20;
const LOOKED_MS = 5_000;
const ANSWER_TIMEOUT_MS = 6_000;
/** Asked after a third of that, given up after half. */
const NOTICED_MS = ANSWER_TIMEOUT_MS / 2;

export function postgresListeningTests(serverOf: ServerOf): void {
  describe(
    "postgres: a listening connection that hears nothing more",
    { timeout: TIMEOUT_MS },
    () => {
      test("waiting claims look by themselves until it is noticed and replaced, and then hear again", async () => {
        const { server, store } = createPostgresBench(serverOf());
        const proxy = await startProxy(server);
        const backend = await openStore(store());
        onTestFinished(() => backend.close());
        const worker = await Program.ready("worker", {
          store: store({
            listenThrough: proxy,
            answerTimeoutMs: ANSWER_TIMEOUT_MS,
          }),
          leaseTtlMs: 600_000,
        });
        await until("the listening connection", async () => proxy.accepted > 0);
        const before = await pickUp(backend, worker, scaled(50, 20));
        expect(percentile(before, 0.5)).toBeLessThan(SLACK * HEARD_MS);
        expect(proxy.accepted).toBe(1);

        proxy.forget();
        const forgottenAtMs = machineMs();
        const during: number[] = [];
        while (proxy.accepted === 1) {
          during.push(...(await pickUp(backend, worker, 1)));
          expect(machineMs() - forgottenAtMs).toBeLessThan(SLACK * NOTICED_MS);
        }
        const noticedMs = machineMs() - forgottenAtMs;
        await pause(1_000);
        const after = await pickUp(backend, worker, scaled(50, 20));

        tell(
          `heard: p50 ${percentile(before, 0.5).toFixed(1)} ms; deaf: ${during.map((ms) => ms.toFixed(0)).join(", ")} ms; ` +
            `replaced after ${noticedMs.toFixed(0)} ms; heard again: p50 ${percentile(after, 0.5).toFixed(1)} ms`,
        );
        expect(Math.max(...during)).toBeLessThan(SLACK * LOOKED_MS);
        expect(percentile(after, 0.5)).toBeLessThan(SLACK * HEARD_MS);
        // Otherwise it was not deaf, or still is: while it is idle a worker looks by itself four times a second.
        expect(percentile(after, 0.5)).toBeLessThan(
          percentile(during, 0.5) / 2,
        );
        worker.requireRunning();
        await allEnded(backend);
        await expectEndedOnce(
          backend,
          worker.all("started").map(({ executionId }) => executionId),
        );
      });
    },
  );
}

/** One after the other, each found by an idle worker. @returns from submission to start, in milliseconds */
async function pickUp(
  backend: EngineBackend,
  worker: Program,
  count: number,
): Promise<number[]> {
  const delays: number[] = [];
  for (let index = 0; index < count; index++) {
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
  return delays;
}
