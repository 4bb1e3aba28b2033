/** Views of the log over all executions, read on from a position. */
import {
  closableIterable,
  EARLIEST,
  engineError,
  EVENT_TYPES,
  FEED_BUFFER_EVENTS,
  isEngineError,
  unpackState,
  type AcquireReason,
  type Args,
  type AttemptId,
  type CompletionEvent,
  type EventType,
  type ExecutionId,
  type FeedCursor,
  type LaneId,
  type LeaseHistoryEvent,
  type LeaseId,
  type Namespace,
} from "@flowfabric/core";

import { setTimeout as pause } from "node:timers/promises";

import type { Session } from "../db.js";
import { translateError } from "../errors.js";
import { bytesToUuid, executionIdOf, parseJson } from "../rows.js";
import type { Store } from "../store.js";
import type { Holder } from "./holders.js";

const codesOf = (...types: EventType[]) =>
  types.map((type) => EVENT_TYPES.indexOf(type));
export const COMPLETION_TYPES = codesOf(
  "completed",
  "failed",
  "cancelled",
  "expired",
  "skipped",
);
export const LEASE_TYPES = codesOf(
  "claimed",
  "resumed",
  "reclaimed",
  "lease_expired",
  "lease_revoked",
  "cancelled",
  "renewed",
);

/** One row of the log with what its execution adds, gone or not. */
interface FeedRow {
  readonly position: number;
  readonly at: number;
  readonly type: number;
  readonly state: number | null;
  readonly attempt: number | null;
  readonly epoch: number | null;
  readonly holder: number | null;
  readonly lease: Uint8Array | null;
  readonly attempt_id: Uint8Array | null;
  readonly reason: string | null;
  readonly data: string | null;
  readonly tags: string | null;
  readonly id: Uint8Array;
  readonly partition: number;
  readonly route: number;
}

interface Common {
  readonly cursor: FeedCursor;
  readonly executionId: ExecutionId;
  readonly atMs: number;
  readonly namespace: Namespace;
  readonly tags: Readonly<Record<string, string>>;
}

type Convert<Event> = (
  row: FeedRow,
  common: Common,
  context: { readonly laneId: LaneId; readonly holder: Holder | undefined },
) => Event | undefined;

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
    const common: Common = {
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

function matches(
  args: Args<"subscribeCompletion">,
  partition: number,
  namespace: string,
  tags: Record<string, string>,
): boolean {
  const { namespace: wanted, instanceTag } = args.filter;
  if (args.partition !== undefined && args.partition !== partition)
    return false;
  if (wanted !== undefined && wanted !== namespace) return false;
  return instanceTag === undefined || tags[instanceTag[0]] === instanceTag[1];
}

export const toCompletion: Convert<CompletionEvent> = (
  row,
  common,
  { laneId },
) => {
  const outcome =
    row.state === null ? undefined : unpackState(row.state)?.terminalOutcome;
  if (outcome === undefined || outcome === "none")
    throw engineError("corruption", {
      context: "event",
      field: "state",
      message: `position ${row.position}`,
    });
  return {
    ...common,
    kind: "completion",
    outcome: outcome === "failed" ? "failure" : outcome,
    laneId,
    attemptIndex: row.attempt ?? 0,
  };
};

export const toLeaseHistory: Convert<LeaseHistoryEvent> = (
  row,
  common,
  { holder },
) => {
  // A cancellation tells of a lease only where it took one away.
  if (holder === undefined || row.lease === null) return undefined;
  const leaseId = bytesToUuid(row.lease) as LeaseId;
  const { workerId, workerInstanceId } = holder;
  const attemptIndex = row.attempt ?? 0;
  const leaseEpoch = row.epoch ?? 0;
  switch (EVENT_TYPES[row.type]) {
    case "claimed":
    case "resumed": {
      const resumed = EVENT_TYPES[row.type] === "resumed";
      const reason = (row.reason ??
        (resumed ? "claim_resumed" : "claim")) as AcquireReason;
      const attemptId = bytesToUuid(row.attempt_id!) as AttemptId;
      return {
        ...common,
        kind: "acquired",
        leaseId,
        leaseEpoch,
        workerId,
        workerInstanceId,
        attemptIndex,
        attemptId,
        reason,
      };
    }
    case "reclaimed":
      return {
        ...common,
        kind: "reclaimed",
        newLeaseId: leaseId,
        newOwner: workerInstanceId,
        attemptIndex,
      };
    case "lease_expired":
      return {
        ...common,
        kind: "expired",
        leaseId,
        prevOwner: workerInstanceId,
      };
    case "lease_revoked":
      return {
        ...common,
        kind: "revoked",
        leaseId,
        revokedBy: row.reason ?? "operator",
      };
    case "cancelled":
      return { ...common, kind: "revoked", leaseId, revokedBy: "operator" };
    case "renewed": {
      const { expiresAtMs } = parseJson<{ expiresAtMs: number }>(
        row.data ?? "{}",
        "event data",
      );
      return {
        ...common,
        kind: "renewed",
        leaseId,
        leaseEpoch,
        workerInstanceId,
        expiresAtMs,
      };
    }
    default:
      return undefined;
  }
};

/** One byte for the kind of store, eight for the position; text as base64url. */
const PREFIX = 0x03;

function formatCursor(position: number): FeedCursor {
  const bytes = Buffer.alloc(9);
  bytes[0] = PREFIX;
  bytes.writeBigUInt64BE(BigInt(position), 1);
  return bytes.toString("base64url");
}

async function resolveCursor(
  tx: Session,
  cursor: string | undefined,
  newest: number,
): Promise<number> {
  if (cursor === undefined || cursor === "") return newest;
  const floor = await readSetting(tx, "feed_floor");
  if (cursor === EARLIEST) return floor;
  const bytes = Buffer.from(cursor, "base64url");
  const position =
    bytes.length === 9 && bytes[0] === PREFIX
      ? Number(bytes.readBigUInt64BE(1))
      : Number.NaN;
  if (
    !Number.isSafeInteger(position) ||
    position > newest ||
    formatCursor(position) !== cursor
  )
    throw engineError("invalid_offset", { value: cursor });
  if (position < floor)
    throw engineError("cursor_expired", { earliest: formatCursor(floor) });
  return position;
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
