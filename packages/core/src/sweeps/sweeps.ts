/**
 * Background maintenance for whoever wants it tidier than workers alone keep it: the same portions that claims
 * run, on a clock of their own. Any number of these may run at once; nothing depends on them.
 */
import { onAbort } from "../aborts.js";
import type { EngineBackend } from "../backend.js";
import { SWEEPS, type SweepName } from "../operations/maintenance.js";

/** Milliseconds between portions while a sweep finds nothing; a full portion is followed at once. */
export const SWEEP_INTERVALS_MS: { readonly [N in SweepName]: number } = {
  delayed_promoter: 750,
  reclaim_driver: 1_000,
  lease_expiry: 1_500,
  attempt_timeout: 2_000,
  suspension_timeout: 2_000,
  execution_deadline: 5_000,
  pending_wp_expiry: 5_000,
  unblock: 5_000,
  worker_registry_ttl_sweep: 30_000,
  index_reconciler: 45_000,
  retention_trimmer: 60_000,
  event_trimmer: 60_000,
};

/** Full portions of one sweep before the next one gets its turn. */
const PORTIONS_PER_TURN = 10;

export interface SweepsOptions {
  readonly backend: EngineBackend;
  readonly names?: readonly SweepName[];
  readonly limit?: number;
  readonly intervalsMs?: Partial<Record<SweepName, number>>;
  /** Told of a failed portion; the sweep goes on at its next turn. */
  readonly onError?: (error: unknown, name: SweepName) => void;
}

/** Starts the loops; disposing it ends them after the portion in flight. */
export function startSweeps(options: SweepsOptions): AsyncDisposable {
  const stopped = new AbortController();
  const loops = (options.names ?? SWEEPS).map((name) =>
    runLoop(name, options, stopped.signal),
  );
  return {
    async [Symbol.asyncDispose]() {
      stopped.abort();
      await Promise.all(loops);
    },
  };
}

async function runLoop(
  name: SweepName,
  options: SweepsOptions,
  signal: AbortSignal,
): Promise<void> {
  const intervalMs = options.intervalsMs?.[name] ?? SWEEP_INTERVALS_MS[name];
  while (!signal.aborted) {
    try {
      for (
        let portion = 0;
        portion < PORTIONS_PER_TURN && !signal.aborted;
        portion++
      ) {
        const { more } = await options.backend.sweep({
          name,
          ...(options.limit === undefined ? {} : { limit: options.limit }),
        });
        if (!more) break;
      }
    } catch (error) {
      options.onError?.(error, name);
    }
    // Several processes that start together drift apart.
    await sleep(intervalMs * (0.9 + 0.2 * Math.random()), signal);
  }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      unlink();
      resolve();
    };
    const timer = setTimeout(done, ms);
    timer.unref();
    const unlink = onAbort(signal, done);
  });
}
