/**
 * How waiting calls hear of change: at once from this process, and by watching the file from others. A ring is a
 * hint to look again; a lost one costs at most the safety poll.
 */
import { existsSync, utimesSync, watch, type FSWatcher } from "node:fs";

import { engineError, onAbort, SAFETY_POLL_MS } from "@flowfabric/core";
import type SqliteDriver from "better-sqlite3";

/** Between looks at the file's change counter while somebody waits; a look takes about two microseconds. */
const LOOK_INTERVAL_MS = 10;
/**
 * The file is written before the commit that it belongs to is there to be seen: at full durability a sync lies between.
 * Behind that our commits touch it once more, but not those of a caller's own connection. So for a moment after every sign of
 * life the looks follow closely.
 */
const CLOSE_LOOK_INTERVAL_MS = 1;
const CLOSE_LOOKS = 10;

/** What a waiter waits for: new work on lanes, any news at all, leases that were taken away, or news of other processes only. */
export type Interest =
  { readonly lanes: readonly string[] } | "news" | "losses" | "others";

/** The state of change when a waiter began to look. */
export interface Ticket {
  readonly interest: Interest;
  readonly rings: number;
  readonly version: unknown;
}

interface Waiter {
  readonly interest: Interest;
  /** When it looks again by itself, by the process's own clock. */
  readonly looksAtMs: number;
  readonly wake: () => void;
}

export class Wakeups {
  readonly #push: boolean;
  /** Others would see this process's commits before those are there. */
  #touches: boolean;
  readonly #dataVersion: SqliteDriver.Statement;
  readonly #logPath: string | undefined;
  readonly #waiters = new Set<Waiter>();
  /** Rings so far: of everything, and per lane. */
  #news = 0;
  #losses = 0;
  #foreign = 0;
  #timers = 0;
  readonly #work = new Map<string, number>();
  #seenVersion: unknown;
  #looks: NodeJS.Timeout | undefined;
  #watcher: FSWatcher | undefined;
  #closeLooks: NodeJS.Timeout | undefined;
  #closeLooksLeft = 0;
  #closed = false;

  constructor(
    connection: SqliteDriver.Database,
    options: { readonly push: boolean; readonly durability: "full" | "normal" },
  ) {
    this.#push = options.push;
    this.#touches = options.durability === "full" && !connection.memory;
    this.#dataVersion = connection.prepare("PRAGMA data_version").pluck();
    this.#logPath = connection.memory ? undefined : `${connection.name}-wal`;
  }

  /** Take one before looking at the store: a change since then ends {@link wait} at once. */
  ticket(interest: Interest): Ticket {
    return {
      interest,
      rings: this.#ringsFor(interest),
      version: this.#version(),
    };
  }

  /** No change since the ticket was taken. */
  isCurrent(ticket: Ticket): boolean {
    return (
      !this.#closed &&
      this.#ringsFor(ticket.interest) === ticket.rings &&
      this.#version() === ticket.version
    );
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
    this.#news++;
    const rung = new Set(lanes);
    for (const lane of rung)
      this.#work.set(lane, (this.#work.get(lane) ?? 0) + 1);
    if (this.#waiters.size > 0)
      this.#wake(
        ({ interest }) => interest === "news" || concernsLanes(interest, rung),
      );
  }

