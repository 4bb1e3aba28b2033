/**
 * The housekeeping nobody waits for: one bounded portion of one sweep at a time, in turn. A worker with free time
 * does it, so that a store stays tidy without a process of its own for that.
 */
import type { EngineBackend, SweepName } from "@flowfabric/core";

import { describeError, type Logger } from "./logger.js";
import { sleep } from "./waiting.js";

/** First what a starting worker may set free. Everything else that time brings about, claims do themselves. */
const ROTATION = [
  "unblock",
  "worker_registry_ttl_sweep",
  "retention_trimmer",
  "event_trimmer",
] as const satisfies readonly SweepName[];

const PERIOD_MS = 1_000;
/** While nothing is to be done and no work goes on, portions grow rarer up to this. */
const PERIOD_MS_MAX = 20_000;

/** Runs portions until `stopped` aborts. Errors are logged, and nothing else comes of them. */
export async function runMaintenance(
  backend: EngineBackend,
  logger: Logger,
  isBusy: () => boolean,
  stopped: AbortSignal,
): Promise<void> {
  let pauseMs = PERIOD_MS;
  for (let turn = 0; !stopped.aborted; turn++) {
    const name = ROTATION[turn % ROTATION.length]!;
    let worked = false;
    try {
      const { processed, more } = await backend.sweep({ name });
      worked = processed > 0 || more;
    } catch (error) {
      logger.warn("maintenance portion failed", {
        sweep: name,
        error: describeError(error),
      });
    }
    const round = turn % ROTATION.length === ROTATION.length - 1;
    if (worked || isBusy()) pauseMs = PERIOD_MS;
    else if (round) pauseMs = Math.min(pauseMs * 2, PERIOD_MS_MAX);
    await sleep(pauseMs, stopped);
  }
}
