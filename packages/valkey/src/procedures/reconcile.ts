/** Going through a whole store, to hold records against their index entries and entries against their records. */
import type { Cell } from "../cells.js";
import { listOf, textOf, type Argument, type Reply } from "../connection.js";

export interface Reconciled {
  readonly processed: number;
  readonly errors: number;
  /** The end was not reached. */
  readonly more: boolean;
}

const START = "0";
/** Calls in one go. Each looks at ten thousand keys of the server, or at some hundred that are ours. */
const CALLS_MAX = 100;

/** Where one that goes through a store stands: in a cell, among its keys, and in the indexes that it met there. */
export class Reconciler {
  readonly #cells: readonly Cell[];
  readonly #partition: Argument;
  #cell = 0;
  #keys = START;
  #indexes: readonly Reply[] = [];
  #entries = START;
  #last: Promise<unknown> = Promise.resolve();

  constructor(cells: readonly Cell[], partition?: number) {
    this.#cells = cells;
    this.#partition = partition ?? "";
  }

  /**
   * Goes on from where it stands, with at most so many repairs, for a bounded time. Begins anew behind the end. Calls at the
   * same time go one after the other.
   */
  goOn(repairs: number): Promise<Reconciled> {
    const done = this.#last.then(() => this.#goOn(repairs));
    this.#last = done.catch(() => {});
    return done;
  }

  async #goOn(repairs: number): Promise<Reconciled> {
    let processed = 0;
    let errors = 0;
    for (let calls = 0; calls < CALLS_MAX && processed < repairs; calls++) {
      const page = await this.#page(repairs - processed);
      processed += page.processed;
      errors += page.errors;
      if (processed < repairs && this.#isAtStart)
        return { processed, errors, more: false };
    }
    return { processed, errors, more: true };
  }

  get #isAtStart(): boolean {
    return this.#cell === 0 && this.#isAtStartOfCell;
  }

  get #isAtStartOfCell(): boolean {
    return this.#keys === START && this.#indexes.length === 0;
  }

  async #page(repairs: number) {
    const cell = this.#cells[this.#cell]!;
    const page =
      this.#indexes.length > 0
        ? await this.#readEntries(cell, repairs)
        : await this.#readRecords(cell, repairs);
    // Where its repairs were used up it stands where it stood.
    if (page.processed < repairs && this.#isAtStartOfCell)
      this.#cell = (this.#cell + 1) % this.#cells.length;
    return page;
  }

  async #readRecords(cell: Cell, repairs: number) {
    const [processed, errors, next, indexes] = await cell.call(
      "reconcile_records",
      this.#keys,
      repairs,
      this.#partition,
    );
    this.#keys = textOf(next!);
    this.#indexes = listOf(indexes);
    return { processed: processed as number, errors: errors as number };
  }

  async #readEntries(cell: Cell, repairs: number) {
    const [processed, done, next] = await cell.call(
      "reconcile_entries",
      this.#entries,
      repairs,
      this.#partition,
      ...(this.#indexes as readonly Buffer[]),
    );
    this.#indexes = this.#indexes.slice(done as number);
    this.#entries = textOf(next!);
    return { processed: processed as number, errors: 0 };
  }
}
