/** Views of the log over all executions, read on from a position. */
import {
  closableIterable,
  engineError,
  FEED_BUFFER_EVENTS,
  isEngineError,
  type Args,
  type LaneId,
  type Namespace,
} from "@flowfabric/core";
import {
  executionIdOf,
  formatCursor,
  matches,
  parseCursor,
  parseJson,
  type Convert,
  type FeedCommon,
  type FeedRow,
} from "@flowfabric/core/sql";

import { setTimeout as pause } from "node:timers/promises";

import type { Session } from "../db.js";
import { translateError } from "../errors.js";
import type { Store } from "../store.js";

/** Rows looked at per step: bounds the time of one look, whatever stands between two events of a family. */
const SCAN_ROWS = 4_096;
const FEED_WAIT_MS = 30_000;
/** News come with every commit; a look gathers those of this span. */
const FEED_PACE_MS = 5;

/** Resolves the position first, so that what happens after the call is delivered. */
export async function openFeed<Event>(
  store: Store,
  args: Args<"subscribeCompletion">,
  types: readonly number[],
  convert: Convert<Event>,
): Promise<AsyncIterable<Event>> {
  store.wakeups.requireOpen();
  const newest = await store.horizon.read(store);
  const start = await store.db.read(
    async (tx) => await resolveCursor(tx, args.cursor, newest),
  );
  return closableIterable(
    (signal) => feed(store, args, start, types, convert, signal),
    args.signal,
  );
}

async function* feed<Event>(
  store: Store,
  args: Args<"subscribeCompletion">,
  start: number,
  types: readonly number[],
  convert: Convert<Event>,
  signal: AbortSignal,
): AsyncGenerator<Event, void> {
  let position = start;
  const ended = () => signal.aborted || store.wakeups.closed;
  while (!ended()) {
    const ticket = store.wakeups.ticket("news");
    let page;
    try {
      const from = position;
      const newest = await store.horizon.read(store);
      page = await store.db.read(
        async (tx) =>
          await readPage(store, tx, from, newest, args, types, convert),
      );
    } catch (error) {
      if (store.wakeups.closed) return;
      if (
        isEngineError(error, "cursor_expired") ||
        isEngineError(error, "corruption")
      )
        throw error;
      throw engineError(
        "stream_disconnected",
        { cursor: formatCursor(position) },
        translateError(error, "feed"),
      );
    }
    for (const { event, at } of page.events) {
      position = at;
      yield event;
      // Aborted while the consumer was busy: what is left stays behind its cursor.
      if (ended()) return;
    }
    position = page.position;
    if (!page.more) {
      await store.wakeups.wait(ticket, FEED_WAIT_MS, signal);
      await pause(FEED_PACE_MS);
    }
  }
}

async function readPage<Event>(
  store: Store,
  tx: Session,
  after: number,
  newest: number,
  args: Args<"subscribeCompletion">,
  types: readonly number[],
  convert: Convert<Event>,
): Promise<{
  events: { event: Event; at: number }[];
  position: number;
  more: boolean;
}> {
  const floor = await readSetting(tx, "feed_floor");
  if (after < floor)
    throw engineError("cursor_expired", { earliest: formatCursor(floor) });
  const upTo = Math.max(after, Math.min(newest, after + SCAN_ROWS));
  const rows = await tx.all<FeedRow>(
    FEED_PAGE,
    after,
    upTo,
    types,
    FEED_BUFFER_EVENTS,
  );
  const events: { event: Event; at: number }[] = [];
  for (const row of rows) {
    const route = store.routes.require(row.route);
    const tags =
      row.tags === null
        ? {}
        : parseJson<Record<string, string>>(row.tags, "tags");
    if (!matches(args, row.partition, route.namespace, tags)) continue;
    const common: FeedCommon = {
      cursor: formatCursor(row.position),
      executionId: executionIdOf(row),
      atMs: row.at,
      namespace: route.namespace as Namespace,
      tags,
    };
    const event = convert(row, common, {
      laneId: route.lane as LaneId,
      holder: store.holders.find(row.holder),
    });
    if (event !== undefined) events.push({ event, at: row.position });
  }
  const full = rows.length === FEED_BUFFER_EVENTS;
  const position = full ? rows.at(-1)!.position : upTo;
  return { events, position, more: position < newest };
}

async function resolveCursor(
  tx: Session,
  cursor: string | undefined,
  newest: number,
): Promise<number> {
  if (cursor === undefined || cursor === "") return newest;
  const floor = await readSetting(tx, "feed_floor");
  return parseCursor(cursor, { floor, newest });
}

async function readSetting(tx: Session, name: "feed_floor"): Promise<number> {
  return (await tx.get<{ value: number }>(READ_SETTING, name))!.value;
}

const READ_SETTING = `
  SELECT value
  FROM settings
  WHERE name = ?`;

/** Each row looks its execution up; a join of tables would read them whole for a page. */
const FEED_PAGE = `
  SELECT e.position, e.at, e.type, e.state, e.attempt, e.epoch, e.holder, e.lease, e.attempt_id, e.reason, e.data, e.tags,
    about.id, about.partition, about.route
  FROM events AS e
  LEFT JOIN LATERAL (
    SELECT id, partition, route
    FROM executions
    WHERE seq = e.execution
    UNION ALL
    SELECT id, partition, route
    FROM purged
    WHERE seq = e.execution
    LIMIT 1
  ) AS about ON TRUE
  WHERE e.position > ? AND e.position <= ? AND e.type = ANY(?::BIGINT[])
  ORDER BY e.position
  LIMIT ?`;
