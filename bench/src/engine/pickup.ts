/**
 * How long does new work wait for a worker that has nothing to do? From the call that submits to the moment the parked
 * claim has its answer, so the commits of both are in it.
 */
import { fork, type ChildProcess } from "node:child_process";
import { on, once } from "node:events";
import { fileURLToPath } from "node:url";

import type { EngineBackend } from "@flowfabric/core";

import type { MeasuredBackend } from "../backends.js";
import type { Sample } from "./figures.js";
import { claimOf, insist, jobOf, PAYLOAD_BYTES, payloadOf } from "./jobs.js";

export const PARK_MS = 10_000;

/** A clock that all processes of one host share. */
export function hostClockMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

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
  const program = fileURLToPath(new URL("pickup-process.js", import.meta.url));
  const claimer = fork(program, [measured.name, location]);
  const news = on(claimer, "message", { close: ["exit"] });
  const told = async () => {
    const { value, done } = await news.next();
    if (done === true) throw new Error("The claiming process ended.");
    return (value as [PickupNews])[0];
  };
  try {
    const latenciesMs: number[] = [];
    for (let n = 0; n < count; n++) {
      insist(
        (await told()).kind === "parked",
        "the other process is no worker",
      );
      await untilIdle();
      const startMs = hostClockMs();
      await backend.createExecution(job);
      const answer = await told();
      insist(answer.kind === "claimed", "a parked claim came back empty");
      latenciesMs.push(answer.atMs - startMs);
    }
    return { latenciesMs };
  } finally {
    await ended(claimer);
  }
}

/** What the claiming process tells. */
export interface PickupNews {
  readonly kind: "parked" | "claimed";
  readonly atMs: number;
}

/** Irregular, so that no rhythm of ours falls in with one of the store's. */
async function untilIdle(): Promise<void> {
  const waitMs = 15 + Math.random() * 15;
  await new Promise((resolve) => setTimeout(resolve, waitMs));
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, "exit");
  child.disconnect();
  await exit;
}
