/**
 * How soon does a reader in another process have a frame? From the call that writes it to the reader's next step, also while
 * that process waits for a thousand other streams.
 */
import type { EngineBackend } from "@flowfabric/core";
import { Client } from "@flowfabric/sdk";

import type { MeasuredBackend } from "../backends.js";
import type { Sample } from "../engine/figures.js";
import { insist } from "../engine/jobs.js";
import { hostClockMs, startProcess, untilIdle } from "../other-process.js";
import { job, withWorker, workerOn } from "./handlers.js";

/** What the reading process tells. */
export type ReaderNews =
  | { readonly kind: "parked" }
  | { readonly kind: "frame"; readonly text: string; readonly atMs: number };

const WARM_UP = 10;

export async function tailAcrossProcesses(
  measured: MeasuredBackend,
  location: string,
  backend: EngineBackend,
  count: number,
  parkedTails: number,
): Promise<Sample> {
  await using client = new Client({ backend });
  const { executionId } = await client.submit(job);
  await using reader = startProcess<ReaderNews>(
    new URL("reader-process.js", import.meta.url),
    measured.name,
    location,
    executionId,
    `${parkedTails}`,
  );
  insist(
    (await reader.told()).kind === "parked",
    "the other process reads nothing",
  );
  const latenciesMs: number[] = [];
  const worker = workerOn(backend, async (_input, task) => {
    for (let n = -WARM_UP; n < count; n++) {
      await untilIdle();
      const startMs = hostClockMs();
      await task.stream.write(`${n}`);
      const read = await reader.told();
      insist(
        read.kind === "frame" && read.text === `${n}`,
        "a reader missed a frame",
      );
      if (n >= 0) latenciesMs.push(read.atMs - startMs);
    }
  });
  await withWorker(worker, async () => {
    const { kind } = await client.result({ executionId, timeoutMs: 600_000 });
    insist(kind === "completed", "a handler could not write");
  });
  return { latenciesMs };
}
