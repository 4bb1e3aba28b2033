/** Views of the log over all executions, read on from a position. */
import {
  closableIterable,
  engineError,
  isEngineError,
  type Args,
  type FeedCursor,
} from "@flowfabric/core";
import {
  eventsOf,
  matches,
  type Convert,
  type FeedContext,
  type FeedRecord,
} from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { listOf, optionalText, textOf, type Reply } from "../connection.js";
import { translateError } from "../errors.js";
import { readRef } from "../rows.js";
import type { Store } from "../store.js";
import { toOptionalHolder } from "./holders.js";
import { findFirst, type Part } from "./merged.js";
import { News } from "./news.js";
import {
  cursorExpired,
  formatCursor,
  isBefore,
  resolveCursor,
  type Position,
} from "./positions.js";

/** An entry of the stream, with what stands beside it. */
interface FeedRow extends FeedRecord {
  readonly position: Position;
  readonly route: FeedContext["route"];
  /** The name of the lease's holder. */
  readonly holder: Reply;
}

/** As read_feed in lua/functions/events.lua says it. */
function toFeedRow(values: readonly Reply[]): FeedRow {
  const { id, partition } = readRef(values[12]);
  return {
    position: textOf(values[0]!),
    at: values[1],
    type: values[2],
    state: values[3],
    attempt: values[4],
    epoch: values[5],
    holder: values[6],
    lease: values[7],
    attempt_id: values[8],
    reason: optionalText(values[9]),
    data: optionalText(values[10]),
    tags: optionalText(values[11]),
    id,
    partition,
    route: { namespace: textOf(values[13]!), lane: textOf(values[14]!) },
  } as FeedRow;
}

type FeedEvent = { readonly cursor: FeedCursor };
type SubscribeArgs = Args<"subscribeCompletion">;

/** Entries looked at per call: bounds the time of one look, whatever stands between two events of a family. */
const SCAN_ENTRIES = 512;
const FEED_WAIT_MS = 30_000;

/** One cell's events. */
interface FeedPart extends Part<FeedRow> {
  readonly cell: Cell;
  /** All up to here is among the items, or was delivered, or is none of this feed's. */
  readTo: Position;
}

/** Resolves the position first, so that what happens after the call is delivered. */
export async function openFeed<Event extends FeedEvent>(
  store: Store,
  args: SubscribeArgs,
  types: readonly number[],
  convert: Convert<Event>,
): Promise<AsyncIterable<Event>> {
  store.wakeups.requireOpen();
  const cells =
    args.partition === undefined
      ? store.cells.all
      : [store.cells.ofPartition(args.partition)];
  const start = await resolveCursor(store, args.cursor, cells);
  return closableIterable(
    (signal) => feed(store, args, { cells, start, types, convert, signal }),
    args.signal,
  );
}

interface Feeding<Event> {
  readonly cells: readonly Cell[];
  readonly start: readonly Position[];
  readonly types: readonly number[];
  readonly convert: Convert<Event>;
  readonly signal: AbortSignal;
}

async function* feed<Event extends FeedEvent>(
  store: Store,
  args: SubscribeArgs,
  { cells, start, types, convert, signal }: Feeding<Event>,
): AsyncGenerator<Event, void> {
  const positions = [...start];
  const parts = cells.map((cell) =>
    feedPart(store, cell, positions[cell.index]!, args, types),
  );
  const news = new News(store.wakeups);
  const ended = () => signal.aborted || store.wakeups.closed;
  while (!ended()) {
    news.look();
    for (const part of parts) part.isRead = false;
    for (;;) {
      const first = await nextOf(store, parts, positions);
      if (first === undefined) break;
      const row = first.items.shift()!;
      const before = formatCursor(positions);
      passOver(row.position, parts, positions);
      const converted = convert(row, {
        cursor: formatCursor(positions),
        route: row.route,
        holder: toOptionalHolder(row.holder),
      });
      for (const event of eventsOf(converted, before)) {
        yield event;
        // Aborted while the consumer was busy: what is left stays behind its cursor.
        if (ended()) return;
      }
      if (ended()) return;
    }
    await news.wait(FEED_WAIT_MS, signal);
  }
}

/** All that stands before this event is behind whoever has it, in every cell, as far as it was read. */
function passOver(
  position: Position,
  parts: readonly FeedPart[],
  positions: Position[],
): void {
  for (const { cell, readTo } of parts) {
    const passed = isBefore(readTo, position) ? readTo : position;
    if (isBefore(positions[cell.index]!, passed))
      positions[cell.index] = passed;
  }
}

/** The part that has the next event; nothing where all has been read, or the store closes. */
async function nextOf(
  store: Store,
  parts: readonly FeedPart[],
  positions: readonly Position[],
): Promise<FeedPart | undefined> {
  try {
    return await findFirst<FeedRow, FeedPart>(parts, (a, b) =>
      isBefore(a.position, b.position),
    );
  } catch (error) {
    if (store.wakeups.closed) return undefined;
    if (
      isEngineError(error, "cursor_expired") ||
      isEngineError(error, "corruption")
    )
      throw error;
    const reached = [...positions];
    for (const { cell, items, readTo } of parts)
      if (items.length === 0) reached[cell.index] = readTo;
    throw engineError(
      "stream_disconnected",
      { cursor: formatCursor(reached) },
      translateError(error, "feed"),
    );
  }
}

function feedPart(
  store: Store,
  cell: Cell,
  start: Position,
  args: SubscribeArgs,
  types: readonly number[],
): FeedPart {
  const part: FeedPart = {
    cell,
    readTo: start,
    items: [],
    isRead: false,
    async readOn() {
      const [, upTo, more, rows] = await cell.call(
        "read_feed",
        part.readTo,
        SCAN_ENTRIES,
        ...types,
      );
      if (upTo === undefined) throw await cursorExpired(store);
      part.readTo = textOf(upTo);
      part.isRead = more === 0;
      part.items = listOf(rows)
        .map((row) => toFeedRow(listOf(row)))
        .filter((row) => matches(args, row, row.route.namespace));
    },
  };
  return part;
}
