/** A worker whose handlers do what the tests need. It tells of every handler that begins or is aborted. */
import { setTimeout as sleep } from "node:timers/promises";

import { when, Worker, type ClaimedTask } from "@flowfabric/sdk";
import { z } from "zod";

import { report, runProgram } from "../program.js";
import { machineMs } from "../reports.js";

const Options = z.object({
  leaseTtlMs: z.number().default(1_000),
  maxConcurrentTasks: z.number().default(1),
  prefetch: z.number().default(0),
  drainTimeoutMs: z.number().default(30_000),
});

const Input = z.object({ ms: z.number().default(0) });

await runProgram(Options, async (backend, options) => {
  const worker = new Worker({ backend, ...options });
  const handle = (
    kind: string,
    run: (ms: number, task: ClaimedTask) => Promise<void>,
  ) =>
    worker.handle(kind, async (input, task) => {
      tellStart(task);
      const { ms } = Input.parse(JSON.parse(Buffer.from(input).toString()));
      await run(ms, task);
      // Which lease it was that completed the execution.
      return Buffer.from(`${task.attemptIndex}:${task.leaseEpoch}`);
    });

  handle("work", async (ms, task) => {
    await sleep(ms, undefined, { signal: task.signal });
  });
  // Hangs where it is run first, and is quick wherever it is taken over.
  handle("linger", async (ms, task) => {
    if (task.attemptIndex === 0)
      await sleep(60_000, undefined, { signal: task.signal });
    await sleep(ms, undefined, { signal: task.signal });
  });
  handle("poison", async () => {
    process.kill(process.pid, "SIGKILL");
    await sleep(60_000);
  });
  // Ends only with its signal, tries another write, and returns a result that nobody may see.
  handle("hold", async (_ms, task) => {
    await aborted(task.signal);
    const { reason } = task.signal as { reason: Error & { detail?: unknown } };
    const atMs = machineMs();
    const refused = await task
      .progress({ message: "written by a worker that lost its lease" })
      .then(
        () => "done",
        (error: Error & { code?: string }) => error.code ?? error.name,
      );
    report({
      kind: "aborted",
      executionId: task.executionId,
      error: reason.name,
      detail: reason.detail,
      refused,
      atMs,
    });
  });
  // Hears nothing; the second time it is at once done.
  handle("deaf", async (ms, task) => {
    if (task.handleKind === "fresh") await sleep(ms);
  });
  // The same, but it stops when asked to.
  handle("polite", async (ms, task) => {
    if (task.handleKind === "fresh")
      await sleep(ms, undefined, { signal: task.signal });
  });

  handle("stream", (count, task) => stream(task, count, 0));
  // Between two frames the process stands still for longer than its lease.
  handle("stall", (count, task) => stream(task, count, 6 * options.leaseTtlMs));

  // Waits for as many signals as its input says, and answers which ones it was resumed with.
  worker.handle("await", async (input, task) => {
    const { ms: count } = Input.parse(
      JSON.parse(Buffer.from(input).toString()),
    );
    tellStart(task);
    if ((await task.resumeSignals()).length === 0) {
      const waitpointKey = "key";
      const resumeCondition = when.count({
        n: count,
        countKind: "distinctSignals",
        waitpoints: [waitpointKey],
      });
      const pending = await task.createPendingWaitpoint({
        waitpointKey,
        expiresInMs: 600_000,
      });
      await task.trySuspendOnPending({ pending, resumeCondition });
      if (task.state === "consumed") return undefined;
    }
    const signals = await task.resumeSignals();
    return signals.map(({ signalId, signalName }) => ({
      signalId,
      signalName,
    }));
  });

  report({ kind: "ready" });
  const { completed, failed, abandoned } = await worker.run();
  report({ kind: "stopped", completed, failed, abandoned });
  await backend.close();
  // A deaf handler would keep the process.
  setImmediate(() => process.exit(0));
});

/** Writes without end where it is run first, and `count` frames wherever it is taken over. */
async function stream(
  task: ClaimedTask,
  count: number,
  stallMs: number,
): Promise<void> {
  try {
    for (let n = 0; task.attemptIndex === 0 || n < count; n++) {
      await task.stream.write(String(n));
      if (n % 10 === 9) await sleep(5);
      if (n === 400 && task.attemptIndex === 0) standStill(stallMs);
    }
  } catch (error) {
    const { code } = error as { code?: string };
    const { executionId } = task;
    report({ kind: "refused", executionId, code: String(code) });
    throw error;
  }
}

function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function tellStart(task: ClaimedTask): void {
  report({
    kind: "started",
    executionId: task.executionId,
    attemptIndex: task.attemptIndex,
    leaseEpoch: task.leaseEpoch,
    handleKind: task.handleKind,
    atMs: machineMs(),
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
