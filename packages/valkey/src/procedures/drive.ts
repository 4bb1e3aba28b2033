/**
 * The engine drives itself: beside claims, a process runs at most one bounded portion of due maintenance every
 * 250 ms. No other process is needed for progress, and any number of them changes nothing (00 §2, D36).
 */
import { PORTION_INTERVAL_MS, SAFETY_POLL_MS } from "@flowfabric/core";
import type { Presence } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { optionalNumber } from "../connection.js";
import type { Store } from "../store.js";
import { askEach } from "./outages.js";
import { Heartbeats, workerValues } from "./registry.js";

export class Driver {
  readonly heartbeats = new Heartbeats();
  #lastPortionMs = -PORTION_INTERVAL_MS;
  /** When the next portion will have something to do, as far as is known. */
  #dueAtMs = Infinity;
  #isUnderWay = false;
  readonly #drivenAtMs = new Map<Cell, number>();

  /** Runs a portion where one is allowed now. @returns whether it did */
  async drive(store: Store, presence: Presence): Promise<boolean> {
    const nowMs = performance.now();
    if (nowMs - this.#lastPortionMs < PORTION_INTERVAL_MS) {
      // What has fallen due since the last one, nobody knows.
      this.dueIn(0);
      return false;
    }
    this.#lastPortionMs = nowMs;
    this.#dueAtMs = Infinity;
    this.#isUnderWay = true;
    // Timers that are armed meanwhile count as well.
    this.dueIn(await this.#portion(store, presence));
    this.#isUnderWay = false;
    return true;
  }

  /** Told of a timer somewhere in the store, and of what a look found to fall due. */
  dueIn(ms: number): void {
    this.#dueAtMs = Math.min(this.#dueAtMs, performance.now() + ms);
  }

  /** In how many milliseconds a portion is allowed and has something to do. */
  get nextInMs(): number {
    const atMs = Math.max(
      // What it will find is not known yet.
      this.#isUnderWay ? 0 : this.#dueAtMs,
      this.#lastPortionMs + PORTION_INTERVAL_MS,
    );
    return Math.max(0, atMs - performance.now());
  }

  /** One call for each cell that may have something to do. @returns in how many milliseconds there is more to do */
  async #portion(store: Store, presence: Presence): Promise<number> {
    const { workerInstanceId } = presence;
    const random = Math.random();
    const values = workerValues(presence);
    let isNews = false;
    const { answers, failure } = await askEach(
      this.#cellsFor(store),
      async (cell) => {
        const known = cell.routes.newest;
        const [nowMs, noted, more, timerIn, count] = await cell.call(
          "drive",
          random,
          ...values,
          this.heartbeats.writtenAtMs(workerInstanceId, cell) ?? "",
        );
        if (noted === 1)
          this.heartbeats.written(workerInstanceId, cell, nowMs as number);
        this.#drivenAtMs.set(cell, performance.now());
        if (await cell.routes.caughtUp(known, count)) isNews = true;
        return more === 1 ? 0 : (optionalNumber(timerIn) ?? Infinity);
      },
    );
    if (isNews) store.wakeups.foundRoutes();
    // The claim beside it has been carried out, and its answer must not get lost. Where a portion failed, one that is run
    // later tries again; a sweep says what is wrong.
    return Math.min(
      failure === undefined ? Infinity : SAFETY_POLL_MS,
      ...answers,
    );
  }

  /** All the same each is looked at now and then, for what is told may get lost. */
  #cellsFor(store: Store): readonly Cell[] {
    const { all } = store.cells;
    const sinceMs = performance.now() - EMPTY_REST_MS * all.length;
    return all.filter(
      (cell) =>
        mayHaveWork(store, cell) ||
        (this.#drivenAtMs.get(cell) ?? -Infinity) <= sinceMs,
    );
  }
}

/** For each cell there is, so that all of them together cost an idle process a call in so long. */
const EMPTY_REST_MS = 8_000;

/**
 * A cell of many that has no routes has never had an execution, and so nothing that time could change. That it has got one
 * is told to whoever listens.
 */
export function mayHaveWork({ cells, wakeups }: Store, cell: Cell): boolean {
  return (
    cell.routes.newest > 0 || cells.all.length === 1 || !wakeups.hearsOfRoutes
  );
}
