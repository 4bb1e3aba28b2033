/** Killing one worker at the worst moment: while it holds running work. */
import type { EngineBackend, ExecutionId } from "@flowfabric/core";
import { setTimeout as sleep } from "node:timers/promises";

import type { Crew, Member } from "./crew.js";

export interface Kill {
  readonly worker: string;
  readonly instanceId: string;
  readonly pid: number;
  readonly atMs: number;
  /** What it held; someone else has to finish it. */
  readonly held: readonly ExecutionId[];
}

const LOOK_AGAIN_MS = 5;

/** @returns nothing where `signal` aborted before any worker was caught with work in hand */
export async function killWhileWorking(
  crew: Crew,
  backend: EngineBackend,
  lane: string,
  signal: AbortSignal,
): Promise<Kill | undefined> {
  while (!signal.aborted) {
    const victim = await busiest(crew, backend, lane);
    if (victim !== undefined) {
      // Stopped first, so that it cannot finish its work between the look and the blow.
      const paused = pause(victim);
      const held = await heldBy(victim, backend, lane);
      if (held.length > 0 && !signal.aborted) {
        const atMs = Date.now();
        await crew.kill(victim.name);
        return {
          worker: victim.name,
          instanceId: victim.instanceId,
          pid: victim.pid,
          atMs,
          held: await heldBy(victim, backend, lane),
        };
      }
      if (paused) process.kill(victim.pid, "SIGCONT");
    }
    await sleep(LOOK_AGAIN_MS);
  }
  return undefined;
}

/** @returns false on systems that know no such signal; the blow then may hit an idle worker */
function pause({ pid }: Member): boolean {
  try {
    return process.kill(pid, "SIGSTOP");
  } catch {
    return false;
  }
}

async function busiest(
  crew: Crew,
  backend: EngineBackend,
  lane: string,
): Promise<Member | undefined> {
  const holders = await holdersIn(backend, lane);
  const load = (member: Member) =>
    [...holders.values()].filter((id) => id === member.instanceId).length;
  const [busy] = crew.living
    .filter((member) => load(member) > 0)
    .sort((a, b) => load(b) - load(a));
  return busy;
}

async function heldBy(
  member: Member,
  backend: EngineBackend,
  lane: string,
): Promise<ExecutionId[]> {
  return [...(await holdersIn(backend, lane))]
    .filter(([, holder]) => holder === member.instanceId)
    .map(([executionId]) => executionId);
}

/** Who holds what, as the store has it. */
async function holdersIn(
  backend: EngineBackend,
  lane: string,
): Promise<Map<ExecutionId, string>> {
  const page = await backend.listExecutions({
    lanes: [lane],
    publicStates: ["active"],
  });
  // All at once: with one after the other, the work of a busy machine may be over before the last is read.
  const snapshots = await Promise.all(
    page.executions.map((executionId) =>
      backend.describeExecution({ executionId }),
    ),
  );
  const holders = new Map<ExecutionId, string>();
  for (const snapshot of snapshots)
    if (snapshot?.publicState === "active" && snapshot.currentLease)
      holders.set(snapshot.executionId, snapshot.currentLease.workerInstanceId);
  return holders;
}
