/**
 * Keeps one lease alive. Never a burst after a stall, never two calls in flight, and a call that hangs counts
 * as failed. Ends for good when the engine says that the lease is gone.
 */
import { engineError, stopsRenewal } from "@flowfabric/core";

import { findEngineError } from "./errors.js";

/** A third of the lease, at least 1 ms: two renewals may fail before the lease is in danger. */
export function renewalPeriodMs(leaseTtlMs: number): number {
  return Math.max(1, Math.floor(leaseTtlMs / 3));
}

/** This many failures in a row make a lease unhealthy. */
export const UNHEALTHY_FAILURES = 3;

export interface RenewalHooks {
  /** Sends one renewal. */
  renew(): Promise<unknown>;
  /** A renewal failed and will be tried again; `failures` in a row, this one included. */
  failed(error: unknown, failures: number): void;
  /** The engine says that the lease is gone; no renewal follows. */
  ended(error: unknown): void;
  /** No renewal got through for a whole lease. Renewals go on: clocks may differ, and the engine decides. */
  expired(): void;
  /** One got through after {@link RenewalHooks.expired}. */
  recovered(): void;
}

interface Call {
  readonly startedAt: number;
  answer: Promise<void>;
}

export class Renewal {
  readonly #hooks: RenewalHooks;
  readonly #ttlMs: number;
  readonly #periodMs: number;
  #failures = 0;
  #stopped = false;
  #expired = false;
  /** The call whose answer is awaited; one that hung for a period is given up and no longer stands here. */
  #inFlight: Call | undefined;
  #tickAt: number;
  #tickTimer: NodeJS.Timeout | undefined;
  /** Monotonic; on it all that is known is that the lease may have lapsed. */
  #deadline: number;
  #deadlineTimer: NodeJS.Timeout | undefined;

  /** @param acquiredAt when the lease began at the earliest, by `performance.now()` */
  constructor(leaseTtlMs: number, acquiredAt: number, hooks: RenewalHooks) {
    this.#hooks = hooks;
    this.#ttlMs = leaseTtlMs;
    this.#periodMs = renewalPeriodMs(leaseTtlMs);
    this.#tickAt = acquiredAt + this.#periodMs;
    this.#deadline = acquiredAt + leaseTtlMs;
    this.#armTick();
  }

  get consecutiveFailures(): number {
    return this.#failures;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#tickTimer);
    clearTimeout(this.#deadlineTimer);
  }

  /** One renewal out of turn; joins the one in flight. Rejects as the call does; the same rules follow from it. */
  now(): Promise<void> {
    if (this.#inFlight !== undefined) return this.#inFlight.answer;
    const call: Call = {
      startedAt: performance.now(),
      answer: Promise.resolve(),
    };
    this.#inFlight = call;
    call.answer = this.#send(call);
    return call.answer;
  }

  #armTick(): void {
    const timer = setTimeout(
      () => this.#tick(),
      Math.max(0, this.#tickAt - performance.now()),
    );
    timer.unref();
    this.#tickTimer = timer;
  }

  #tick(): void {
    // The deadline is two periods away at least: most tasks have ended before it needs a timer.
    if (this.#deadlineTimer === undefined) this.#armDeadline();
    const now = performance.now();
    const late = now - this.#tickAt > this.#periodMs / 2;
    // From now on, so that ticks missed in a stall are skipped and not made up for.
    this.#tickAt = (late ? now : this.#tickAt) + this.#periodMs;
    this.#armTick();
    if (this.#inFlight !== undefined) {
      // After a stall the reply may be there and not read yet: only a call that had its whole period hangs.
      if (late) return;
      const elapsedMs = Math.round(now - this.#inFlight.startedAt);
      this.#inFlight = undefined;
      this.#fail(engineError("timeout", { op: "renew", elapsedMs }));
    }
    this.now().catch(() => {
      // Counted and reported where the answer came in.
    });
  }

  async #send(call: Call): Promise<void> {
    try {
      await this.#hooks.renew();
    } catch (error) {
      this.#refused(call, error);
      throw error;
    }
    this.#succeeded(call);
  }

  #succeeded(call: Call): void {
    if (this.#inFlight === call) this.#inFlight = undefined;
    if (this.#stopped) return;
    this.#failures = 0;
    this.#deadline = Math.max(this.#deadline, call.startedAt + this.#ttlMs);
    if (this.#expired) this.#hooks.recovered();
    else this.#armDeadline();
  }

  #refused(call: Call, error: unknown): void {
    const current = this.#inFlight === call;
    if (current) this.#inFlight = undefined;
    if (this.#stopped) return;
    if (stopsRenewal(findEngineError(error))) {
      this.#failures++;
      this.stop();
      this.#hooks.ended(error);
    } else if (current) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#failures++;
    this.#hooks.failed(error, this.#failures);
  }

  #armDeadline(): void {
    clearTimeout(this.#deadlineTimer);
    const timer = setTimeout(
      () => {
        if (performance.now() < this.#deadline) return this.#armDeadline();
        this.#expired = true;
        this.#hooks.expired();
      },
      Math.max(0, this.#deadline - performance.now()),
    );
    timer.unref();
    this.#deadlineTimer = timer;
  }
}
