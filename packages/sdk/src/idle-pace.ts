/** How long to sleep between claims that bring nothing. */
import { sleep } from "./waiting.js";
import type { WorkerConfig } from "./worker-config.js";

const START_MS = 50;

export class IdlePace {
  readonly #push: boolean;
  readonly #longestMs: number;
  #nextMs: number;

  constructor(config: Pick<WorkerConfig, "push" | "claimPollIntervalMs">) {
    this.#push = config.push;
    this.#longestMs = config.claimPollIntervalMs;
    this.#nextMs = Math.min(START_MS, this.#longestMs);
  }

  foundWork(): void {
    this.#nextMs = Math.min(START_MS, this.#longestMs);
  }

  /**
   * Sleeps 50 ms, then twice as long each time up to the poll interval, and not past `nextDueInMs`. A claim that
   * parked has waited already; one that should have parked and came back at once has not, and must not spin.
   */
  async afterNothing(
    tookMs: number,
    signal: AbortSignal | undefined,
    nextDueInMs = Infinity,
  ): Promise<void> {
    if (this.#push && tookMs >= START_MS) {
      this.foundWork();
      return;
    }
    // Due already and not offered: something else is in the way, so the pace stays.
    const ms = Math.min(this.#nextMs, nextDueInMs > 0 ? nextDueInMs : Infinity);
    this.#nextMs = Math.min(this.#nextMs * 2, this.#longestMs);
    await sleep(ms, signal);
  }
}
