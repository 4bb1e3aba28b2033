/**
 * How waiting calls hear of change: at once from this process, and by LISTEN on a connection of its own from others. A
 * process that waits says so in the table of waiters, looks once more and parks; writers notify with their commit, and
 * only where somebody waits. A ring is a hint to look again. While the listening connection is broken, waiters look every
 * second instead.
 */
import { engineError, SAFETY_POLL_MS } from "@flowfabric/core";
import pg from "pg";

import { NEWS, type Database, type Session } from "./db.js";
import { idleLimits, limitIdleTime } from "./idle-sessions.js";

/** What a waiter waits for: new work on lanes, or any news at all. */
export type Interest = { readonly lanes: readonly string[] } | "news";

/** The state of change when a waiter began to look. */
export interface Ticket {
  readonly interest: Interest;
  readonly rings: number;
}

interface Waiter {
  readonly interest: Interest;
  /** When it looks again by itself, by the process's own clock. */
  readonly looksAtMs: number;
  readonly wake: () => void;
}

/** How long a process counts as waiting after it last said so, and when it says so again. */
const WAITING_MS = 60_000;
const SAY_AGAIN_MS = 20_000;
/** Whoever began to write before a process said that it waits does not know yet: it looks again after as long. */
const FIRST_LOOK_MS = 100;
/** Even a well-heard waiter looks this often. */
const LOOK_MS_MAX = 5_000;
/** Of the time after which a connection counts as lost: asked after a third of it, given up after half. */
const KEEPALIVE_SHARE = 1 / 3;
const KEEPALIVE_TIMEOUT_SHARE = 1 / 6;
const RECONNECT_MS_MAX = 5_000;

export interface WakeupOptions {
  readonly push: boolean;
  readonly listen: pg.ClientConfig;
  readonly answerTimeoutMs: number;
}

export class Wakeups {
  readonly #db: Database;
  readonly #options: WakeupOptions;
  readonly #waiters = new Set<Waiter>();
  /** Rings so far: of everything, and per lane. */
  #news = 0;
  #foreign = 0;
  #timers = 0;
  readonly #work = new Map<string, number>();
  readonly #saidAtMs = new Map<string, number>();
  /** When lanes were last said that had not been said before. */
  #newAtMs = -Infinity;
  #listener: pg.Client | undefined;
  #connecting: Promise<void> | undefined;
  #failures = 0;
  #keepalive: NodeJS.Timeout | undefined;
  /** When those who wait on a lane will look next because of what they were told. */
  readonly #toldDueAtMs = new Map<string, number>();
  #closed = false;

  constructor(db: Database, options: WakeupOptions) {
    this.#db = db;
    this.#options = options;
  }