  /** To be called behind every commit that changed something, for those who watch the file. */
  tellOthers(): void {
    if (!this.#touches) return;
    const seconds = Date.now() / 1_000;
    try {
      utimesSync(this.#logPath!, seconds, seconds);
    } catch {
      // Somebody else's file: whoever waits looks a little later.
      this.#touches = false;
    }
  }

  /** This process took leases away from their holders. */
  ringLosses(): void {
    this.#losses++;
    this.#wake(({ interest }) => interest === "losses");
  }

  /**
   * On these lanes something falls due that much later. Wakes only those who would sleep through it, and each of them
   * once: after another look they know.
   */
  ringDue(lanes: Iterable<string>, inMs: number): void {
    this.#news++;
    const rung = new Set(lanes);
    for (const lane of rung)
      this.#work.set(lane, (this.#work.get(lane) ?? 0) + 1);
    const dueAtMs = performance.now() + inMs;
    if (this.#waiters.size === 0) return;
    this.#wake(
      ({ interest, looksAtMs }) =>
        interest === "news" ||
        (looksAtMs > dueAtMs && concernsLanes(interest, rung)),
    );
  }

  /** Somewhere in the store a timer runs out that much later; parked claims drive it, whatever their lanes. */
  ringTimer(inMs: number): void {
    this.#timers++;
    const dueAtMs = performance.now() + inMs;
    if (this.#waiters.size === 0) return;
    this.#wake(
      ({ interest, looksAtMs }) =>
        typeof interest === "object" && looksAtMs > dueAtMs,
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
    await new Promise<void>((resolve) => {
      const waiter: Waiter = {
        interest: ticket.interest,
        looksAtMs: performance.now() + timeoutMs,
        wake: () => {
          clearTimeout(timer);
          unlink();
          this.#waiters.delete(waiter);
          if (this.#waiters.size === 0) this.#stopLooking();
          resolve();
        },
      };
      const timer = setTimeout(
        waiter.wake,
        this.#push ? timeoutMs : Math.min(timeoutMs, SAFETY_POLL_MS),
      );
      const unlink = onAbort(signal, waiter.wake);
      this.#waiters.add(waiter);
      this.#startLooking(ticket);
    });
  }

  close(): void {
    this.#closed = true;
    this.#wake(() => true);
    this.#stopLooking();
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  #startLooking(ticket: Ticket): void {
    if (!this.#push || this.#logPath === undefined || this.#looks !== undefined)
      return;
    // What changed while nobody waited does not matter: the ticket has just been compared. But not the version of this very
    // moment: what was committed since the comparison would never be news.
    this.#seenVersion = ticket.version;
    this.#looks = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
    this.#watchLog();
  }

  #stopLooking(): void {
    clearInterval(this.#looks);
    this.#looks = undefined;
    this.#stopLookingClosely();
  }

  /** Something is being written; soon it may be committed. */
  #lookClosely(): void {
    if (this.#looks === undefined || this.#look()) return;
    this.#closeLooksLeft = CLOSE_LOOKS;
    this.#closeLooks ??= setInterval(() => {
      if (this.#look() || --this.#closeLooksLeft <= 0)
        this.#stopLookingClosely();
    }, CLOSE_LOOK_INTERVAL_MS);
  }

  #stopLookingClosely(): void {
    clearInterval(this.#closeLooks);
    this.#closeLooks = undefined;
  }

  /** @returns whether there was news */
  #look(): boolean {
    const version = this.#dataVersion.get();
    if (version === this.#seenVersion) return false;
    this.#seenVersion = version;
    // Another process; what it did can only be told by looking.
    this.#foreign++;
    this.#wake(() => true);
    return true;
  }

  /** Whoever is woken by the close may find the connection gone. */
  #version(): unknown {
    return this.#push && !this.#closed ? this.#dataVersion.get() : undefined;
  }

  #ringsFor(interest: Interest): number {
    if (interest === "others") return this.#foreign;
    if (interest === "losses") return this.#losses + this.#foreign;
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

  /** The file system tells sooner than the interval, but not always: both are used. */
  #watchLog(): void {
    if (this.#watcher !== undefined || !existsSync(this.#logPath!)) return;
    try {
      this.#watcher = watch(this.#logPath!, { persistent: false }, () =>
        this.#lookClosely(),
      );
      this.#watcher.on("error", () => {
        this.#watcher?.close();
        this.#watcher = undefined;
      });
    } catch {
      // No file watching here (some network and container file systems): the interval alone does.
      this.#watcher = undefined;
    }
  }
}

function concernsLanes(interest: Interest, rung: ReadonlySet<string>): boolean {
  return (
    typeof interest === "object" &&
    interest.lanes.some((lane) => rung.has(lane))
  );
}
