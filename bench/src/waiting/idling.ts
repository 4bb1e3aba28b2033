/** What does a store have to do for an idle worker, with nothing there and with many that wait for signals? */
import {
  newSuspensionId,
  newWaitpointId,
  type EngineBackend,
} from "@flowfabric/core";

import type { CountedBackend } from "../backends.js";
import type { Sample } from "../engine/figures.js";
import { claimSome, fill, IN_FLIGHT, payloadOf } from "../engine/jobs.js";
import { inFlight } from "../in-flight.js";
import { withWorker, workerOn } from "./handlers.js";

const DAY_MS = 86_400_000;
const CLAIMED_AT_ONCE = 100;

export async function idle(
  { backend, asked }: CountedBackend,
  suspended: number,
  windowMs: number,
): Promise<Sample> {
  await suspendMany(backend, suspended);
  const worker = workerOn(backend, () => undefined);
  return await withWorker(worker, async () => {
    // What starting, and filling the store, leave to be done is not idle load.
    await pause(windowMs / 2);
    const before = { asked: await asked?.(), cpu: process.cpuUsage() };
    await pause(windowMs);
    const { user, system } = process.cpuUsage(before.cpu);
    const after = await asked?.();
    return {
      cpuShare: (user + system) / 1_000 / windowMs,
      ...(before.asked === undefined || after === undefined
        ? {}
        : { perSecond: ((after - before.asked) * 1_000) / windowMs }),
    };
  });
}

async function suspendMany(
  backend: EngineBackend,
  count: number,
): Promise<void> {
  await backend.seedWaitpointHmacSecret({
    kid: "bench",
    secretHex: "0f".repeat(32),
  });
  await fill(backend, count, payloadOf(100));
  for (let left = count; left > 0;) {
    const claimed = await claimSome(backend, Math.min(CLAIMED_AT_ONCE, left));
    left -= claimed.length;
    const timeoutAtMs = (await backend.serverTimeMs()) + DAY_MS;
    await inFlight(IN_FLIGHT, claimed.length, (index) =>
      backend.suspend({
        handle: claimed[index]!.handle,
        suspensionId: newSuspensionId(),
        waitpoints: [
          { kind: "fresh", waitpointId: newWaitpointId(), waitpointKey: "go" },
        ],
        resumeCondition: {
          kind: "single",
          waitpointKey: "go",
          matcher: { kind: "wildcard" },
        },
        reasonCode: "waiting_for_signal",
        timeoutAtMs,
      }),
    );
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
