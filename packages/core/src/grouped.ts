/**
 * Calls of one process that are under way at the same time leave as one: a trip, and what else a call costs its store, for
 * many of them. Nobody waits for company beyond the turn of the event loop: a call alone leaves at its end, and others
 * gather only while calls before them are under way.
 */

/** The store works on one while the answer of the other is on its way. */
const UNDER_WAY_MAX = 2;

/** What one call takes. An item that is too long for it goes alone. */
export interface GroupLimits {
  readonly itemsMax: number;
  readonly bytesMax: number;
}

export interface GroupedOptions extends GroupLimits {
  /**
   * What waits is dealt out to the calls that may be made, for a store that works faster than its answers are handled: all
   * in one would come back at once, and the store wait for this process.
   */
  readonly isDealtOut?: boolean;
  /** A call that takes longer waits for something itself; others pass it by. */
  readonly quickMs?: number;
  /** Of a call that failed: whether a single item may have done that. Each is then tried alone. */
  readonly mayBeOfOne?: (error: unknown) => boolean;
}

interface Entry<Item, Answer> {
  readonly item: Item;
  readonly bytes: number;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

export class Grouped<Item, Answer> {
  readonly #run: (items: readonly Item[]) => Promise<readonly Answer[]>;
  readonly #options: GroupedOptions;
  readonly #waiting: Entry<Item, Answer>[] = [];
  #underWay = 0;
  #isScheduled = false;

  /** @param run answers each item at its place */
  constructor(
    run: (items: readonly Item[]) => Promise<readonly Answer[]>,
    options: GroupedOptions,
  ) {
    this.#run = run;
    this.#options = options;
  }

  call(item: Item, bytes = 0): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, bytes, resolve, reject });
      this.#schedule();
    });
  }

  /** Behind this turn of the event loop, so that its other calls come along. */
  #schedule(): void {
    if (this.#isScheduled || this.#underWay >= UNDER_WAY_MAX) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      while (this.#waiting.length > 0 && this.#underWay < UNDER_WAY_MAX)
        void this.#send();
    });
  }

  async #send(): Promise<void> {
    const entries = this.#gather();
    this.#underWay++;
    let isCounted = true;
    const makeRoom = () => {
      if (!isCounted) return;
      isCounted = false;
      this.#underWay--;
      if (this.#waiting.length > 0) this.#schedule();
    };
    const { quickMs } = this.#options;
    const timer =
      quickMs === undefined ? undefined : setTimeout(makeRoom, quickMs);
    try {
      await this.#answer(entries);
    } finally {
      clearTimeout(timer);
      makeRoom();
    }
  }

  #gather(): Entry<Item, Answer>[] {
    const calls = this.#options.isDealtOut ? UNDER_WAY_MAX - this.#underWay : 1;
    const share = Math.ceil(this.#waiting.length / calls);
    const [group] = inGroups(
      this.#waiting.slice(0, Math.min(share, this.#options.itemsMax)),
      ({ bytes }) => bytes,
      this.#options,
    );
    return this.#waiting.splice(0, group!.length);
  }

  async #answer(entries: readonly Entry<Item, Answer>[]): Promise<void> {
    try {
      const answers = await this.#run(entries.map(({ item }) => item));
      for (const [index, { resolve }] of entries.entries())
        resolve(answers[index]!);
    } catch (error) {
      if (entries.length > 1 && this.#options.mayBeOfOne?.(error) === true)
        await Promise.all(entries.map((entry) => this.#answer([entry])));
      else for (const { reject } of entries) reject(error);
    }
  }
}

/** In their order, as many in each as one call takes. */
export function* inGroups<Item>(
  items: readonly Item[],
  bytesOf: (item: Item) => number,
  { itemsMax, bytesMax }: GroupLimits,
): Generator<Item[], void> {
  let group: Item[] = [];
  let bytes = 0;
  for (const item of items) {
    const own = bytesOf(item);
    if (
      group.length > 0 &&
      (group.length === itemsMax || bytes + own > bytesMax)
    ) {
      yield group;
      group = [];
      bytes = 0;
    }
    group.push(item);
    bytes += own;
  }
  if (group.length > 0) yield group;
}
