/**
 * One subscription to completions for everyone who waits in a client. It only wakes: each waiter then reads
 * for itself, so a lost or late feed costs time and never an answer.
 */
import type { EngineBackend } from "@flowfabric/core";

import { describeError, type Logger } from "./logger.js";

/** The subscription outlives its last waiter this long, so that one result after another opens it once. */
const LINGER_MS = 5_000;
/** A feed that was lost is not asked for again before this, however many wait. */
const REOPEN_MS = 900;

interface Subscription {
  readonly closed: AbortController;
  /** Settles once completions from now on are delivered, or the attempt has failed. */
  readonly open: Promise<void>;
}

export class CompletionFeed {
  readonly #backend: EngineBackend;
  readonly #namespace: string;
  readonly #logger: Logger;
  readonly #waiters = new Map<string, Set<() => void>>();
  #subscription: Subscription | undefined;
  #linger: NodeJS.Timeout | undefined;
  #lostAt = -Infinity;

  constructor(backend: EngineBackend, namespace: string, logger: Logger) {
    this.#backend = backend;
    this.#namespace = namespace;
    this.#logger = logger;
  }

  /**
   * Calls `wake` on each end of this execution until `leave` is called, and once when ends from then on are sure to
   * be told: what ended before that is for the waiter to look up.
   */
  join(executionId: string, wake: () => void): { readonly leave: () => void } {
    clearTimeout(this.#linger);
    const wakes = this.#waiters.get(executionId) ?? new Set();
    wakes.add(wake);
    this.#waiters.set(executionId, wakes);
    this.#subscription ??= this.#subscribe();
    void this.#subscription.open.then(wake);
    return {
      leave: () => {
        wakes.delete(wake);
        if (wakes.size === 0 && this.#waiters.get(executionId) === wakes)
          this.#waiters.delete(executionId);
        if (this.#waiters.size === 0) this.#closeLater();
      },
    };
  }

  /** Opens the subscription again where it was lost; called by waiters at each of their re-reads. */
  reopen(): void {
    if (this.#waiters.size > 0 && performance.now() - this.#lostAt > REOPEN_MS)
      this.#subscription ??= this.#subscribe();
  }

  close(): void {
    clearTimeout(this.#linger);
    this.#subscription?.closed.abort();
    this.#subscription = undefined;
    for (const wakes of this.#waiters.values())
      for (const wake of wakes) wake();
  }

  #closeLater(): void {
    clearTimeout(this.#linger);
    this.#linger = setTimeout(() => {
      if (this.#waiters.size === 0) this.close();
    }, LINGER_MS);
    this.#linger.unref();
  }

  #subscribe(): Subscription {
    const closed = new AbortController();
    const opened = this.#backend.subscribeCompletion({
      filter: { namespace: this.#namespace },
      signal: closed.signal,
    });
    const subscription = {
      closed,
      open: opened.then(() => {}).catch(() => {}),
    };
    void this.#deliver(opened, closed.signal).then(() => {
      if (this.#subscription !== subscription) return;
      this.#subscription = undefined;
      this.#lostAt = performance.now();
    });
    return subscription;
  }

  async #deliver(
    opened: ReturnType<EngineBackend["subscribeCompletion"]>,
    closed: AbortSignal,
  ): Promise<void> {
    try {
      for await (const { executionId } of await opened)
        for (const wake of this.#waiters.get(executionId) ?? []) wake();
    } catch (error) {
      if (!closed.aborted)
        this.#logger.debug("completion feed lost, results are polled", {
          error: describeError(error),
        });
    }
  }
}
