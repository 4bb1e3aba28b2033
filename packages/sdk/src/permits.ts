/**
 * The one limit on concurrency: a permit is taken before work is asked for, owned by the task, and given
 * back exactly once. A task whose handler has ended may lend its place to one that waits; it still counts, as one claimed
 * ahead, until it gives back.
 */
import { onAbort } from "@flowfabric/core";

/** The right to hold one task. Releasing twice gives it back once. */
export class Permit {
  #pool: Permits | undefined;
  #isLent = false;

  /** Only {@link Permits.take} makes them. */
  constructor(pool: Permits) {
    this.#pool = pool;
  }

  /** The place is free at once, the task not gone yet. */
  lend(): void {
    if (this.#pool === undefined || this.#isLent) return;
    this.#isLent = true;
    this.#pool.lend();
  }

  release(): void {
    const pool = this.#pool;
    this.#pool = undefined;
    pool?.giveBack(this.#isLent);
  }
}

export class Permits {
  #free: number;
  #lent = 0;
  readonly #waiting = new Set<() => void>();

  /** Runs at once on every release, before anyone who waits. */
  released: () => void = () => {};

  constructor(readonly size: number) {
    this.#free = size;
  }

  get free(): number {
    return this.#free;
  }

  /** Tasks that have lent their place and still count. */
  get lent(): number {
    return this.#lent;
  }

  /** As many as are free, at most `max`, without waiting. */
  take(max: number): Permit[] {
    const count = Math.max(0, Math.min(max, this.#free));
    this.#free -= count;
    return Array.from({ length: count }, () => new Permit(this));
  }

  /** For {@link Permit} only. */
  lend(): void {
    this.#lent++;
    this.#free++;
  }

  /** For {@link Permit} only. */
  giveBack(wasLent: boolean): void {
    if (wasLent) this.#lent--;
    else this.#free++;
    this.released();
    for (const wake of this.#waiting) wake();
  }

  /** Resolves once one is free; it may be gone again when the caller looks. Rejects when `signal` aborts. */
  async waitForFree(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    while (this.#free === 0) {
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#waiting.delete(wake);
          unlink();
          resolve();
        };
        this.#waiting.add(wake);
        const unlink = onAbort(signal, wake);
      });
      signal?.throwIfAborted();
    }
  }
}