  /** Take one before looking at the store: a change since then ends {@link wait} at once. */
  ticket(interest: Interest): Ticket {
    return { interest, rings: this.#ringsFor(interest) };
  }

  /** No change since the ticket was taken. */
  isCurrent(ticket: Ticket): boolean {
    return !this.#closed && this.#ringsFor(ticket.interest) === ticket.rings;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** New waits are refused once the store is about to close. @throws EngineError `unavailable`, op `shutdown` */
  requireOpen(): void {
    if (this.#closed) throw engineError("unavailable", { op: "shutdown" });
  }

  /**
   * With this transaction something falls due on these lanes that much later, or at once; in any case there are news.
   * Others are told with its commit, waiters of this process woken after it.
   */
  ring(tx: Session, lanes: readonly string[] = [], inMs = 0): void {
    const toTell = this.toTell(lanes, inMs);
    for (const [lane, dueInMs] of toTell)
      tx.tell(lane === NEWS ? [] : [lane], dueInMs);
    tx.afterCommit(() => {
      this.noteTold(toTell);
      this.ringHere(lanes, inMs);
    });
  }

  /**
   * What others have to be told of this. Nothing of lanes where they will look before it falls due anyway: after that
   * look they know what is next.
   */
  toTell(lanes: readonly string[], inMs = 0): Map<string, number> {
    const now = performance.now();
    const toTell = new Map([[NEWS, 0]]);
    for (const lane of lanes) {
      const looksAtMs = this.#toldDueAtMs.get(lane) ?? 0;
      if (inMs === 0 || looksAtMs <= now || looksAtMs > now + inMs)
        toTell.set(lane, inMs);
    }
    return toTell;
  }

  noteTold(told: ReadonlyMap<string, number>): void {
    for (const [lane, inMs] of told)
      if (inMs > 0) this.#toldDueAtMs.set(lane, performance.now() + inMs);
  }

  /** Somewhere in the store a timer runs out that much later; parked claims drive it, whatever their lanes. */
  ringTimer(inMs: number): void {
    this.#timers++;
    const dueAtMs = performance.now() + inMs;
    this.#wake(
      ({ interest, looksAtMs }) => interest !== "news" && looksAtMs > dueAtMs,
    );
  }

  /** Ends at a ring after `ticket`, after `timeoutMs`, on abort, or when the store closes. */
  async wait(
    ticket: Ticket,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<void> {
    if (this.#closed || signal?.aborted === true || timeoutMs <= 0) return;
    if (!this.isCurrent(ticket)) return;
    const isNew = this.#options.push && (await this.#register(ticket.interest));
    // Said just now: what was committed since the last look was not told.
    if (isNew || this.#ended(signal) || !this.isCurrent(ticket)) return;
    const lookMs = this.#lookMs();
    await new Promise<void>((resolve) => {
      const waiter: Waiter = {
        interest: ticket.interest,
        looksAtMs: performance.now() + timeoutMs,
        wake: () => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", waiter.wake);
          this.#waiters.delete(waiter);
          resolve();
        },
      };
      const timer = setTimeout(waiter.wake, Math.min(timeoutMs, lookMs));
      signal?.addEventListener("abort", waiter.wake);
      this.#waiters.add(waiter);
    });
  }

  /** Ends all waits. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wake(() => true);
    clearInterval(this.#keepalive);
    this.#drop();
  }

  #ended(signal: AbortSignal | undefined): boolean {
    return this.#closed || signal?.aborted === true;
  }

  /** After {@link close}: no connection is left. */
  async closedFully(): Promise<void> {
    await this.#connecting;
    this.#drop();
  }

  /** Wakes only those who would sleep through it, and each of them once: after another look they know. */
  ringHere(lanes: readonly string[], inMs: number): void {
    this.#news++;
    for (const lane of lanes)
      this.#work.set(lane, (this.#work.get(lane) ?? 0) + 1);
    if (this.#waiters.size === 0) return;
    const dueAtMs = performance.now() + inMs;
    this.#wake(
      ({ interest, looksAtMs }) =>
        interest === "news" ||
        ((inMs === 0 || looksAtMs > dueAtMs) &&
          interest.lanes.some((lane) => lanes.includes(lane))),
    );
  }

  #ringsFor(interest: Interest): number {
    if (interest === "news") return this.#news + this.#foreign;
    return interest.lanes.reduce(
      (sum, lane) => sum + (this.#work.get(lane) ?? 0),
      this.#foreign + this.#timers,
    );
  }

  #wake(concerns: (waiter: Waiter) => boolean): void {
    // A copy: those who come back at once are meant to wait for the next ring.
    for (const waiter of [...this.#waiters])
      if (concerns(waiter)) waiter.wake();
  }

  #lookMs(): number {
    if (!this.#options.push || this.#listener === undefined)
      return SAFETY_POLL_MS;
    return performance.now() - this.#newAtMs < FIRST_LOOK_MS
      ? FIRST_LOOK_MS
      : LOOK_MS_MAX;
  }

  /** @returns whether something was said that asks for another look before parking */
  async #register(interest: Interest): Promise<boolean> {
    await this.#listen();
    if (this.#listener === undefined) return false;
    const now = performance.now();
    const lanes = (interest === "news" ? [NEWS] : interest.lanes).filter(
      (lane) =>
        now - (this.#saidAtMs.get(lane) ?? -SAY_AGAIN_MS) >= SAY_AGAIN_MS,
    );
    if (lanes.length === 0) return false;
    try {
      await this.#db.query(
        SAY_WAITING,
        this.#db.notifier.process!,
        WAITING_MS,
        lanes,
      );
    } catch {
      return false;
    }
    const isNew = lanes.some((lane) => !this.#saidAtMs.has(lane));
    for (const lane of lanes) this.#saidAtMs.set(lane, now);
    if (isNew) this.#newAtMs = now;
    return true;
  }

  #hear(payload: string | undefined): void {
    try {
      const { from, lanes } = JSON.parse(payload ?? "") as {
        from?: string;
        lanes: Record<string, number>;
      };
      if (from === this.#db.notifier.process) return;
      for (const [lane, inMs] of Object.entries(lanes))
        this.ringHere(lane === NEWS ? [] : [lane], inMs);
    } catch {
      // Not ours, or of a newer library: look at everything.
      this.#foreign++;
      this.#wake(() => true);
    }
  }

  #listen(): Promise<void> {
    if (this.#listener !== undefined || this.#closed) return Promise.resolve();
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    // While it cannot be reached, waiters poll and do not wait for it.
    return this.#failures === 0 ? this.#connecting : Promise.resolve();
  }

  async #connect(): Promise<void> {
    if (this.#failures > 0) {
      const waitMs = Math.min(RECONNECT_MS_MAX, 50 * 2 ** this.#failures);
      await new Promise((resolve) => setTimeout(resolve, waitMs).unref());
    }
    if (this.#closed) return;
    const { listen, answerTimeoutMs } = this.#options;
    const client = new pg.Client({
      ...listen,
      connectionTimeoutMillis: answerTimeoutMs * KEEPALIVE_TIMEOUT_SHARE,
      query_timeout: answerTimeoutMs * KEEPALIVE_TIMEOUT_SHARE,
      keepAlive: true,
    });
    const lost = () => {
      if (this.#listener !== client) return;
      this.#listener = undefined;
      this.#failures++;
      this.#saidAtMs.clear();
      // Whoever is parked goes over to looking every second, and asks for a new connection on the way.
      this.#foreign++;
      this.#wake(() => true);
    };
    client.on("error", lost);
    client.on("end", lost);
    client.on("notification", ({ payload }) => this.#hear(payload));
    try {
      await client.connect();
      await limitIdleTime(client, idleLimits(answerTimeoutMs));
      await client.query(`LISTEN "${this.#db.notifier.channel}"`);
      if (this.#closed) throw new Error("closed meanwhile");
      this.#listener = client;
      this.#failures = 0;
      this.#saidAtMs.clear();
      this.#foreign++;
      this.#wake(() => true);
      clearInterval(this.#keepalive);
      this.#keepalive = setInterval(() => {
        // A half-open connection never errs by itself.
        client.query("SELECT 1").catch(() => {
          lost();
          client.end().catch(() => {});
        });
      }, answerTimeoutMs * KEEPALIVE_SHARE);
      this.#keepalive.unref();
    } catch {
      this.#failures++;
      client.end().catch(() => {});
    }
  }

  #drop(): void {
    const listener = this.#listener;
    this.#listener = undefined;
    listener?.end().catch(() => {});
  }
}

const SAY_WAITING = `
  INSERT INTO waiters (process, lane, until)
  SELECT ?::UUID, lane, now_ms() + ?::BIGINT
  FROM unnest(?::TEXT[]) AS said (lane)
  ON CONFLICT (lane, process) DO UPDATE
  SET until = excluded.until`;
