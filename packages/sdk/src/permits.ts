/**
 * The one limit on concurrency: a permit is taken before work is asked for, owned by the task, and given
 * back exactly once.
 */

/** The right to hold one task. Releasing twice gives it back once. */
export class Permit {
  #pool: Permits | undefined;

  /** Only {@link Permits.take} makes them. */
  constructor(pool: Permits) {
    this.#pool = pool;
  }

  release(): void {
    const pool = this.#pool;
    this.#pool = undefined;
    pool?.giveBack();
  }
}

export class Permits {
  #free: number;
  readonly #waiting = new Set<() => void>();

  /** Runs at once on every release, before anyone who waits. */
  released: () => void = () => {};

  constructor(readonly size: number) {
    this.#free = size;
  }

  get free(): number {
    return this.#free;
  }

  /** As many as are free, at most `max`, without waiting. */
  take(max: number): Permit[] {
    const count = Math.max(0, Math.min(max, this.#free));
    this.#free -= count;
    return Array.from({ length: count }, () => new Permit(this));
  }

  /** For {@link Permit} only. */
  giveBack(): void {
    this.#free++;
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
          signal?.removeEventListener("abort", wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal?.addEventListener("abort", wake);
      });
      signal?.throwIfAborted();
    }
  }
}
