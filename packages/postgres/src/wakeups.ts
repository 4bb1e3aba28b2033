/**
 * How waiting calls hear of change: at once from this process, and by LISTEN on a connection of its own from others. A
 * process that waits says so in the table of waiters, looks once more and parks; writers notify with their commit, and
 * only where somebody waits. A ring is a hint to look again. While the listening connection is broken, waiters look every
 * second instead.
 */
import {
  engineError,
  onAbort,
  SAFETY_POLL_MS,
  type Args,
  type ClaimManyResult,
} from "@flowfabric/core";
import pg from "pg";

import type { Database } from "./db.js";
import { idleLimits, limitIdleTime } from "./idle-sessions.js";
import { NEWS } from "./notifier.js";
import type { Session } from "./session.js";
import { isStreamName } from "./stream-names.js";

/** What a waiter waits for: new work on lanes, any news at all, or that anything may have been missed. */
export type Interest =
  { readonly lanes: readonly string[] } | "news" | "missed";

/** The state of change when a waiter began to look. */
export interface Ticket {
  readonly interest: Interest;
  readonly rings: number;
}

/** A claim that waits: it may be handed what somebody makes ready for it, and need not claim that itself. */
export interface WaitingClaim {
  readonly args: Args<"claimMany">;
  /** To be taken out before anything else is tried. */
  handed: ClaimManyResult | undefined;
}

/** A waiting claim that is told nothing else until this is settled. */
export interface ReservedClaim {
  readonly args: Args<"claimMany">;
  give(answer: ClaimManyResult): void;
  /** It has to look for itself. */
  withdraw(): void;
  /** Something may have been taken in its name, and it has to ask again whether it was. */
  fail(error: unknown): void;
}

interface Waiter {
  readonly interest: Interest;
  readonly claim: WaitingClaim | undefined;
  /** Ends the wait for its own part; others settle it. */
  readonly reserve: () => ReservedClaim;
  /** When it looks again by itself, by the process's own clock. */
  readonly looksAtMs: number;
  readonly wake: (isWork?: boolean) => void;
}

