/** Rows and events of a transaction leave as one statement each, or as parts of one that holds all a body writes. */
import { MUTABLE_COLUMNS, type ExecutionRow } from "@flowfabric/core/sql";

import { few } from "./dialect.js";
import { notified } from "./notifier.js";

/** An event's columns; the position comes from its sequence. */
export interface EventValues {
  readonly execution: number;
  readonly n: number | null;
  readonly at: number;
  readonly type: number;
  readonly actor: number;
  readonly state: number | null;
  readonly attempt: number | null;
  readonly epoch: number | null;
  readonly holder: number | null;
  readonly lease: string | null;
  readonly attempt_id: string | null;
  readonly reason: string | null;
  readonly data: string | null;
  readonly tags: string | null;
}

export function toJsonRow(row: ExecutionRow): Record<string, unknown> {
  const json: Record<string, unknown> = { seq: row.seq };
  for (const column of MUTABLE_COLUMNS) {
    const value = row[column];
    json[column] =
      value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value;
  }
  return json;
}

const COLUMN_TYPES: {
  readonly [C in (typeof MUTABLE_COLUMNS)[number]]?: string;
} = {
  lease: "UUID",
  attempt_id: "UUID",
  request: "TEXT",
  tags: "TEXT",
  details: "TEXT",
};

/** Every column that may change; one new row version and two index entries at most for each. */
const saving = (condition = "TRUE") => `
  UPDATE executions AS e
  SET ${MUTABLE_COLUMNS.map((column) => `${column} = v.${column}`).join(", ")}
  FROM json_to_recordset(?::JSON) AS v (
    seq BIGINT, ${MUTABLE_COLUMNS.map((column) => `${column} ${COLUMN_TYPES[column] ?? "BIGINT"}`).join(", ")}
  )
  WHERE e.seq = v.seq AND ${condition}`;

const telling = (condition = "TRUE") => `
  INSERT INTO events
    (execution, n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, reason, data, tags)
  SELECT execution, n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, reason, data, tags
  FROM json_to_recordset(?::JSON) AS v (
    execution BIGINT, n INTEGER, at BIGINT, type SMALLINT, actor SMALLINT, state INTEGER, attempt INTEGER, epoch BIGINT,
    holder BIGINT, lease UUID, attempt_id UUID, reason TEXT, data TEXT, tags TEXT
  )
  WHERE ${condition}`;

export const SAVE_EXECUTIONS = saving();
export const INSERT_EVENTS = telling();

/**
 * What a body has written, as parts of a statement of its own; see {@link Session.takeWrites}. The last part is read by the
 * answer, for what is only read would not happen otherwise.
 */
export const written = (condition: string) => `
  saved AS (${saving(`${condition} AND ${few("v.home")}`)}
  ), told AS (${telling(condition)}
  ), notified AS (${notified(condition)}
  )`;
