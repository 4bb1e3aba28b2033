/** Claims that wait: what this store drives and looks at meanwhile. */
import {
  parked as parkedOn,
  type Look,
  type Parking,
  type Presence,
} from "@flowfabric/core/sql";

import type { Store } from "../store.js";
import type { Ticket } from "../wakeups.js";
import { findCandidates, nextDueAtMs } from "./candidates.js";

/** Whoever finds something need not know what else is to come. */
const FOUND: Look = { found: true, dueInMs: 0, timerInMs: Infinity };

/** Tries until there is an answer that is not empty, or the wait is over. */
export async function parked<Answer>(
  store: Store,
  presence: Presence,
  maxWaitMs: number,
  signal: AbortSignal | undefined,
  parking: Parking<Answer>,
): Promise<Answer> {
  const offered = new Set(presence.capabilities);
  const parts = {
    wakeups: store.wakeups,
    wait: (ticket: Ticket, timeoutMs: number, ended: AbortSignal | undefined) =>
      store.wakeups.wait(ticket, timeoutMs, ended),
    drive: () => store.driver.drive(store, presence),
    look: () =>
      store.db.read((tx) => {
        const now = tx.now();
        store.routes.refresh(tx);
        const routes = presence.lanes.flatMap((lane) =>
          store.routes.serveable(lane, offered, presence.namespace),
        );
        if (findCandidates(tx, routes, now, 1).length > 0) return FOUND;
        return {
          found: false,
          dueInMs: (nextDueAtMs(tx, routes, now) ?? Infinity) - now,
          timerInMs: store.driver.nextTimerInMs(tx) ?? Infinity,
        };
      }),
  };
  return await parkedOn(parts, presence, maxWaitMs, signal, parking);
}
