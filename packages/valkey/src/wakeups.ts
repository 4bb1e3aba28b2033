/**
 * How waiting calls hear of change: by pub/sub on a connection of its own. Functions publish with every change; a channel
 * that nobody listens to costs them next to nothing. A ring is a hint to look again. Whoever is not heard of by the server,
 * for the connection is broken or has just been made, looks every second instead.
 *
 * Channels of a cell, each beginning with its base: `!<route>` with the milliseconds after which there is work, `!timer`
 * likewise for any timer, `!routes` when one was made, `!holder:<instance id>` when a lease of that worker was ended by
 * someone else, `!news` for everything that history and feeds show, `!stream:<ref>` for the streams of an execution's attempts
 * (`tails.ts`).
 */
import { engineError, onAbort, SAFETY_POLL_MS } from "@flowfabric/core";
import type { Redis } from "ioredis";

import type { Cell, Cells } from "./cells.js";
import { Listener } from "./listener.js";
import { askEach } from "./procedures/outages.js";

/** What a waiter waits for: new work on lanes, the end of a worker's leases, or any news at all. */
export type Interest =
  | { readonly lanes: readonly string[] }
  | { readonly instanceId: string }
  | "news";

/** The state of change when a waiter began to look. */
export interface Ticket {
  readonly interest: Interest;
  readonly rings: number;
  /** Of those the ones that told of work which may be taken at once. */
  readonly ready: number;
}

interface Waiter {
  readonly interest: Interest;
  /** When it looks again by itself, by the process's own clock. */
  readonly looksAtMs: number;
  /** Whether the server knows of all that it waits for. */
  readonly isHeard: boolean;
  readonly wake: () => void;
}

/** For whoever keeps waiters of his own. */
export interface Watch {
  readonly onMessage: (message: string) => void;
  /** From here on the server tells. */
  readonly onHeard: () => void;
  readonly onClosed: () => void;
}

/** Even a well-heard waiter looks this often. */
const LOOK_MS_MAX = 30_000;

export interface WakeupOptions {
  readonly push: boolean;
  readonly answerTimeoutMs: number;
  /** Makes a connection for listening, which connects when it is told to, and once. */
  readonly connect: () => Redis;
  /** Told of timers anywhere in the store. */
  readonly onTimer: (inMs: number) => void;
}

export class Wakeups {
  readonly #cells: Cells;
  readonly #tellTimer: (inMs: number) => void;
  readonly #listener: Listener | undefined;
  readonly #waiters = new Set<Waiter>();
  /** Rings so far: of everything, per lane, and per instance. */
  #news = 0;
  #timers = 0;
  readonly #work = new Map<string, number>();
  readonly #ready = new Map<string, number>();
  readonly #notices = new Map<string, number>();
  /** Rings that nobody knows the meaning of: the connection was away, or something was not listened to before. */
  #unknown = 0;
  /** By channel: what a message on it means. */
  readonly #handlers = new Map<string, (message: string) => void>();
  readonly #watches = new Map<string, Watch>();
  #closed = false;

