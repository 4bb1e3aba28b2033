/**
 * One subscription to completions for everyone who waits in a client. It only wakes: each waiter then reads
 * for itself, so a lost or late feed costs time and never an answer.
 */
import type { EngineBackend } from "@flowfabric/core";

import { describeError, type Logger } from "./logger.js";

/** The subscription outlives its last waiter this long, so that one result after another opens it once. */
const LINGER_MS = 5_000;

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

  constructor(backend: EngineBackend, namespace: string, logger: Logger) {
    this.#backend = backend;
    this.#namespace = namespace;
    this.#logger = logger;
  }

  /** Calls `wake` on each end of this execution from the moment the promise resolves until `leave` is called. */
  async join(executionId: string, wake: () => void): Promise<() => void> {
    clearTimeout(this.#linger);
    const wakes = this.#waiters.get(executionId) ?? new Set();
    wakes.add(wake);
    this.#waiters.set(executionId, wakes);
    this.#subscription ??= this.#subscribe();
    await this.#subscription.open;
    return () => {
      wakes.delete(wake);
      if (wakes.size === 0 && this.#waiters.get(executionId) === wakes)
        this.#waiters.delete(executionId);
      if (this.#waiters.size === 0) this.#closeLater();
    };
  }

  /** Opens the subscription again where it was lost; called by waiters at each of their re-reads. */
  reopen(): void {
    if (this.#waiters.size > 0) this.#subscription ??= this.#subscribe();
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
      if (this.#subscription === subscription) this.#subscription = undefined;
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