/** How long a process counts as waiting after it last said so, and when it says so again. */
const WAITING_MS = 60_000;
const SAY_AGAIN_MS = 20_000;
/** Whoever began to write before a process said that it waits does not know yet: it looks again after as long. */
export const FIRST_LOOK_MS = 100;
/** Even a well-heard waiter looks this often. */
const LOOK_MS_MAX = 5_000;
/** Of the time after which a connection counts as lost: asked after a third of it, given up after half. */
const KEEPALIVE_SHARE = 1 / 3;
const KEEPALIVE_TIMEOUT_SHARE = 1 / 6;
/** Beyond as many names those are forgotten that count no longer. */
const SAID_MAX = 1_000;
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
  #onStream: (name: string) => void = () => {};
  #closed = false;

  constructor(db: Database, options: WakeupOptions) {
    this.#db = db;
    this.#options = options;
  }

  /** Take one before looking at the store: a change since then ends {@link wait} at once. */
  ticket(interest: Interest): Ticket {
    return { interest, rings: this.#ringsFor(interest) };
  }

  /** Another process tells of this stream. */
  hearStreams(onStream: (name: string) => void): void {
    this.#onStream = onStream;
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
    for (const [lane, dueInMs] of toTell) tx.tell(lane, dueInMs);
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
      ({ interest, looksAtMs }) =>
        typeof interest === "object" && looksAtMs > dueAtMs,
    );
  }

  /**
   * Ends at a ring after `ticket`, after `timeoutMs`, on abort, or when the store closes.
   * @param claim whose wait it is, where it may be handed something
   * @returns whether that has happened, or there is work for this process alone and none who waited longer was told
   */
  async wait(
    ticket: Ticket,
    timeoutMs: number,
    signal?: AbortSignal,
    claim?: WaitingClaim,
  ): Promise<boolean> {
    if (this.#ended(signal) || timeoutMs <= 0) return false;
    if (!this.isCurrent(ticket)) return false;
    const isNew = this.#options.push && (await this.#register(ticket.interest));
    // Said just now: what was committed since the last look was not told.
    if (isNew || this.#ended(signal) || !this.isCurrent(ticket)) return false;
    const lookMs = this.#lookMs();
    return await new Promise<boolean>((resolve, reject) => {
      const end = () => waiter.wake();
      const leave = () => {
        clearTimeout(timer);
        unlink();
        this.#waiters.delete(waiter);
      };
      const waiter: Waiter = {
        interest: ticket.interest,
        claim,
        looksAtMs: performance.now() + timeoutMs,
        wake: (isWork = false) => {
          leave();
          resolve(isWork);
        },
        reserve: () => {
          leave();
          return {
            args: claim!.args,
            give(answer) {
              claim!.handed = answer;
              resolve(true);
            },
            withdraw: () => resolve(false),
            fail: reject,
          };
        },
      };
      const timer = setTimeout(end, Math.min(timeoutMs, lookMs));
      const unlink = onAbort(signal, end);
      this.#waiters.add(waiter);
    });
  }

  /** The one of these that has waited longest. */
  reserve(
    isServed: (args: Args<"claimMany">) => boolean,
  ): ReservedClaim | undefined {
    for (const { claim, reserve } of this.#waiters)
      if (claim !== undefined && isServed(claim.args)) return reserve();
    return undefined;
  }

  /** Ends all waits. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#wake(() => true);
    clearInterval(this.#keepalive);
    this.#drop();
  }

  /**
   * Says under these names that this process waits, so that writers tell it. What was committed meanwhile was not told.
   * @returns which of them it has said just now, for the first time in a while
   */
  async announce(names: readonly string[]): Promise<boolean[]> {
    const unsaid = () => names.map((name) => !this.isAnnounced(name));
    if (!this.#options.push || !unsaid().includes(true))
      return names.map(() => false);
    await this.#listen();
    if (this.#listener === undefined) return names.map(() => false);
    const isUnsaid = unsaid();
    const toSay = new Set(names.filter((_name, index) => isUnsaid[index]));
    if (toSay.size === 0) return isUnsaid;
    const now = performance.now();
    try {
      await this.#db.query(
        SAY_WAITING,
        this.#db.notifier.process!,
        WAITING_MS,
        [...toSay].sort(),
      );
    } catch {
      return names.map(() => false);
    }
    for (const name of toSay) this.#saidAtMs.set(name, now);
    this.#forgetSaid(now);
    return isUnsaid;
  }

  isAnnounced(name: string): boolean {
    const saidAtMs = this.#saidAtMs.get(name) ?? -Infinity;
    return performance.now() - saidAtMs < SAY_AGAIN_MS;
  }

  /** Streams come and go. */
  #forgetSaid(now: number): void {
    if (this.#saidAtMs.size < SAID_MAX) return;
    for (const [name, saidAtMs] of this.#saidAtMs)
      if (now - saidAtMs >= WAITING_MS) this.#saidAtMs.delete(name);
  }

  #ended(signal: AbortSignal | undefined): boolean {
    return this.#closed || signal?.aborted === true;
  }

  /** After {@link close}: no connection is left. */
  async closedFully(): Promise<void> {
    await this.#connecting;
    this.#drop();
  }

  /**
   * Wakes only those who would sleep through it, and each of them once: after another look they know. Work that is for
   * this process alone, as its own is, the first of them may take without a look. What others tell several processes, all
   * of those hear, and most would try in vain.
   */
  ringHere(lanes: readonly string[], inMs: number, isForUs = true): void {
    this.#news++;
    for (const lane of lanes)
      this.#work.set(lane, (this.#work.get(lane) ?? 0) + 1);
    if (this.#waiters.size === 0) return;
    const dueAtMs = performance.now() + inMs;
    let isWork = isForUs && inMs === 0;
    for (const { interest, looksAtMs, wake } of [...this.#waiters])
      if (interest === "news") wake();
      else if (
        typeof interest === "object" &&
        (inMs === 0 || looksAtMs > dueAtMs) &&
        interest.lanes.some((lane) => lanes.includes(lane))
      ) {
        wake(isWork);
        isWork = false;
      }
  }

  #ringsFor(interest: Interest): number {
    if (interest === "missed") return this.#foreign;
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
    if (interest === "missed") {
      await this.#listen();
      return false;
    }
    const names = interest === "news" ? [NEWS] : interest.lanes;
    const areNew = names.some((name) => !this.#saidAtMs.has(name));
    const said = (await this.announce(names)).includes(true);
    if (said && areNew) this.#newAtMs = performance.now();
    return said;
  }

  #hear(payload: string | undefined): void {
    try {
      const { from, lanes, alone } = JSON.parse(payload ?? "") as {
        from?: string;
        lanes: Record<string, number>;
        /** No other process waits for this work. */
        alone: boolean;
      };
      if (from === this.#db.notifier.process) return;
      for (const [name, inMs] of Object.entries(lanes))
        if (isStreamName(name)) this.#onStream(name);
        else this.ringHere(name === NEWS ? [] : [name], inMs, alone);
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
