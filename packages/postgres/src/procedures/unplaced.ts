/**
 * Events of feeds that a caller's transaction wrote: the tags of what it made. They have no position, for whoever draws one
 * holds back all feeds to the end of his transaction. They are given one, and the time of that, before anything behind them
 * is read or told; until then nobody misses them.
 */
import type { ExecutionRow } from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";

/** For a reader of their feed. Several at once share them. */
export async function placeAll(store: Store): Promise<void> {
  for (let after = 0; ;) {
    const placed = await store.db.query<{ execution: number }>(
      PLACE_PAGE,
      after,
      PAGE,
    );
    if (placed.length < PAGE) return;
    after = placed.reduce(
      (last, { execution }) => Math.max(last, execution),
      after,
    );
  }
}

/** In front of the next event of this execution's tags. */
export function placeOf(tx: Session, row: ExecutionRow): void {
  tx.run(PLACE_ONE, row.seq);
}

const PAGE = 1_000;

const placed = (which: string) => `
  UPDATE events
  SET position = nextval('{schema}.events_position'), at = greatest(at, now_ms())
  WHERE position IS NULL AND n IS NULL AND execution ${which}`;

const PLACE_PAGE = `${placed(`= ANY(ARRAY(
    SELECT execution
    FROM events
    WHERE position IS NULL AND n IS NULL AND execution > ?
    ORDER BY execution
    LIMIT ?
    FOR UPDATE SKIP LOCKED
  ))`)}
  RETURNING execution`;

const PLACE_ONE = placed("= ?");
