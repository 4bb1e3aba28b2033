/**
 * How waiting calls hear of change: at once from this process, and by LISTEN on a connection of its own from others. A
 * process that waits says so in the table of waiters, looks once more and parks; writers notify after their commit, a few
 * milliseconds' worth at once, and only where somebody waits. A ring is a hint to look again. While the listening
 * connection is broken, waiters look every second instead.
 */
import { randomUUID } from "node:crypto";

import { engineError, SAFETY_POLL_MS } from "@flowfabric/core";
import pg from "pg";

import type { Database } from "./db.js";

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

/** Stands for news in the table of waiters; no lane has this name. */
const NEWS = "";
/** How long a process counts as waiting after it last said so, and when it says so again. */
const WAITING_MS = 60_000;
const SAY_AGAIN_MS = 20_000;
/** Rings of this span go out in one statement. */
const GATHER_MS = 2;
/** Even a well-heard waiter looks this often: a writer may die between its commit and its notification. */
const LOOK_MS_MAX = 5_000;
const KEEPALIVE_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 5_000;
const RECONNECT_MS_MAX = 5_000;
/** A notification of this many bytes would be refused; beyond it, lanes are left to their own looks. */
const NOTICE_BYTES_MAX = 7_000;

export interface WakeupOptions {
  readonly push: boolean;
  readonly listen: pg.ClientConfig;
}

export class Wakeups {
  readonly #db: Database;
  readonly #options: WakeupOptions;
  readonly #process = randomUUID();
  readonly #waiters = new Set<Waiter>();
  /** Rings so far: of everything, and per lane. */
  #news = 0;
  #foreign = 0;
  readonly #work = new Map<string, number>();
  readonly #saidAtMs = new Map<string, number>();
  #listener: pg.Client | undefined;
  #connecting: Promise<void> | undefined;
  #failures = 0;
  #keepalive: NodeJS.Timeout | undefined;
  /** Lanes to tell about, with the earliest instant at which somebody may find something there. */
  #toTell = new Map<string, number>();
  #gathering: NodeJS.Timeout | undefined;
  #telling: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(db: Database, options: WakeupOptions) {
    this.#db = db;
    this.#options = options;
  }

  get channel(): string {
    return `flowfabric_${this.#db.dialect.schema.replaceAll('"', "")}`;
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

  /** This process committed something; on these lanes it may be work. */
  ring(lanes: Iterable<string> = []): void {
    this.ringDue(lanes, 0);
  }

  /**
   * On these lanes something falls due that much later. Wakes only those who would sleep through it, and each of them
   * once: after another look they know.
   */
  ringDue(lanes: Iterable<string>, inMs: number): void {
    const rung = [...new Set(lanes)];
    this.#ringHere(rung, inMs);
    if (!this.#options.push || this.#closed) return;
    for (const lane of [NEWS, ...rung])
      this.#toTell.set(lane, Math.min(this.#toTell.get(lane) ?? inMs, inMs));
    this.#gathering ??= setTimeout(() => {
      this.#gathering = undefined;
      this.#telling = this.#tell();
    }, GATHER_MS);
  }

  /** Ends at a ring after `ticket`, after `timeoutMs`, on abort, or when the store closes. */
  async wait(
    ticket: Ticket,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<void> {
    if (this.#closed || signal?.aborted === true || timeoutMs <= 0) return;
    if (!this.isCurrent(ticket)) return;
    if (this.#options.push && (await this.#register(ticket.interest))) return;
    if (this.#ended(signal) || !this.isCurrent(ticket)) return;
    const heard = this.#options.push && this.#listener !== undefined;
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
      const timer = setTimeout(
        waiter.wake,
        Math.min(timeoutMs, heard ? LOOK_MS_MAX : SAFETY_POLL_MS),
      );
      signal?.addEventListener("abort", waiter.wake);
      this.#waiters.add(waiter);
    });
  }

  /** Ends all waits; what is still to be told is told. */
  close(): void {
    if (this.#closed) return;
    if (this.#gathering !== undefined) {
      clearTimeout(this.#gathering);
      this.#gathering = undefined;
      this.#telling = this.#tell();
    }
    this.#closed = true;
    this.#wake(() => true);
    clearInterval(this.#keepalive);
    this.#drop();
  }

  #ended(signal: AbortSignal | undefined): boolean {
    return this.#closed || signal?.aborted === true;
  }

  /** After {@link close}: the last notification has left. */
  async closedFully(): Promise<void> {
    await this.#telling;
    await this.#connecting;
    this.#drop();
  }

  #ringHere(lanes: readonly string[], inMs: number): void {
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
      this.#foreign,
    );
  }

  #wake(concerns: (waiter: Waiter) => boolean): void {
    // A copy: those who come back at once are meant to wait for the next ring.
    for (const waiter of [...this.#waiters])
      if (concerns(waiter)) waiter.wake();
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
      await this.#db.query(SAY_WAITING, this.#process, WAITING_MS, lanes);
    } catch {
      return false;
    }
    for (const lane of lanes) this.#saidAtMs.set(lane, now);
    return true;
  }

  async #tell(): Promise<void> {
    const toTell = this.#toTell;
    this.#toTell = new Map();
    try {
      await this.#db.query(
        TELL,
        this.channel,
        this.#process,
        [...toTell.keys()],
        [...toTell.values()],
        NOTICE_BYTES_MAX,
      );
    } catch {
      // A hint that is lost costs a waiter its next look, no more.
    }
  }

  #hear(payload: string | undefined): void {
    try {
      const { from, lanes } = JSON.parse(payload ?? "") as {
        from?: string;
        lanes: Record<string, number>;
      };
      if (from === this.#process) return;
      for (const [lane, inMs] of Object.entries(lanes))
        this.#ringHere(lane === NEWS ? [] : [lane], inMs);
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
    const client = new pg.Client({
      ...this.#options.listen,
      connectionTimeoutMillis: KEEPALIVE_TIMEOUT_MS,
      query_timeout: KEEPALIVE_TIMEOUT_MS,
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
      await client.query(`LISTEN "${this.channel}"`);
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
      }, KEEPALIVE_MS);
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

/** One notification for all lanes where another process waits; none where nobody does. Too many: one for all. */
const TELL = `
  WITH us AS (
    SELECT ?::TEXT AS channel, ?::UUID AS process
  ), told AS (
    SELECT json_build_object('from', us.process, 'lanes', json_object_agg(rung.lane, rung.due))::TEXT AS notice
    FROM us, unnest(?::TEXT[], ?::BIGINT[]) AS rung (lane, due)
    WHERE EXISTS (
      SELECT 1
      FROM waiters AS waiting
      WHERE waiting.lane = rung.lane AND waiting.process <> us.process AND waiting.until > (SELECT now_ms())
    )
    GROUP BY us.process
  )
  SELECT pg_notify(us.channel, CASE WHEN octet_length(notice) <= ? THEN notice ELSE '*' END)
  FROM us, told`;
