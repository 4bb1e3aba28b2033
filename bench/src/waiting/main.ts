/**
 * How fast is what waits: suspended executions behind their signal, readers behind a frame, and the frames of handlers? And
 * what does waiting cost a store meanwhile?
 *
 * Through the SDK, as its users do it. Each round has a new store.
 */
import type { EngineBackend } from "@flowfabric/core";

import {
  measuring,
  withStore,
  type Benchmark,
  type Place,
} from "../benchmarks.js";
import type { Sample } from "../engine/figures.js";
import { awaited, buffered, writeFrames } from "./frames.js";
import { idle } from "./idling.js";
import { resumeAcrossProcesses, resumeInProcess } from "./resuming.js";
import { tailAcrossProcesses } from "./tailing.js";

export interface WaitingScale {
  readonly rounds: number;
  readonly resumes: number;
  /** Of one handler that awaits each; those that buffer write ten times as many. */
  readonly frames: number;
  readonly tailedFrames: number;
  readonly suspended: number;
  readonly idleWindowMs: number;
}

const HANDLERS = 16;
const PARKED_TAILS = 1_000;

const BENCHMARKS: readonly Benchmark<WaitingScale>[] = [
  {
    name: "signal to resumed handler, same process",
    run: onStore((backend, { resumes }) => resumeInProcess(backend, resumes)),
  },
  {
    name: "signal to resumed handler, another process",
    run: ({ measured, directory }, { resumes }) =>
      withStore(measured, directory, (backend, location) =>
        resumeAcrossProcesses(measured, location, backend, resumes),
      ),
  },
  {
    name: "frames, 1 handler, each awaited",
    run: onStore((backend, { frames }) =>
      writeFrames(backend, awaited, 1, frames),
    ),
  },
  {
    name: "frames, 1 handler, buffered",
    run: onStore((backend, { frames }) =>
      writeFrames(backend, buffered, 1, frames * 10),
    ),
  },
  {
    name: `frames, ${HANDLERS} handlers, each awaited`,
    run: onStore((backend, { frames }) =>
      writeFrames(backend, awaited, HANDLERS, Math.ceil(frames / 4)),
    ),
  },
  {
    name: `frames, ${HANDLERS} handlers, buffered`,
    run: onStore((backend, { frames }) =>
      writeFrames(backend, buffered, HANDLERS, frames * 2),
    ),
  },
  tailing("append to reader, another process", 0),
  tailing(
    `append to reader, ${PARKED_TAILS.toLocaleString("en")} tails beside`,
    PARKED_TAILS,
  ),
  idling("idle worker, nothing suspended", () => 0),
  idling("idle worker, many suspended", ({ suspended }) => suspended),
];

export const measureWaiting = measuring(BENCHMARKS);

function onStore(
  measure: (backend: EngineBackend, scale: WaitingScale) => Promise<Sample>,
): Benchmark<WaitingScale>["run"] {
  return ({ measured, directory }: Place, scale: WaitingScale) =>
    withStore(measured, directory, (backend) => measure(backend, scale));
}

function tailing(name: string, parked: number): Benchmark<WaitingScale> {
  return {
    name,
    run: ({ measured, directory }, { tailedFrames }) =>
      withStore(measured, directory, (backend, location) =>
        tailAcrossProcesses(measured, location, backend, tailedFrames, parked),
      ),
  };
}

function idling(
  name: string,
  suspended: (scale: WaitingScale) => number,
): Benchmark<WaitingScale> {
  return {
    name,
    async run({ measured, directory }, scale) {
      const location = await measured.create(directory);
      try {
        await using counted = await measured.openCounted(location);
        return await idle(counted, suspended(scale), scale.idleWindowMs);
      } finally {
        await measured.remove(location);
      }
    },
  };
}
