/**
 * Keeps a worker supplied: one claim at a time for the permits that are free, parked while there is nothing,
 * and otherwise riding along with the outcomes that free permits.
 */
import { setImmediate as endOfTurn } from "node:timers/promises";

import type { ClaimManyResult } from "@flowfabric/core";

import { isHopeless, isRetryable } from "./errors.js";
import { IdlePace } from "./idle-pace.js";
import { describeError } from "./logger.js";
import type { ClaimSource } from "./outbox.js";
import type { Arrival, ClaimRequest, Session } from "./session.js";
import { PARK_MS } from "./session.js";
import { jittered, sleep } from "./waiting.js";

const ERROR_PAUSE_MS = 100;
const ERROR_PAUSE_MS_MAX = 1_000;

export interface ClaimLoopHooks {
  /** How many more may be claimed now: free permits and room to prefetch. */
  room(): number;
  arrived(arrival: Arrival): void;
}

export class ClaimLoop implements ClaimSource {
  readonly #session: Session;
  readonly #hooks: ClaimLoopHooks;
  readonly #pace: IdlePace;
  /** Claims of unknown fate: repeated before anything new is asked for, so that their leases are not left to lapse. */
  readonly #unresolved: ClaimRequest[] = [];
  #stopped = false;
  /** Ends whatever the loop's own claim waits for. */
  #wait = new AbortController();
  #riding = 0;
  #errorPauseMs = ERROR_PAUSE_MS;
  /** Set while the loop waits for room: then, and only then, a claim may ride along with outcomes. */
  #wake: (() => void) | undefined;
  #landed: (() => void) | undefined;

  constructor(session: Session, hooks: ClaimLoopHooks) {
    this.#session = session;
    this.#hooks = hooks;
    this.#pace = new IdlePace(session.config);
  }

  /** Runs until stopped. @throws what no repeat can cure: configuration, authentication */
  async run(): Promise<void> {
    while (!this.#stopped) {
      const room = this.#hooks.room();
      if (room <= 0) await this.#roomChanged();
      else await this.#claim(room);
      // Handlers of what has come begin before the next claim is made ready.
      await endOfTurn();
    }
  }

  /** Resolves when no claim is under way with outcomes. */
  async ridesEnded(): Promise<void> {
    while (this.#riding > 0)
      await new Promise<void>((resolve) => (this.#landed = resolve));
  }

  /** No new claim; a parked one ends. */
  stop(): void {
    this.#stopped = true;
    this.#wait.abort();
    this.#wakeUp();
  }

  /** Permits or room to prefetch became free. */
  roomChanged(): void {
    if (this.#hooks.room() > 0) this.#wakeUp();
  }

  begin(count: number): ClaimRequest | undefined {
    if (this.#stopped || this.#wake === undefined) return undefined;
    const max = count + this.#hooks.room();
    if (max <= 0) return undefined;
    this.#riding++;
    return this.#unresolved.shift() ?? this.#session.newRequest(max);
  }

  input(request: ClaimRequest) {
    return this.#session.claimInput(request, 0);
  }

  arrived(request: ClaimRequest, answer: ClaimManyResult): void {
    if (answer.claimed.length > 0) this.#pace.foundWork();
    this.#hooks.arrived(this.#session.arrival(request, answer, false));
    this.#ridden();
  }

  failed(request: ClaimRequest, error: unknown): void {
    this.#keep(request, error);
    // The loop may be parked by now, because all there is was claimed by this very request.
    this.#wait.abort();
    this.#ridden();
  }

  async #claim(room: number): Promise<void> {
    const { signal } = (this.#wait = new AbortController());
    const { push, logger } = this.#session.config;
    const request = this.#unresolved.shift() ?? this.#session.newRequest(room);
    const startedAt = performance.now();
    try {
      const arrival = await this.#session.claim(
        request,
        push ? PARK_MS : 0,
        signal,
      );
      this.#errorPauseMs = ERROR_PAUSE_MS;
      if (arrival.claimed.length > 0) {
        this.#pace.foundWork();
        this.#hooks.arrived(arrival);
        return;
      }
      if (signal.aborted) return;
      await this.#pace.afterNothing(
        performance.now() - startedAt,
        signal,
        arrival.nextDueInMs,
      );
    } catch (error) {
      if (isHopeless(error)) throw error;
      logger.warn("claim failed, trying again", {
        error: describeError(error),
      });
      this.#keep(request, error);
      await sleep(jittered(this.#errorPauseMs), signal);
      this.#errorPauseMs = Math.min(this.#errorPauseMs * 2, ERROR_PAUSE_MS_MAX);
    }
  }

  #keep(request: ClaimRequest, error: unknown): void {
    if (!isRetryable(error)) return;
    request.repeat = true;
    this.#unresolved.push(request);
  }

  #ridden(): void {
    this.#riding--;
    this.#landed?.();
    this.#landed = undefined;
  }

  #roomChanged(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** At once, so that from here on the loop's own claim has the room and none rides along for it. */
  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}
