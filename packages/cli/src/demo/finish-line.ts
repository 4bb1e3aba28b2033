/** Waits until every awaited execution has ended, told by the completion feed. */
import type { CompletionEvent, ExecutionId } from "@flowfabric/core";

import { RefusedError } from "../errors.js";
import { formatDuration } from "../output.js";

/** Nobody's retries or leases take that long; something is wrong. */
const STALLED_MS = 60_000;

export class FinishLine {
  readonly #awaited: ReadonlySet<ExecutionId>;
  readonly #arrivals = new Map<ExecutionId, number>();
  readonly #onArrival: (done: number) => void;

  constructor(
    awaited: readonly ExecutionId[],
    onArrival: (done: number) => void,
  ) {
    this.#awaited = new Set(awaited);
    this.#onArrival = onArrival;
  }

  /** Ends the feed when everyone has arrived. @throws what `signal` aborts with, or that nothing moves any more */
  async follow(
    feed: AsyncIterable<CompletionEvent>,
    signal: AbortSignal,
  ): Promise<void> {
    if (this.#awaited.size === 0) return;
    const events = feed[Symbol.asyncIterator]();
    try {
      while (this.#arrivals.size < this.#awaited.size) {
        const next = await this.#within(events.next(), signal);
        if (next.done === true)
          throw new RefusedError("the store closed its completion feed");
        const { executionId } = next.value;
        if (!this.#awaited.has(executionId)) continue;
        const before = this.#arrivals.get(executionId) ?? 0;
        this.#arrivals.set(executionId, before + 1);
        this.#onArrival(this.#arrivals.size);
      }
    } finally {
      // Not awaited: where the feed hangs, so would its end.
      void events.return?.();
    }
  }

  async #within<T>(next: Promise<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    let settle = (): void => {};
    const interrupted = new Promise<never>((_resolve, reject) => {
      const onAbort = () => reject(signal.reason as Error);
      const timer = setTimeout(() => {
        const open = this.#awaited.size - this.#arrivals.size;
        reject(
          new RefusedError(
            `nothing ended for ${formatDuration(STALLED_MS)} and ${open} executions are open; see flowfabric list`,
          ),
        );
      }, STALLED_MS);
      signal.addEventListener("abort", onAbort);
      settle = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
      };
    });
    try {
      return await Promise.race([next, interrupted]);
    } finally {
      settle();
    }
  }
}
