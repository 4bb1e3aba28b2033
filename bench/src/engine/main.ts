/**
 * How fast is the engine itself on each store, how soon is new work picked up, and how much room does it take?
 *
 * Straight through the backend, without the SDK. Each round of each benchmark has a new store; a short round that does not
 * count goes first, so that what is measured is compiled code.
 */
import type { EngineBackend } from "@flowfabric/core";

import { measuring, withStore, type Benchmark } from "../benchmarks.js";
import { claimThenComplete, fused, oneByOne } from "./claiming.js";
import type { Sample } from "./figures.js";
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

const BENCHMARKS: readonly Benchmark<EngineScale>[] = [
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

export const measureEngine = measuring(BENCHMARKS);

function onNewStore(
  name: string,
  measure: (backend: EngineBackend, count: number) => Promise<Sample>,
): Benchmark<EngineScale> {
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

function bytesPer(name: string, payloadBytes: number): Benchmark<EngineScale> {
  return {
    name,
    run: ({ measured, directory }, { jobs }) =>
      bytesPerFinished(measured, directory, payloadBytes, jobs),
  };
}
