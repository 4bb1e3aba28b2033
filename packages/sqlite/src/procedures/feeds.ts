/** Views of the log over all executions, read on from a position. */
import {
  closableIterable,
  engineError,
  FEED_BUFFER_EVENTS,
  isEngineError,
  type Args,
  type FeedCursor,
} from "@flowfabric/core";
import {
  eventsOf,
  formatCursor,
  matches,
  parseCursor,
  type Convert,
  type FeedRecord,
} from "@flowfabric/core/sql";

import { translateError } from "../errors.js";
import type { Session } from "../session.js";
import type { Store } from "../store.js";

/** Rows looked at per step: bounds the time of one look, whatever stands between two events of a family. */
const SCAN_ROWS = 4_096;
const FEED_WAIT_MS = 30_000;

type FeedEvent = { readonly cursor: FeedCursor };

interface FeedRow extends FeedRecord {
  readonly position: number;
  readonly route: number;
  readonly holder: number | null;
}

/** Resolves the position first, so that what happens after the call is delivered. */
export async function openFeed<Event extends FeedEvent>(
  store: Store,
  args: Args<"subscribeCompletion">,
  types: readonly number[],
  convert: Convert<Event>,
): Promise<AsyncIterable<Event>> {
  store.wakeups.requireOpen();
  const start = await store.db.read((tx) => resolveCursor(tx, args.cursor));
  return closableIterable(
    (signal) => feed(store, args, start, types, convert, signal),
    args.signal,
  );
}

async function* feed<Event extends FeedEvent>(
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
      page = await store.db.read((tx) =>
        readPage(store, tx, from, args, types, convert),
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
    if (!page.more) await store.wakeups.wait(ticket, FEED_WAIT_MS, signal);
  }
}

function readPage<Event extends FeedEvent>(
  store: Store,
  tx: Session,
  after: number,
  args: Args<"subscribeCompletion">,
  types: readonly number[],
  convert: Convert<Event>,
): { events: { event: Event; at: number }[]; position: number; more: boolean } {
  const floor = readSetting(tx, "feed_floor");
  if (after < floor)
    throw engineError("cursor_expired", { earliest: formatCursor(floor) });
  const newest = readSetting(tx, "position");
  const upTo = Math.min(newest, after + SCAN_ROWS);
  const rows = tx.all<FeedRow>(
    FEED_PAGE,
    after,
    upTo,
    JSON.stringify(types),
    FEED_BUFFER_EVENTS,
  );
  const events: { event: Event; at: number }[] = [];
  for (const row of rows) {
    const route = store.routes.require(tx, row.route);
    if (!matches(args, row, route.namespace)) continue;
    const converted = convert(row, {
      cursor: formatCursor(row.position),
      route,
      holder: store.holders.find(tx, row.holder),
    });
    const before = formatCursor(row.position - 1);
    for (const event of eventsOf(converted, before)) {
      const at = event.cursor === before ? row.position - 1 : row.position;
      events.push({ event, at });
    }
  }
  const full = rows.length === FEED_BUFFER_EVENTS;
  const position = full ? rows.at(-1)!.position : upTo;
  return { events, position, more: position < newest };
}

function resolveCursor(tx: Session, cursor: string | undefined): number {
  const newest = readSetting(tx, "position");
  if (cursor === undefined || cursor === "") return newest;
  const floor = readSetting(tx, "feed_floor");
  return parseCursor(cursor, { floor, newest });
}

function readSetting(tx: Session, name: "position" | "feed_floor"): number {
  return tx.get<{ value: number }>(READ_SETTING, name)!.value;
}

const READ_SETTING = `
  SELECT value
  FROM settings
  WHERE name = ?`;

export const FEED_PAGE = `
  SELECT e.position, e.at, e.type, e.state, e.attempt, e.epoch, e.holder, e.lease, e.attempt_id, e.reason, e.data, e.tags,
    coalesce(x.id, p.id) AS id, coalesce(x.partition, p.partition) AS partition, coalesce(x.route, p.route) AS route
  FROM events AS e
  LEFT JOIN executions AS x ON x.seq = e.execution
  LEFT JOIN purged AS p ON p.seq = e.execution
  WHERE e.position > ? AND e.position <= ? AND e.type IN (SELECT value FROM json_each(?))
  ORDER BY e.position
  LIMIT ?`;
