/**
 * How fast is the engine itself on each store, how soon is new work picked up, and how much room does it take?
 *
 * Straight through the backend, without the SDK. Each round of each benchmark has a new store; a short round that does not
 * count goes first, so that what is measured is compiled code.
 */
import type { EngineBackend } from "@flowfabric/core";

import type { MeasuredBackend } from "../backends.js";
import { claimThenComplete, fused, oneByOne } from "./claiming.js";
import { figureOf, type Figure, type Sample } from "./figures.js";
import { pickupAcrossProcesses, pickupInProcess } from "./pickup.js";
import { renewInFlight } from "./renewing.js";
import { bytesPerFinished } from "./storage.js";
import { submitInFlight, submitMany } from "./submitting.js";

export interface EngineScale {
  readonly rounds: number;
  readonly jobs: number;
  readonly warmUpJobs: number;
  readonly pickups: number;
}

export interface EngineFigures {
  readonly backend: string;
  readonly figures: readonly Figure[];
}

interface Benchmark {
  readonly name: string;
  run(place: Place, scale: EngineScale): Promise<Sample>;
}

interface Place {
  readonly measured: MeasuredBackend;
  readonly directory: string;
}

const BENCHMARKS: readonly Benchmark[] = [
  onNewStore("submit, 16 in flight", submitInFlight),
  onNewStore("submitMany, 100 a call", submitMany),
  onNewStore("claim 16, then 16 completes", claimThenComplete),
  onNewStore("completeAndClaim of 16", fused),
  // A quarter of the jobs: they wait for a commit each, at every step.
  onNewStore("claim, complete one by one", (backend, count) =>
    oneByOne(backend, Math.ceil(count / 4)),
  ),
  onNewStore("renew, 16 in flight", renewInFlight),
  {
    name: "idle pickup, same process",
    run: ({ measured, directory }, { pickups }) =>
      withStore(measured, directory, (backend) =>
        pickupInProcess(backend, pickups),
      ),
  },
  {
    name: "idle pickup, another process",
    run: ({ measured, directory }, { pickups }) =>
      withStore(measured, directory, (backend, location) =>
        pickupAcrossProcesses(measured, location, backend, pickups),
      ),
  },
  bytesPer("finished execution, 4 KiB payload", 4_096),
  bytesPer("finished execution, 100 byte payload", 100),
];

export async function measureEngine(
  measured: MeasuredBackend,
  directory: string,
  scale: EngineScale,
  report: (figure: Figure) => void,
): Promise<EngineFigures> {
  const figures: Figure[] = [];
  for (const benchmark of BENCHMARKS) {
    const rounds: Sample[] = [];
    for (let round = 0; round < scale.rounds; round++)
      rounds.push(await benchmark.run({ measured, directory }, scale));
    const figure = figureOf(benchmark.name, rounds);
    report(figure);
    figures.push(figure);
  }
  return { backend: measured.name, figures };
}

function onNewStore(
  name: string,
  measure: (backend: EngineBackend, count: number) => Promise<Sample>,
): Benchmark {
  return {
    name,
    run: async ({ measured, directory }, { jobs, warmUpJobs }) => {
      await withStore(measured, directory, (backend) =>
        measure(backend, warmUpJobs),
      );
      return await withStore(measured, directory, (backend) =>
        measure(backend, jobs),
      );
    },
  };
}

function bytesPer(name: string, payloadBytes: number): Benchmark {
  return {
    name,
    run: ({ measured, directory }, { jobs }) =>
      bytesPerFinished(measured, directory, payloadBytes, jobs),
  };
}

async function withStore<Answer>(
  measured: MeasuredBackend,
  directory: string,
  use: (backend: EngineBackend, location: string) => Promise<Answer>,
): Promise<Answer> {
  const location = await measured.create(directory);
  try {
    await using backend = await measured.open(location);
    return await use(backend, location);
  } finally {
    await measured.remove(location);
  }
}
