/** What a lease holder must hear: its lease ended by someone else's hand. */
import type { EventType, TaskEndedNotice } from "@flowfabric/core";
import {
  executionIdOf,
  toNotice,
  type NoticeRecord,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";

interface NoticeRow extends NoticeRecord {
  readonly position: number;
  readonly holder: number;
  readonly id: Uint8Array | null;
  readonly partition: number;
}

const PAGE = 256;

const LOSSES: ReadonlySet<EventType> = new Set<EventType>([
  "lease_expired",
  "lease_revoked",
  "retry_scheduled",
  "cancelled",
  "expired",
]);

/** Whether the event, with its holder in it, tells that holder of a loss. */
export function isLoss(type: EventType): boolean {
  return LOSSES.has(type);
}

/** Notices of one instance after a position, and the position read up to. */
export function noticesAfter(
  store: Store,
  tx: Session,
  after: number,
  instanceId: string,
): { position: number; notices: TaskEndedNotice[] } {
  const rows = tx.all<NoticeRow>(NOTICES, after, PAGE);
  const notices = rows
    .filter(
      (row) =>
        row.id !== null &&
        store.holders.require(tx, row.holder).workerInstanceId === instanceId,
    )
    .map((row) =>
      toNotice(executionIdOf({ id: row.id!, partition: row.partition }), row),
    );
  return { position: rows.at(-1)?.position ?? after, notices };
}

export const NOTICES = `
  SELECT e.position, e.epoch, e.type, e.state, e.holder, e.reason, e.data, x.id, x.partition
  FROM events AS e
  LEFT JOIN executions AS x ON x.seq = e.execution
  WHERE e.position > ? AND e.holder IS NOT NULL AND e.type IN (5, 6, 17, 22, 23)
  ORDER BY e.position
  LIMIT ?`;
