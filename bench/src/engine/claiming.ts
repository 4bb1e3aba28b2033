/** How fast does work that waits get claimed and completed? Three ways to ask for it, the same work. */
import type { EngineBackend } from "@flowfabric/core";

import { inFlight } from "../in-flight.js";
import type { Sample } from "./figures.js";
import {
  claimOf,
  claimSome,
  fill,
  IN_FLIGHT,
  insist,
  PAYLOAD_BYTES,
  payloadOf,
} from "./jobs.js";
import { whileWatchingStalls } from "./stalls.js";

/** A claim for 16, then 16 completions at once. A latency is that of one claim or one completion. */
export async function claimThenComplete(
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  return await measured(backend, count, async (latenciesMs) => {
    for (let done = 0; done < count;) {
      const startMs = performance.now();
      const claimed = await claimSome(backend, IN_FLIGHT);
      latenciesMs.push(performance.now() - startMs);
      latenciesMs.push(
        ...(await inFlight(IN_FLIGHT, claimed.length, (index) =>
          backend.complete({ handle: claimed[index]!.handle }),
        )),
      );
      done += claimed.length;
    }
  });
}

/** What a worker with 16 permits does: the outcomes of 16 and the claim of the next 16 in one trip. */
export async function fused(
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  return await measured(backend, count, async (latenciesMs) => {
    let claimed = await claimSome(backend, IN_FLIGHT);
    for (let done = 0; done < count;) {
      const items = claimed.map(({ handle }) => ({ handle }));
      const startMs = performance.now();
      const answer = await backend.completeAndClaim({
        items,
        claim: claimOf(IN_FLIGHT),
      });
      latenciesMs.push(performance.now() - startMs);
      insist(
        answer.results.every(({ kind }) => kind === "completed"),
        "a completion was refused",
      );
      done += items.length;
      claimed = answer.claimed;
      insist(claimed.length > 0 || done >= count, `${done} of ${count} done`);
    }
  });
}

/** One permit, two trips for each: nothing to share a commit with. */
export async function oneByOne(
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  return await measured(backend, count, async (latenciesMs) => {
    for (let done = 0; done < count; done++) {
      const startMs = performance.now();
      const [task] = await claimSome(backend, 1);
      await backend.complete({ handle: task!.handle });
      latenciesMs.push(performance.now() - startMs);
    }
  });
}

async function measured(
  backend: EngineBackend,
  count: number,
  work: (latenciesMs: number[]) => Promise<void>,
): Promise<Sample> {
  await fill(backend, count, payloadOf(PAYLOAD_BYTES));
  const latenciesMs: number[] = [];
  const startMs = performance.now();
  const { stallMs } = await whileWatchingStalls(() => work(latenciesMs));
  return {
    perSecond: (count / (performance.now() - startMs)) * 1_000,
    latenciesMs,
    stallMs,
  };
}
