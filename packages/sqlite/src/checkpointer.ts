/**
 * Moves the write-ahead log into the file beside the event loop. SQLite would do it inside the commit that makes the log
 * long, and at 40 MiB of log that stops everything else for 60 to 300 ms. A thread with a connection of its own
 * writes and syncs the pages instead, while the loop goes on committing.
 *
 * What the loop adds meanwhile is never all moved, and only a log that is all moved starts over. So once little is left the
 * loop moves that itself, between two transactions. Nothing depends on the thread: where it cannot be had, or
 * cannot keep up, SQLite's own checkpoint sets in at {@link AUTOCHECKPOINT_PAGES}.
 */
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { Worker } from "node:worker_threads";

import type SqliteDriver from "better-sqlite3";

/** When a commit moves the log itself after all. Well behind what the thread is asked for. */
export const AUTOCHECKPOINT_PAGES = 20_000;
/** What is worth a trip of the thread, in pages of 4 KiB. */
const PORTION_PAGES = 2_000;
/** From here on the log is to start over; sooner, and the syncs that it takes would show. */
const LONG_LOG_PAGES = 8_000;
/** What the loop may move itself: a few milliseconds. */
const REST_PAGES = 400;
const LOOK_INTERVAL_MS = 20;
/** After a reader stood in the way. */
const RETRY_INTERVAL_MS = 250;

interface LogState {
  readonly busy: number;
  /** Pages in the log, and those of them that are in the file already. */
  readonly log: number;
  readonly checkpointed: number;
}

export class Checkpointer {
  readonly #connection: SqliteDriver.Database;
  readonly #stateOfLog: SqliteDriver.Statement<[], LogState> | undefined;
  #thread: Worker | undefined;
  #working = false;
  #unavailable = false;
  #nextLookMs = 0;
  #checkpointedBefore = 0;

  constructor(connection: SqliteDriver.Database) {
    this.#connection = connection;
    if (!connection.memory)
      this.#stateOfLog = connection.prepare("PRAGMA wal_checkpoint(NOOP)");
  }

  /** To be called behind every commit; looks at the log now and then. */
  afterCommit(): void {
    if (this.#working || this.#unavailable) return;
    const nowMs = performance.now();
    if (nowMs < this.#nextLookMs) return;
    this.#nextLookMs = nowMs + LOOK_INTERVAL_MS;
    const state = this.#look();
    if (state !== undefined && isWorthATrip(state)) this.#startPortion(state);
  }

  /**
   * To be called once the own connection is closed. Whoever closes last empties the log, and that is better done beside
   * the loop, too.
   */
  async close(): Promise<void> {
    this.#unavailable = true;
    const thread = this.#thread;
    if (thread === undefined) return;
    const exit = new Promise((ended) => thread.once("exit", ended));
    thread.ref();
    thread.postMessage("close");
    await exit;
  }

  #startPortion({ checkpointed }: LogState): void {
    try {
      this.#thread ??= this.#newThread();
      this.#thread.postMessage("portion");
      this.#working = true;
      this.#checkpointedBefore = checkpointed;
    } catch {
      // No threads here, or the driver cannot be found from a bundle.
      this.#unavailable = true;
    }
  }

  #finishPortion(busy: boolean): void {
    this.#working = false;
    // Another process is at it, or this one is closing.
    if (busy || this.#unavailable) return;
    const state = this.#look();
    if (state === undefined || !isWorthATrip(state)) return;
    if (state.log - state.checkpointed < REST_PAGES) this.#startOver();
    else if (state.checkpointed !== this.#checkpointedBefore)
      this.#startPortion(state);
    else this.#pause();
  }

  /** The write lock is held meanwhile, so that other processes cannot make the rest longer again. */
  #startOver(): void {
    const state = this.#ask(() => this.#connection.pragma(RESTART));
    if (state === undefined || state.busy !== 0) this.#pause();
  }

  #pause(): void {
    this.#nextLookMs = performance.now() + RETRY_INTERVAL_MS;
  }

  #look(): LogState | undefined {
    return this.#ask(() => this.#stateOfLog?.all());
  }

  /** What goes wrong here is no commit's fault, and where it matters the next commit says so. */
  #ask(question: () => unknown): LogState | undefined {
    if (!this.#connection.open) return undefined;
    try {
      return (question() as LogState[] | undefined)?.[0];
    } catch {
      return undefined;
    }
  }

  #newThread(): Worker {
    // Handed over as text: so it runs from sources, from the build and inside a bundle alike.
    const thread = new Worker(`(${checkpointThread.toString()})(require)`, {
      eval: true,
      workerData: {
        driver: createRequire(import.meta.url).resolve("better-sqlite3"),
        path: resolve(this.#connection.name),
        durability: this.#connection.pragma("synchronous", { simple: true }),
      },
    });
    thread.on("message", (busy: boolean) => this.#finishPortion(busy));
    const giveUp = () => {
      this.#unavailable = true;
      this.#thread = undefined;
    };
    thread.on("error", giveUp);
    thread.on("exit", giveUp);
    // A program that ends without closing the store is not to wait for it. Behind the listeners, for those take it back.
    thread.unref();
    return thread;
  }
}

const RESTART = "wal_checkpoint(RESTART)";

function isWorthATrip({ log, checkpointed }: LogState): boolean {
  return log - checkpointed >= PORTION_PAGES || log >= LONG_LOG_PAGES;
}

/** The thread's whole program. It sees nothing of this file. */
function checkpointThread(require: NodeJS.Require): void {
  const { parentPort, workerData } =
    require("node:worker_threads") as typeof import("node:worker_threads");
  const { driver, path, durability } = workerData as {
    driver: string;
    path: string;
    durability: number;
  };
  const Driver = require(driver) as typeof SqliteDriver;
  const connection = new Driver(path, { timeout: 0, fileMustExist: true });
  connection.pragma(`synchronous = ${durability}`);
  parentPort!.on("message", (wish: "portion" | "close") => {
    if (wish === "close") {
      connection.close();
      parentPort!.close();
      return;
    }
    let busy = true;
    try {
      const [state] = connection.pragma("wal_checkpoint(PASSIVE)") as {
        busy: number;
      }[];
      busy = state!.busy !== 0;
    } catch {
      // Locked for a moment, or the disk is full: the commits will say so. The next portion tries again.
    }
    parentPort!.postMessage(busy);
  });
}
