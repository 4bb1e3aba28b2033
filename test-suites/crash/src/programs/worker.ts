/** A worker whose handlers do what the tests need. It tells of every handler that begins or is aborted. */
import { setTimeout as sleep } from "node:timers/promises";

import { Worker, type ClaimedTask } from "@flowfabric/sdk";
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

  report({ kind: "ready" });
  const { completed, failed, abandoned } = await worker.run();
  report({ kind: "stopped", completed, failed, abandoned });
  await backend.close();
  // A deaf handler would keep the process.
  setImmediate(() => process.exit(0));
});

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
