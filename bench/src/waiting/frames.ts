/** How many frames per second do handlers put out: each awaited, or as fast as the buffer has room? */
import type { EngineBackend } from "@flowfabric/core";
import { Client, type ClaimedTask } from "@flowfabric/sdk";

import type { Sample } from "../engine/figures.js";
import { insist } from "../engine/jobs.js";
import { job, withWorker, workerOn } from "./handlers.js";

const FRAME = "x".repeat(100);

/** @returns how long each took, where that is known of one */
type Write = (
  stream: ClaimedTask["stream"],
  frames: number,
) => Promise<readonly number[]>;

export const awaited: Write = async (stream, frames) => {
  const tookMs: number[] = [];
  for (let n = 0; n < frames; n++) {
    const startMs = performance.now();
    await stream.write(FRAME);
    tookMs.push(performance.now() - startMs);
  }
  return tookMs;
};

export const buffered: Write = async (stream, frames) => {
  for (let n = 0; n < frames; n++) {
    void stream.write(FRAME);
    await stream.ready;
  }
  await stream.flush();
  return [];
};

/** @param frames of each handler */
export async function writeFrames(
  backend: EngineBackend,
  write: Write,
  handlers: number,
  frames: number,
): Promise<Sample> {
  await using client = new Client({ backend });
  const begin: (() => void)[] = [];
  const tookMs: number[] = [];
  let startMs = 0;
  let endMs = 0;
  const worker = workerOn(backend, async (_input, task) => {
    // They begin together: how soon they are claimed is measured elsewhere.
    const begun = new Promise<void>((resolve) => begin.push(resolve));
    if (begin.length === handlers) {
      startMs = performance.now();
      for (const resolve of begin) resolve();
    }
    await begun;
    const took = await write(task.stream, frames);
    endMs = performance.now();
    tookMs.push(...took);
  });
  await withWorker(worker, async () => {
    const submitted = await Promise.all(
      Array.from({ length: handlers }, () => client.submit(job)),
    );
    for (const { executionId } of submitted) {
      const { kind } = await client.result({ executionId, timeoutMs: 600_000 });
      insist(kind === "completed", "a handler could not write");
    }
  });
  return {
    perSecond: (handlers * frames * 1_000) / (endMs - startMs),
    ...(tookMs.length > 0 ? { latenciesMs: tookMs } : {}),
  };
}
