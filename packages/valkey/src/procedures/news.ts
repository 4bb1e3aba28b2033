/** Waiting for news, as feeds, tails and watches do. They come with every write; a look gathers those of a short span. */
import { setTimeout as pause } from "node:timers/promises";

import type { Ticket, Wakeups } from "../wakeups.js";

const PACE_MS = 5;

export class News {
  readonly #wakeups: Wakeups;
  #ticket: Ticket | undefined;
  #lookedAtMs = -Infinity;

  constructor(wakeups: Wakeups) {
    this.#wakeups = wakeups;
  }

  /** Said before looking: what happens from here on ends the next wait. */
  look(): void {
    this.#ticket = this.#wakeups.ticket("news");
    this.#lookedAtMs = performance.now();
  }

  /** Until something may have happened since the look, the time is over, the signal aborts or the store closes. */
  async wait(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    await this.#wakeups.wait(this.#ticket!, timeoutMs, signal);
    const earlyMs = this.#lookedAtMs + PACE_MS - performance.now();
    if (earlyMs > 0 && signal?.aborted !== true && !this.#wakeups.closed)
      await pause(earlyMs);
  }
}
