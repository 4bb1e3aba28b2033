/** Appending to the one log. */
import {
  ATTEMPT_STATES,
  BLOCKING_REASONS,
  EVENT_TYPES,
  packState,
  type EventActor,
  type EventType,
  type JsonValue,
} from "@flowfabric/core";
import { ACTORS, type ExecutionRow } from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import { isLoss } from "./notices.js";

export interface EventFields {
  /** Left out where the event is no transition. */
  readonly transition?: boolean;
  readonly attempt?: boolean;
  /** The lease that begins or that was taken away; with it its holder. */
  readonly lease?: Uint8Array | null;
  readonly holder?: number | null;
  readonly attemptId?: Uint8Array | null;
  readonly reason?: string | undefined;
  readonly data?: { readonly [key: string]: JsonValue } | undefined;
}

/**
 * Numbers the event and counts it on the row; the caller saves the row. Its state is the one the row has now.
 * @returns its position in the log
 */
export function appendEvent(
  tx: Session,
  row: ExecutionRow,
  type: EventType,
  atMs: number,
  actor: EventActor,
  fields: EventFields = {},
): number {
  row.events++;
  return insert(tx, row, row.events, type, atMs, actor, fields);
}

/** Shown in feeds only; takes no number of the execution. */
export function appendFeedEvent(
  tx: Session,
  row: ExecutionRow,
  type: EventType,
  atMs: number,
  actor: EventActor,
  fields: EventFields,
): void {
  insert(tx, row, null, type, atMs, actor, fields);
}

function insert(
  tx: Session,
  row: ExecutionRow,
  n: number | null,
  type: EventType,
  atMs: number,
  actor: EventActor,
  fields: EventFields,
): number {
  const { transition = true, attempt = row.attempts > 0 } = fields;
  const position = tx.nextPosition();
  if (typeof fields.holder === "number" && isLoss(type)) tx.noteLoss();
  tx.run(
    INSERT_EVENT,
    position,
    row.seq,
    n,
    atMs,
    EVENT_TYPES.indexOf(type),
    ACTORS.indexOf(actor),
    transition
      ? packState(
          row.home,
          BLOCKING_REASONS[row.reason]!,
          ATTEMPT_STATES[row.attempt_state]!,
        )
      : null,
    attempt ? row.attempt : null,
    row.epoch > 0 ? row.epoch : null,
    fields.holder ?? null,
    fields.lease ?? null,
    fields.attemptId ?? null,
    fields.reason ?? null,
    fields.data === undefined ? null : JSON.stringify(fields.data),
    row.tags,
  );
  return position;
}

export const INSERT_EVENT = `
  INSERT INTO events
    (position, execution, n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, reason, data, tags)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;
