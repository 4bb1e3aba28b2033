/** How fast is new work written? */
import type { EngineBackend } from "@flowfabric/core";

import { inFlight } from "../in-flight.js";
import type { Sample } from "./figures.js";
import { IN_FLIGHT, jobOf, PAYLOAD_BYTES, payloadOf } from "./jobs.js";
import { whileWatchingStalls } from "./stalls.js";

const ITEMS_PER_CALL = 100;

export async function submitInFlight(
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  const job = jobOf(payloadOf(PAYLOAD_BYTES));
  const startMs = performance.now();
  const { answer: latenciesMs, stallMs } = await whileWatchingStalls(() =>
    inFlight(IN_FLIGHT, count, () => backend.createExecution(job)),
  );
  return {
    perSecond: (count / (performance.now() - startMs)) * 1_000,
    latenciesMs,
    stallMs,
  };
}

export async function submitMany(
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  const items = Array.from({ length: ITEMS_PER_CALL }, () =>
    jobOf(payloadOf(PAYLOAD_BYTES)),
  );
  const calls = Math.ceil(count / ITEMS_PER_CALL);
  const startMs = performance.now();
  const { answer: latenciesMs, stallMs } = await whileWatchingStalls(() =>
    inFlight(1, calls, () => backend.submitMany({ items })),
  );
  return {
    perSecond:
      ((calls * ITEMS_PER_CALL) / (performance.now() - startMs)) * 1_000,
    latenciesMs,
    stallMs,
  };
}
