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
  TAG_TYPES,
  type Convert,
  type FeedRecord,
} from "@flowfabric/core/sql";

import { setTimeout as pause } from "node:timers/promises";

import { translateError } from "../errors.js";
import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { placeAll } from "./unplaced.js";

/** Rows looked at per step: bounds the time of one look, whatever stands between two events of a family. */
const SCAN_ROWS = 4_096;
const FEED_WAIT_MS = 30_000;
/** News come with every commit; a look gathers those of this span. */
const FEED_PACE_MS = 5;

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
  const newest = await readHorizon(store, types);
  const start = await resolveCursor(store, args.cursor, newest);
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
      const newest = await readHorizon(store, types);
      if (ended()) return;
      page = await readPage(store, from, newest, args, types, convert);
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

async function readHorizon(
  store: Store,
  types: readonly number[],
): Promise<number> {
  if (types === TAG_TYPES) await placeAll(store);
  return await store.horizon.read(store);
}

async function readPage<Event extends FeedEvent>(
  store: Store,
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
  const upTo = Math.max(after, Math.min(newest, after + SCAN_ROWS));
  const { floor, rows } = await store.feedPages.read(store, after, upTo, types);
  if (after < floor)
    throw engineError("cursor_expired", { earliest: formatCursor(floor) });
  const events: { event: Event; at: number }[] = [];
  for (const row of rows) {
    const route = store.routes.require(row.route);
    if (!matches(args, row, route.namespace)) continue;
    const converted = convert(row, {
      cursor: formatCursor(row.position),
      route,
      holder: store.holders.find(row.holder),
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

interface FeedPage {
  readonly floor: number;
  readonly rows: readonly FeedRow[];
}

/** Most feeds of a process stand at the same place, the newest: those that look there at the same time look once. */
export class FeedPages {
  readonly #underWay = new Map<string, Promise<FeedPage>>();

  read(
    store: Store,
    after: number,
    upTo: number,
    types: readonly number[],
  ): Promise<FeedPage> {
    const place = [after, upTo, ...types].join();
    let page = this.#underWay.get(place);
    if (page === undefined) {
      const over = () => this.#underWay.delete(place);
      page = store.db.read(async (tx) => ({
        floor: await readSetting(tx, "feed_floor"),
        rows: await tx.all<FeedRow>(
          FEED_PAGE,
          after,
          upTo,
          types,
          FEED_BUFFER_EVENTS,
        ),
      }));
      this.#underWay.set(place, page);
      page.then(over, over);
    }
    return page;
  }
}

async function resolveCursor(
  store: Store,
  cursor: string | undefined,
  newest: number,
): Promise<number> {
  if (cursor === undefined || cursor === "") return newest;
  const floor = await store.db.read((tx) => readSetting(tx, "feed_floor"));
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
