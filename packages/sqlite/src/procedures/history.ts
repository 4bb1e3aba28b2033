/** The events of one execution, as its history shows them. */
import {
  EVENT_TYPES,
  TERMINAL_EVENT_TYPES,
  unpackState,
  type Args,
  type ExecutionEvent,
  type JsonValue,
} from "@flowfabric/core";
import { bytesToUuid, optional, parseJson } from "@flowfabric/core/sql";

import type { Session } from "../db.js";
import type { Store } from "../store.js";
import { findExecution } from "./executions.js";
import { ACTORS } from "./log.js";

interface EventRow {
  readonly n: number;
  readonly at: number;
  readonly type: number;
  readonly actor: number;
  readonly state: number | null;
  readonly from_state: number | null;
  readonly attempt: number | null;
  readonly epoch: number | null;
  readonly holder: number | null;
  readonly lease: Uint8Array | null;
  readonly attempt_id: Uint8Array | null;
  readonly reason: string | null;
  readonly data: string | null;
}

const TERMINAL: ReadonlySet<number> = new Set(
  TERMINAL_EVENT_TYPES.map((type) => EVENT_TYPES.indexOf(type)),
);

/** From `after` on. The newest are shown, the first and every end too; a marker stands for each gap. */
export function readHistory(
  store: Store,
  tx: Session,
  args: Args<"readEvents">,
): ExecutionEvent[] {
  const row = findExecution(store, tx, args);
  if (row === undefined) return [];
  const firstKept = row.events - store.options.eventsPerExecution + 1;
  const events: ExecutionEvent[] = [];
  let gapFrom: number | undefined;
  const closeGap = (before: number) => {
    if (gapFrom !== undefined)
      events.push(trimmed(gapFrom, before - 1, row.created_at));
    gapFrom = undefined;
  };
  for (const event of tx.all<EventRow>(READ_EVENTS, row.seq, args.after)) {
    if (events.length >= args.limit) break;
    if (event.n < firstKept && event.n !== 1 && !TERMINAL.has(event.type)) {
      gapFrom ??= event.n;
      continue;
    }
    closeGap(event.n);
    events.push(toEvent(store, tx, event));
  }
  return events.slice(0, args.limit);
}

/** Its number is that of the last event it stands for, so that reading on behind it goes on behind the gap. */
function trimmed(fromSeq: number, toSeq: number, atMs: number): ExecutionEvent {
  return {
    seq: toSeq,
    atMs,
    type: "trimmed",
    actor: "engine",
    data: { fromSeq, toSeq },
  };
}

function toEvent(store: Store, tx: Session, row: EventRow): ExecutionEvent {
  const holder = store.holders.find(tx, row.holder);
  const fromState =
    row.state === null || row.from_state === null
      ? undefined
      : unpackState(row.from_state);
  const data: Record<string, JsonValue> = {
    ...(row.data === null
      ? {}
      : parseJson<Record<string, JsonValue>>(row.data, "event data")),
    ...(row.lease === null ? {} : { leaseId: bytesToUuid(row.lease) }),
    ...(row.attempt_id === null
      ? {}
      : { attemptId: bytesToUuid(row.attempt_id) }),
    ...(holder === undefined
      ? {}
      : {
          workerId: holder.workerId,
          workerInstanceId: holder.workerInstanceId,
        }),
  };
  return {
    seq: row.n,
    atMs: row.at,
    type: EVENT_TYPES[row.type]!,
    ...optional("fromState", fromState),
    ...optional(
      "toState",
      row.state === null ? undefined : unpackState(row.state),
    ),
    ...optional("attemptIndex", row.attempt),
    ...optional("leaseEpoch", row.epoch),
    actor: ACTORS[row.actor]!,
    ...optional("reason", row.reason),
    ...(Object.keys(data).length === 0 ? {} : { data }),
  };
}

/** Each with the state before it: the newest one that an earlier event has. */
export const READ_EVENTS = `
  SELECT n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, reason, data,
    (
      SELECT earlier.state
      FROM events AS earlier
      WHERE earlier.execution = e.execution AND earlier.n < e.n AND earlier.state IS NOT NULL
      ORDER BY earlier.n DESC
      LIMIT 1
    ) AS from_state
  FROM events AS e
  WHERE execution = ? AND n > ?
  ORDER BY n`;
