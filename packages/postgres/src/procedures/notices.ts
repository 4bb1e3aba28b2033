/** What a lease holder must hear: its lease ended by someone else's hand. */
import type { TaskEndedNotice } from "@flowfabric/core";
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

/** Notices of one instance after a position, and the position read up to. */
export async function noticesAfter(
  store: Store,
  tx: Session,
  after: number,
  upTo: number,
  instanceId: string,
): Promise<{ position: number; notices: TaskEndedNotice[] }> {
  const rows = await tx.all<NoticeRow>(NOTICES, after, upTo, PAGE);
  const notices = rows
    .filter(
      (row) =>
        row.id !== null &&
        store.holders.require(row.holder).workerInstanceId === instanceId,
    )
    .map((row) =>
      toNotice(executionIdOf({ id: row.id!, partition: row.partition }), row),
    );
  const full = rows.length === PAGE;
  return { position: full ? rows.at(-1)!.position : upTo, notices };
}

const NOTICES = `
  SELECT e.position, e.epoch, e.type, e.state, e.holder, e.reason, e.data, about.id, about.partition
  FROM events AS e
  LEFT JOIN LATERAL (
    SELECT id, partition
    FROM executions
    WHERE seq = e.execution
    LIMIT 1
  ) AS about ON TRUE
  WHERE e.position > ? AND e.position <= ? AND e.holder IS NOT NULL AND e.type IN (5, 6, 17, 22, 23)
  ORDER BY e.position
  LIMIT ?`;

/** Seldom anything: only then is it worth asking how far may be read. */
export const ANY_NOTICE = `
  SELECT 1
  FROM events
  WHERE position > ? AND holder IS NOT NULL AND type IN (5, 6, 17, 22, 23)
  LIMIT 1`;
