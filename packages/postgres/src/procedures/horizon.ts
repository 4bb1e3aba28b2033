/**
 * How far the feeds may read. Positions are drawn before their transactions commit, so a later one can be visible
 * before an earlier one. Whoever has drawn a position holds a lock on the sequence until its transaction ends; once all
 * holders of one moment are gone, every position drawn up to that moment is either visible or void. No row has to be
 * written for this, and transactions of others (a caller's, or another program's) never count.
 */
import type { Store } from "../store.js";

/** Between looks at the holders; most are gone by the next. */
const LOOK_INTERVAL_MS = 3;
/** A look answers what is certain by then. */
const LOOK_MS_MAX = 2_000;

export class Horizon {
  #settled = 0;
  readonly #looks = new SharedLook(look);

  /** Every position up to this one is there to be read, or never will be. */
  async read(store: Store): Promise<number> {
    const endsAtMs = performance.now() + LOOK_MS_MAX;
    const first = await this.#looks.next(store);
    for (let holders = first.holders; holders.size > 0;) {
      if (performance.now() > endsAtMs || store.wakeups.closed)
        return this.#settled;
      await new Promise((resolve) => setTimeout(resolve, LOOK_INTERVAL_MS));
      const next = await this.#looks.next(store);
      holders = new Set([...holders].filter((one) => next.holders.has(one)));
    }
    this.#settled = Math.max(this.#settled, first.newest);
    return this.#settled;
  }
}

/** Many who ask at once share a look: never one that began before they asked, for it may not know what they do. */
class SharedLook {
  readonly #look: (store: Store) => Promise<Look>;
  #underWay: Promise<unknown> | undefined;
  #next: Promise<Look> | undefined;

  constructor(look: (store: Store) => Promise<Look>) {
    this.#look = look;
  }

  next(store: Store): Promise<Look> {
    if (this.#underWay === undefined) return this.#begin(store);
    this.#next ??= this.#underWay.then(() => {
      this.#next = undefined;
      return this.#begin(store);
    });
    return this.#next;
  }

  #begin(store: Store): Promise<Look> {
    const looking = this.#look(store);
    const over = () => {
      this.#underWay = undefined;
    };
    this.#underWay = looking.then(over, over);
    return looking;
  }
}

interface Look {
  readonly newest: number;
  readonly holders: ReadonlySet<string>;
}

/** The newest position first, then who may still fill one below it: in this order, as two statements of one trip. */
async function look(store: Store): Promise<Look> {
  const { schema } = store.db.dialect;
  const [newest, holders] = await store.db.script(`
  SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS newest
  FROM ${schema}.events_position;
  SELECT virtualtransaction AS holder
  FROM pg_locks
  WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
    AND relation = '${schema}.events_position'::REGCLASS
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`);
  return {
    newest: Number(newest![0]!["newest"]),
    holders: new Set(holders!.map(({ holder }) => holder!)),
  };
}
