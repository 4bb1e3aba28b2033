/** The events of one execution, as its history shows them. */
import {
  EVENT_TYPES,
  TERMINAL_EVENT_TYPES,
  type Args,
  type ExecutionEvent,
} from "@flowfabric/core";
import {
  toEvent,
  trimmedEvent,
  type HistoryRecord,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { findExecution } from "./executions.js";

interface HistoryRow extends HistoryRecord {
  readonly holder: number | null;
}

const TERMINAL: ReadonlySet<number> = new Set(
  TERMINAL_EVENT_TYPES.map((type) => EVENT_TYPES.indexOf(type)),
);

/** From `after` on. The newest are shown, the first and every end too; a marker stands for each gap. */
export async function readHistory(
  store: Store,
  tx: Session,
  args: Args<"readEvents">,
): Promise<ExecutionEvent[]> {
  const row = await findExecution(store, tx, args);
  if (row === undefined) return [];
  const firstKept = row.events - store.options.eventsPerExecution + 1;
  const events: ExecutionEvent[] = [];
  let gapFrom: number | undefined;
  const closeGap = (before: number) => {
    if (gapFrom !== undefined)
      events.push(trimmedEvent(gapFrom, before - 1, row.created_at));
    gapFrom = undefined;
  };
  for (const event of await tx.all<HistoryRow>(
    READ_EVENTS,
    row.seq,
    args.after,
  )) {
    if (events.length >= args.limit) break;
    if (event.n < firstKept && event.n !== 1 && !TERMINAL.has(event.type)) {
      gapFrom ??= event.n;
      continue;
    }
    closeGap(event.n);
    events.push(toEvent(event, store.holders.find(event.holder)));
  }
  return events.slice(0, args.limit);
}

/** Each with the state before it: the newest one that an earlier event has. */
const READ_EVENTS = `
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
