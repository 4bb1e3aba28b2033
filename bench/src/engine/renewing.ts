/** How many leases can be kept alive? */
import type { EngineBackend } from "@flowfabric/core";

import { inFlight } from "../in-flight.js";
import type { Sample } from "./figures.js";
import {
  claimSome,
  fill,
  IN_FLIGHT,
  PAYLOAD_BYTES,
  payloadOf,
} from "./jobs.js";

export async function renewInFlight(
  backend: EngineBackend,
  count: number,
): Promise<Sample> {
  await fill(backend, IN_FLIGHT, payloadOf(PAYLOAD_BYTES));
  const claimed = await claimSome(backend, IN_FLIGHT);
  const startMs = performance.now();
  const latenciesMs = await inFlight(IN_FLIGHT, count, (index) =>
    backend.renew({ handle: claimed[index % claimed.length]!.handle }),
  );
  return {
    perSecond: (count / (performance.now() - startMs)) * 1_000,
    latenciesMs,
  };
}
