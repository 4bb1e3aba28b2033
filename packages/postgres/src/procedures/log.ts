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

export const actorCode = (actor: EventActor): number => ACTORS.indexOf(actor);
export const eventCode = (type: EventType): number => EVENT_TYPES.indexOf(type);

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

/** Numbers the event and counts it on the row; the caller saves the row. Its state is the one the row has now. */
export function appendEvent(
  tx: Session,
  row: ExecutionRow,
  type: EventType,
  atMs: number,
  actor: EventActor,
  fields: EventFields = {},
): void {
  row.events++;
  insert(tx, row, row.events, type, atMs, actor, fields);
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
): void {
  const { transition = true, attempt = row.attempts > 0 } = fields;
  tx.event({
    execution: row.seq,
    n,
    at: atMs,
    type: eventCode(type),
    actor: actorCode(actor),
    state: transition
      ? packState(
          row.home,
          BLOCKING_REASONS[row.reason]!,
          ATTEMPT_STATES[row.attempt_state]!,
        )
      : null,
    attempt: attempt ? row.attempt : null,
    epoch: row.epoch > 0 ? row.epoch : null,
    holder: fields.holder ?? null,
    lease: hexOf(fields.lease),
    attempt_id: hexOf(fields.attemptId),
    reason: fields.reason ?? null,
    data: fields.data === undefined ? null : JSON.stringify(fields.data),
    tags: row.tags,
  });
}

function hexOf(bytes: Uint8Array | null | undefined): string | null {
  return bytes === null || bytes === undefined
    ? null
    : Buffer.from(bytes).toString("hex");
}
