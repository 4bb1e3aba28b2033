/**
 * One worker of the demo, in a process of its own so that it can be killed. Started by the crew with its job as the
 * only argument; drains when its parent closes the channel, also because the parent died.
 */
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { TaskFailure, when, Worker } from "@flowfabric/sdk";
import { z } from "zod";

import { describeFailure } from "../errors.js";
import { openStore, parseAddress } from "../open.js";
import { analyse } from "./analyse.js";
import {
  AnalyseFile,
  APPROVAL,
  APPROVED,
  CHANGED,
  isFlaky,
  paceMs,
  PublishReport,
  REJECTED,
  TEXT_IS_WRITTEN,
  UNREADABLE,
  WRITING_MS,
} from "./definition.js";
import { wordsOf, writtenReport } from "./written-report.js";

const WorkerJob = z.object({
  store: z.string(),
  folder: z.string(),
  lane: z.string(),
  instanceId: z.string(),
  concurrency: z.number().int(),
  leaseTtlMs: z.number().int(),
  paceScale: z.number(),
});
export type WorkerJob = z.infer<typeof WorkerJob>;

async function runWorker(job: WorkerJob): Promise<void> {
  // It may have gone while this program was still being loaded.
  const parentGone = process.connected
    ? once(process, "disconnect")
    : Promise.resolve();
  await using backend = await openStore(parseAddress(job.store), {
    create: false,
  });
  await using worker = new Worker({
    backend,
    workerId: "demo",
    workerInstanceId: job.instanceId,
    lanes: [job.lane],
    maxConcurrentTasks: job.concurrency,
    leaseTtlMs: job.leaseTtlMs,
    drainTimeoutMs: 5_000,
  });

  worker.handle(AnalyseFile, async (file, task) => {
    await sleep(paceMs(file, job.paceScale), undefined, {
      signal: task.signal,
    });
    if (task.attemptIndex === 0 && isFlaky(file))
      throw new Error(`injected: the first read of ${file.path} fails`);
    const bytes = await readFile(join(job.folder, file.path)).catch(
      (error: NodeJS.ErrnoException) => {
        const reason = `cannot read ${file.path} (${error.code ?? error.message})`;
        throw new TaskFailure({ reason, category: UNREADABLE });
      },
    );
    const analysis = analyse(file.path, bytes);
    if (analysis.sha256 === file.sha256) return analysis;
    const reason = `${file.path} was changed after it had been submitted`;
    throw new TaskFailure({ reason, category: CHANGED });
  });

  worker.handle(PublishReport, async (figures, task) => {
    const text = writtenReport(figures);
    const [answer] = await task.resumeSignals();
    if (answer === undefined) {
      const words = wordsOf(text);
      for (const word of words) {
        await task.stream.write(word);
        await sleep(WRITING_MS / words.length, undefined, {
          signal: task.signal,
        });
      }
      await task.stream.write("", { frameType: TEXT_IS_WRITTEN });
      return task.suspend({
        reasonCode: "waiting_for_approval",
        resumeCondition: when.signal(APPROVAL),
      });
    }
    const approvedBy = answer.sourceIdentity || "somebody";
    if (answer.signalName === APPROVED) return { text, approvedBy };
    const reason = `${approvedBy} answered '${answer.signalName}'`;
    throw new TaskFailure({ reason, category: REJECTED });
  });

  const running = worker.run();
  void parentGone.then(() => worker.stop());
  await running;
}

try {
  await runWorker(WorkerJob.parse(JSON.parse(process.argv[2] ?? "{}")));
} catch (error) {
  console.error(describeFailure(error));
  process.exitCode = 1;
}
// An open channel would keep a worker alive that has ended by itself.
process.disconnect?.();
