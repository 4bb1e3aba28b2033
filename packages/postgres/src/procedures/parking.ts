/** Claims that wait: what this store drives and looks at meanwhile. */
import { HOME } from "@flowfabric/core";
import {
  parked as parkedOn,
  type Look,
  type Parking,
  type Presence,
} from "@flowfabric/core/sql";

import { few } from "../dialect.js";
import type { Store } from "../store.js";
import type { Ticket, WaitingClaim } from "../wakeups.js";
import { BELOW_CAP, FREE, IN_TIME, NEXT_DUE_INSTANT } from "./candidates.js";
import { NEXT_TIMER } from "./portions.js";
import type { Route } from "./routes.js";

/**
 * Tries until there is an answer that is not empty, or the wait is over.
 * @param claim may be handed something while it waits; the next try then answers it
 */
export async function parked<Answer>(
  store: Store,
  presence: Presence,
  maxWaitMs: number,
  signal: AbortSignal | undefined,
  parking: Parking<Answer>,
  claim?: WaitingClaim,
): Promise<Answer> {
  const parts = {
    wakeups: store.wakeups,
    wait: (ticket: Ticket, timeoutMs: number, ended: AbortSignal | undefined) =>
      store.wakeups.wait(ticket, timeoutMs, ended, claim),
    drive: () => store.driver.drive(store, presence),
    look: () => look(store, presence),
  };
  return await parkedOn(parts, presence, maxWaitMs, signal, parking);
}

/** By one statement, for whoever was rung for work is waiting for it. */
async function look(store: Store, presence: Presence): Promise<Look> {
  const offered = new Set(presence.capabilities);
  for (;;) {
    const routes = presence.lanes.flatMap((lane) =>
      store.routes.serveable(lane, offered, presence.namespace),
    );
    const [seen] = await store.db.look<Seen>(LOOK, wantedRoutes(routes));
    const { found, due, timer, at, newest_route: newest } = seen!;
    if (store.routes.isKnown(newest))
      return {
        found,
        dueInMs: due === null ? Infinity : due - at,
        timerInMs: timer === null ? Infinity : Math.max(0, timer - at),
      };
    // Another process has made a route that this look left out.
    await store.routes.refresh(store.db);
  }
}

interface Seen {
  readonly found: boolean;
  readonly due: number | null;
  readonly timer: number | null;
  readonly at: number;
  readonly newest_route: number;
}

/** Whether a claim could take any of these; ordered as the index is, which then is what it reads. */
const standsAt = (home: number, condition: string) => `EXISTS (
      SELECT 1
      FROM given, wanted, LATERAL (
        SELECT 1
        FROM executions
        WHERE route = wanted.route AND home = ${home} AND ${IN_TIME} ${condition}
        ORDER BY score
        LIMIT 1
      ) AS found
    )`;
const DUE = "AND score <= given.now";

/** A part of statements: the routes to look at. */
export const WANTED = `
  wanted AS MATERIALIZED (
    SELECT route
    FROM json_to_recordset(?::JSON) AS w (route BIGINT)
    WHERE ${few("route")}
  )`;

/** The value of {@link WANTED}. */
export const wantedRoutes = (routes: readonly Route[]): string =>
  JSON.stringify(routes.map(({ id }) => ({ route: id })));

/** \`given\` has the clock, \`wanted\` the routes. */
export const FOUND = `(${standsAt(HOME.eligible, "AND (grant_until IS NULL OR grant_until <= given.now)")}
    OR ${standsAt(HOME.delayed, DUE)}
    OR ${standsAt(HOME.lapsed, `${DUE} ${FREE}`)}
    OR ${standsAt(HOME.revoked, `${DUE} ${FREE}`)}
    OR ${standsAt(HOME.active, `${DUE} ${BELOW_CAP}`)})`;

const LOOK = `
  WITH given AS MATERIALIZED (
    SELECT now_ms() AS now
  ), ${WANTED}
  SELECT ${FOUND} AS found,
    (${NEXT_DUE_INSTANT}
    ) AS due, (${NEXT_TIMER}
    ) AS timer, (SELECT now FROM given) AS at, (SELECT coalesce(max(id), 0) FROM routes) AS newest_route`;