  constructor(cells: Cells, { push, onTimer, ...options }: WakeupOptions) {
    this.#cells = cells;
    this.#tellTimer = onTimer;
    if (!push) return;
    this.#listener = new Listener({
      ...options,
      onMessage: (channel, message) =>
        (
          this.#watches.get(channel)?.onMessage ?? this.#handlers.get(channel)
        )?.(message),
      onConnected: () => this.#catchUp(),
      onHeard: (channels) => this.#onHeard(channels),
      onLost: () => this.#ringUnknown(() => true),
    });
  }

  /** Take one before looking at the store: a change since then ends {@link wait} at once. */
  ticket(interest: Interest): Ticket {
    return {
      interest,
      rings: this.#ringsFor(interest),
      ready: this.#readyFor(interest),
    };
  }

  /** Since the ticket was taken, work was told of that may be taken at once. */
  hasReadyWork({ interest, ready }: Ticket): boolean {
    return !this.#closed && this.#readyFor(interest) !== ready;
  }

  /** No change since the ticket was taken. */
  isCurrent(ticket: Ticket): boolean {
    return !this.#closed && this.#ringsFor(ticket.interest) === ticket.rings;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Routes that others make are told to this process, and those made before are known. */
  get hearsOfRoutes(): boolean {
    return (
      this.#listener?.hears(
        this.#cells.all.map((cell) => channelOf(cell, "routes")),
      ) ?? false
    );
  }

  /** Whether the server knows that this process listens. */
  hears(channel: string): boolean {
    return this.#listener?.hears([channel]) ?? false;
  }

  watch(channel: string, watch: Watch): void {
    if (this.#watches.has(channel)) return;
    this.#watches.set(channel, watch);
    this.#listener?.hear([channel]);
  }

  unwatch(channel: string): void {
    if (this.#watches.delete(channel)) this.#listener?.unhear(channel);
  }

  /** Some of which nothing was told, although they were listened for. */
  foundRoutes(): void {
    this.#ringUnknown(() => true);
  }

  /** New waits are refused once the store is about to close. @throws EngineError `unavailable`, op `shutdown` */
  requireOpen(): void {
    if (this.#closed) throw engineError("unavailable", { op: "shutdown" });
  }

  /** Ends at a ring after `ticket`, after `timeoutMs`, on abort, or when the store closes. */
  async wait(
    ticket: Ticket,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<void> {
    if (signal?.aborted === true || timeoutMs <= 0) return;
    if (!this.isCurrent(ticket)) return;
    const { interest } = ticket;
    const channels = this.#channelsOf(interest);
    const isHeard = this.#listener?.hears(channels) ?? false;
    const looksInMs = Math.min(
      timeoutMs,
      isHeard ? looksWithinMs(interest) : SAFETY_POLL_MS,
    );
    await new Promise<void>((resolve) => {
      const waiter: Waiter = {
        interest,
        looksAtMs: performance.now() + looksInMs,
        isHeard,
        wake: () => {
          clearTimeout(timer);
          unlink();
          this.#waiters.delete(waiter);
          resolve();
        },
      };
      const timer = setTimeout(waiter.wake, looksInMs);
      const unlink = onAbort(signal, waiter.wake);
      this.#waiters.add(waiter);
      if (!isHeard) this.#listener?.hear(channels);
    });
  }

  close(): void {
    this.#closed = true;
    this.#wake(() => true);
    for (const { onClosed } of this.#watches.values()) onClosed();
    this.#listener?.close();
  }

  /** The channels that tell of it, with the routes that are known now. */
  #channelsOf(interest: Interest): string[] {
    const channels: string[] = [];
    for (const cell of this.#cells.all) {
      const listenTo = (name: string, handler: (message: string) => void) => {
        const channel = channelOf(cell, name);
        channels.push(channel);
        if (!this.#handlers.has(channel)) this.#handlers.set(channel, handler);
      };
      if (interest === "news") {
        listenTo("news", () => this.#onNews());
      } else if ("instanceId" in interest) {
        const { instanceId } = interest;
        listenTo(`holder:${instanceId}`, () => this.#onNotice(instanceId));
      } else {
        listenTo("routes", () => void this.#onNewRoute(cell));
        listenTo("timer", (message) => this.#onTimer(Number(message)));
        for (const lane of interest.lanes)
          for (const { id } of cell.routes.ofLane(lane))
            listenTo(String(id), (message) =>
              this.#onWork(cell, id, Number(message)),
            );
      }
    }
    return channels;
  }

  /** What happened before the server knew of them was not told. */
  #onHeard(channels: readonly string[]): void {
    for (const channel of channels) this.#watches.get(channel)?.onHeard();
    if (channels.some((channel) => this.#handlers.has(channel)))
      this.#ringUnknown(({ isHeard }) => !isHeard);
  }

  /** Routes that were made while nobody listened. Whoever waits looks by himself for those of a cell out of reach. */
  async #catchUp(): Promise<void> {
    await askEach(this.#cells.all, ({ routes }) => routes.refresh());
  }

  /** Whoever serves its lane has to listen to it, and to look. */
  async #onNewRoute(cell: Cell): Promise<void> {
    const { epoch, newest } = cell.routes;
    try {
      await cell.routes.refreshAnew();
    } catch {
      this.#ringUnknown(() => true);
      return;
    }
    if (epoch !== cell.routes.epoch) {
      // What was heard meanwhile may have been of other lanes.
      this.#ringUnknown(() => true);
      return;
    }
    this.#ringUnknown(
      ({ interest }) => !this.#listener!.hears(this.#channelsOf(interest)),
    );
    // Its first: nobody has driven the cell lately, and so it may not know who is alive.
    if (newest === 0) this.#onTimer(0);
  }

  #onNews(): void {
    this.#news++;
    this.#wake(({ interest }) => interest === "news");
  }

  #onNotice(instanceId: string): void {
    this.#notices.set(instanceId, (this.#notices.get(instanceId) ?? 0) + 1);
    this.#wake(
      ({ interest }) =>
        interest !== "news" &&
        "instanceId" in interest &&
        interest.instanceId === instanceId,
    );
  }

  /** Wakes only those who would sleep through it, and each of them once: after another look they know. */
  #onWork(cell: Cell, route: number, inMs: number): void {
    const lane = cell.routes.find(route)?.lane;
    if (lane === undefined) {
      this.#ringUnknown(() => true);
      return;
    }
    this.#work.set(lane, (this.#work.get(lane) ?? 0) + 1);
    if (inMs === 0) this.#ready.set(lane, (this.#ready.get(lane) ?? 0) + 1);
    const dueAtMs = performance.now() + inMs;
    this.#wake(
      ({ interest, looksAtMs }) =>
        lanesOf(interest).includes(lane) && (inMs === 0 || looksAtMs > dueAtMs),
    );
  }

  #onTimer(inMs: number): void {
    this.#timers++;
    this.#tellTimer(inMs);
    const dueAtMs = performance.now() + inMs;
    this.#wake(
      ({ interest, looksAtMs }) =>
        lanesOf(interest).length > 0 && looksAtMs > dueAtMs,
    );
  }

  #ringUnknown(concerns: (waiter: Waiter) => boolean): void {
    this.#unknown++;
    this.#wake(concerns);
  }

  #ringsFor(interest: Interest): number {
    if (interest === "news") return this.#news + this.#unknown;
    if ("instanceId" in interest)
      return (this.#notices.get(interest.instanceId) ?? 0) + this.#unknown;
    return interest.lanes.reduce(
      (sum, lane) => sum + (this.#work.get(lane) ?? 0),
      this.#unknown + this.#timers,
    );
  }

  #readyFor(interest: Interest): number {
    return lanesOf(interest).reduce(
      (sum, lane) => sum + (this.#ready.get(lane) ?? 0),
      0,
    );
  }

  #wake(concerns: (waiter: Waiter) => boolean): void {
    // A copy: those who come back at once are meant to wait for the next ring.
    for (const waiter of [...this.#waiters])
      if (concerns(waiter)) waiter.wake();
  }
}

/** As the listener knows it: a character for each byte. */
export function channelOf(
  { base }: Cell,
  name: string,
  ref: Buffer = Buffer.alloc(0),
): string {
  const channel = Buffer.concat([Buffer.from(`${base}!${name}`), ref]);
  return channel.toString("latin1");
}

function lanesOf(interest: Interest): readonly string[] {
  return interest !== "news" && "lanes" in interest ? interest.lanes : [];
}

/** A notice is a hint: who missed it finds out the same when it renews. All else must be found. */
function looksWithinMs(interest: Interest): number {
  return interest !== "news" && "instanceId" in interest
    ? Infinity
    : LOOK_MS_MAX;
}
