/**
 * How long does a suspended execution wait for its handler behind the signal it waits for? From the call that signals to the
 * first line of the resumed handler, through the SDK; the commits of both are in it.
 */
import { EventEmitter, on } from "node:events";

import type { EngineBackend } from "@flowfabric/core";
import { Client } from "@flowfabric/sdk";

import type { MeasuredBackend } from "../backends.js";
import type { Sample } from "../engine/figures.js";
import { insist } from "../engine/jobs.js";
import { hostClockMs, startProcess, untilIdle } from "../other-process.js";
import {
  job,
  waitingWorker,
  withWorker,
  type WaitingNews,
} from "./handlers.js";

export async function resumeInProcess(
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  const teller = new EventEmitter();
  const heard = on(teller, "news");
  const worker = waitingWorker(backend, (news) => teller.emit("news", news));
  const told = async () => ((await heard.next()).value as [WaitingNews])[0];
  return await withWorker(worker, () => signalEach(backend, count, told));
}

/** Signals here, waits in another process. */
export async function resumeAcrossProcesses(
  measured: MeasuredBackend,
  location: string,
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  await using other = startProcess<WaitingNews>(
    new URL("worker-process.js", import.meta.url),
    measured.name,
    location,
  );
  return await signalEach(backend, count, () => other.told());
}

const WARM_UP = 10;

async function signalEach(
  backend: EngineBackend,
  count: number,
  told: () => Promise<WaitingNews>,
): Promise<Sample> {
  await using client = new Client({ backend });
  const latenciesMs: number[] = [];
  for (let n = -WARM_UP; n < count; n++) {
    await client.submit(job);
    const suspended = await told();
    insist(suspended.kind === "suspended", "a handler did not suspend");
    await untilIdle();
    const startMs = hostClockMs();
    const answer = await client.signal(suspended.token, { name: "go" });
    insist(answer.kind === "triggeredResume", "a signal did not resume");
    const resumed = await told();
    insist(resumed.kind === "resumed", "a handler was not resumed");
    if (n >= 0) latenciesMs.push(resumed.atMs - startMs);
  }
  return { latenciesMs };
}
