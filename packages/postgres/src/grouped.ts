/**
 * Calls of one process that are under way at the same time leave as one statement: a commit, and a trip, for many of
 * them. Nobody waits for company: a call alone leaves at once, and gathers with others only while statements before it
 * are still running.
 */
import { isConnectionLost } from "./errors.js";

/** Statements under way at once: the server works on one while the answer of the other is on its way. */
const RUNNING_MAX = 2;
const ITEMS_MAX = 128;
/** One that takes longer waits for a lock, as a key's that another transaction has yet to commit; others pass it by. */
const QUICK_MS = 100;
/** What one statement may carry in bytes, beside its first item. */
const BYTES_MAX = 4 * 1024 * 1024;

interface Entry<Item, Answer> {
  readonly item: Item;
  readonly bytes: number;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

export class Grouped<Item, Answer> {
  readonly #run: (items: readonly Item[]) => Promise<readonly Answer[]>;
  readonly #waiting: Entry<Item, Answer>[] = [];
  #running = 0;
  #isScheduled = false;

  /** @param run answers each item at its place; it is called again, item by item, where it fails for several */
  constructor(run: (items: readonly Item[]) => Promise<readonly Answer[]>) {
    this.#run = run;
  }

  call(item: Item, bytes = 0): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, bytes, resolve, reject });
      this.#schedule();
    });
  }

  /** Behind this turn of the event loop, so that its other calls come along. */
  #schedule(): void {
    if (this.#isScheduled || this.#running >= RUNNING_MAX) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#waiting.length > 0) void this.#next();
    });
  }

  async #next(): Promise<void> {
    const entries = this.#gather();
    this.#running++;
    if (this.#waiting.length > 0) this.#schedule();
    let isCounted = true;
    const makeRoom = () => {
      if (!isCounted) return;
      isCounted = false;
      this.#running--;
      if (this.#waiting.length > 0) this.#schedule();
    };
    const timer = setTimeout(makeRoom, QUICK_MS);
    try {
      await this.#answer(entries);
    } finally {
      clearTimeout(timer);
      makeRoom();
    }
  }

  #gather(): Entry<Item, Answer>[] {
    let count = 1;
    for (
      let bytes = 0;
      count < Math.min(this.#waiting.length, ITEMS_MAX);
      count++
    ) {
      bytes += this.#waiting[count]!.bytes;
      if (bytes > BYTES_MAX) break;
    }
    return this.#waiting.splice(0, count);
  }

  async #answer(entries: readonly Entry<Item, Answer>[]): Promise<void> {
    try {
      const answers = await this.#run(entries.map(({ item }) => item));
      for (const [index, { resolve }] of entries.entries())
        resolve(answers[index]!);
    } catch (error) {
      // One item that the server cannot take must not fail the others.
      if (entries.length > 1 && !isConnectionLost(error))
        await Promise.all(entries.map((entry) => this.#answer([entry])));
      else for (const { reject } of entries) reject(error);
    }
  }
}
