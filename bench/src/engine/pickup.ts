/**
 * How long does new work wait for a worker that has nothing to do? From the call that submits to the moment the parked
 * claim has its answer, so the commits of both are in it.
 */
import type { EngineBackend } from "@flowfabric/core";

import type { MeasuredBackend } from "../backends.js";
import { hostClockMs, startProcess, untilIdle } from "../other-process.js";
import type { Sample } from "./figures.js";
import { claimOf, insist, jobOf, PAYLOAD_BYTES, payloadOf } from "./jobs.js";

export const PARK_MS = 10_000;

export async function pickupInProcess(
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  const job = jobOf(payloadOf(PAYLOAD_BYTES));
  const latenciesMs: number[] = [];
  for (let n = 0; n < count; n++) {
    const parked = backend.claimMany(claimOf(1, PARK_MS));
    await untilIdle();
    const startMs = hostClockMs();
    const submitted = backend.createExecution(job);
    const { claimed } = await parked;
    latenciesMs.push(hostClockMs() - startMs);
    await submitted;
    insist(claimed.length === 1, "a parked claim came back empty");
    await backend.complete({ handle: claimed[0]!.handle });
  }
  return { latenciesMs };
}

/** Submits here, claims in another process. */
export async function pickupAcrossProcesses(
  measured: MeasuredBackend,
  location: string,
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  const job = jobOf(payloadOf(PAYLOAD_BYTES));
  await using claimer = startProcess<PickupNews>(
    new URL("pickup-process.js", import.meta.url),
    measured.name,
    location,
  );
  const latenciesMs: number[] = [];
  for (let n = 0; n < count; n++) {
    insist(
      (await claimer.told()).kind === "parked",
      "the other process is no worker",
    );
    await untilIdle();
    const startMs = hostClockMs();
    await backend.createExecution(job);
    const answer = await claimer.told();
    insist(answer.kind === "claimed", "a parked claim came back empty");
    latenciesMs.push(answer.atMs - startMs);
  }
  return { latenciesMs };
}

/** What the claiming process tells. */
export interface PickupNews {
  readonly kind: "parked" | "claimed";
  readonly atMs: number;
}
