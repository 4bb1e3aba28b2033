/** What a lease holder must hear: its lease ended by someone else's hand. */
import {
  EVENT_TYPES,
  unpackState,
  type EventType,
  type TaskEndedNotice,
} from "@flowfabric/core";
import { executionIdOf, optional, parseJson } from "@flowfabric/core/sql";

import type { Session } from "../db.js";
import type { Store } from "../store.js";

interface NoticeRow {
  readonly position: number;
  readonly epoch: number;
  readonly type: number;
  readonly state: number | null;
  readonly holder: number;
  readonly reason: string | null;
  readonly data: string | null;
  readonly id: Uint8Array | null;
  readonly partition: number;
}

const PAGE = 256;

/** Whatever else ended a lease left the execution running no more. */
const CODES: { readonly [T in EventType]?: TaskEndedNotice["code"] } = {
  lease_expired: "lease_expired",
  lease_revoked: "lease_revoked",
};

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
    .map((row): TaskEndedNotice => {
      const outcome =
        row.state === null
          ? "none"
          : (unpackState(row.state)?.terminalOutcome ?? "none");
      const source =
        row.data === null
          ? undefined
          : parseJson<{ source?: string }>(row.data, "data").source;
      return {
        kind: "taskEnded",
        executionId: executionIdOf({ id: row.id!, partition: row.partition }),
        leaseEpoch: row.epoch,
        code: CODES[EVENT_TYPES[row.type]!] ?? "execution_not_active",
        ...(outcome === "none" ? {} : { outcome }),
        ...optional("reason", row.reason),
        ...optional("source", source),
      };
    });
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
