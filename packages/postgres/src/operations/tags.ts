import {
  invalidInput,
  isRefusal,
  refuse,
  TAGS_MAX,
  type Args,
  type Implementation,
  type TagOperations,
  type TagSearchEntry,
} from "@flowfabric/core";
import {
  effectiveNow,
  EXECUTION_COLUMNS,
  executionIdOf,
  publicStateAt,
  readTags,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import {
  findExecution,
  lockExecution,
  saveExecution,
  selectExecutions,
} from "../procedures/executions.js";
import {
  markLapsedIfDue,
  promoteIfDue,
  ringAfterCommit,
} from "../procedures/lifecycle.js";
import { appendFeedEvent } from "../procedures/log.js";
import { placeOf } from "../procedures/unplaced.js";
import type { SqlValue } from "../session.js";
import type { Session, Store } from "../store.js";
import { stateCondition } from "./reads.js";

type Query = Args<"countByTags">;

export function tagOperations(store: Store): Implementation<TagOperations> {
  const { db } = store;
  return {
    async setExecutionTag(args) {
      settle(
        await db.write(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const tags = readTags(row.tags);
          const old = tags[args.key];

          if (old === undefined && Object.keys(tags).length >= TAGS_MAX) {
            return refuse("invalid_input", {
              reason: `the execution has ${TAGS_MAX} tags already`,
              field: "key",
            });
          }

          if (old === args.value) return undefined;
          if (old !== undefined)
            tx.run(DELETE_TAG, args.key, old, row.created_at, row.id, row.seq);
          tx.run(
            INSERT_TAG,
            args.key,
            args.value,
            row.created_at,
            row.id,
            row.seq,
          );
          row.tags = JSON.stringify({ ...tags, [args.key]: args.value });
          const now = effectiveNow(row, tx.now());
          row.mutated_at = now;
          placeOf(tx, row);
          appendFeedEvent(tx, row, "tags_changed", now, "client", {
            transition: false,
            data: {
              ...(old === undefined ? {} : { cleared: { [args.key]: old } }),
              attached: { [args.key]: args.value },
            },
          });
          // A change at this instant makes what time has brought until now a fact, whatever the clock does next.
          promoteIfDue(tx, row, now);
          markLapsedIfDue(tx, row, now);
          saveExecution(tx, row);
          ringAfterCommit(store, tx, row);

          return undefined;
        }),
      );
    },

    getExecutionTag: (args) =>
      db.read(async (tx) => {
        const row = await findExecution(store, tx, args);
        return row === undefined ? undefined : readTags(row.tags)[args.key];
      }),

    searchByTags: (args) =>
      db.read(async (tx) => {
        const after = parseCursor(args.cursor);
        if (args.limit === 0) return { entries: [] };
        const { sql, values } = matchQuery(store, tx, args);
        if (after !== undefined)
          values.push(after.createdAtMs, after.createdAtMs, after.id);
        const rows = await selectExecutions(
          tx,
          `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions AS e
  WHERE ${sql}${after === undefined ? "" : " AND (created_at < ? OR (created_at = ? AND id > ?))"}
  ORDER BY created_at DESC, id
  LIMIT ?`,
          ...values,
          args.limit + 1,
        );
        const page = rows.slice(0, args.limit);
        return {
          entries: page.map((row): TagSearchEntry => ({
            executionId: executionIdOf(row),
            publicState: publicStateAt(row, tx.now()),
            createdAtMs: row.created_at,
            tags: readTags(row.tags),
          })),
          ...(rows.length > args.limit
            ? { nextCursor: formatCursor(page.at(-1)!) }
            : {}),
        };
      }),

    countByTags: (args) =>
      db.read(async (tx) => {
        const { sql, values } = matchQuery(store, tx, args);
        return (await tx.get<{ total: number }>(
          `SELECT count(*) AS total FROM executions AS e WHERE ${sql}`,
          ...values,
        ))!.total;
      }),
  };
}

/** Candidates come from the tag index; everything else filters them. */
function matchQuery(
  store: Store,
  tx: Session,
  query: Query,
): { sql: string; values: SqlValue[] } {
  const values: SqlValue[] = [];
  const tagged = (conditions: readonly { key: string; value: string }[]) => {
    for (const { key, value } of conditions) values.push(key, value);
    const one = "(tag_key = ? AND tag_value = ?)";
    return `seq IN (SELECT seq FROM tags WHERE ${conditions.map(() => one).join(" OR ")})`;
  };
  const filters = [
    ...query.match.all.map((condition) => tagged([condition])),
    ...(query.match.any.length === 0 ? [] : [tagged(query.match.any)]),
  ];
  if (query.namespace !== undefined || query.lanes !== undefined) {
    filters.push("route = ANY(?::BIGINT[])");
    values.push(
      store.routes.matching(query.namespace, query.lanes).map(({ id }) => id),
    );
  }
  if (query.publicStates !== undefined) {
    const { condition, nowMs } = stateCondition(query.publicStates, tx.now());
    filters.push(condition);
    values.push(
      ...Array.from({ length: condition.split("?").length - 1 }, () => nowMs),
    );
  }
  if (query.createdAfterMs !== undefined) {
    filters.push("created_at > ?");
    values.push(query.createdAfterMs);
  }
  if (query.createdBeforeMs !== undefined) {
    filters.push("created_at < ?");
    values.push(query.createdBeforeMs);
  }
  return { sql: filters.join(" AND "), values };
}

function formatCursor(row: ExecutionRow): string {
  return `${row.created_at}.${Buffer.from(row.id).toString("hex")}`;
}

function parseCursor(
  cursor: string | undefined,
): { createdAtMs: number; id: Buffer } | undefined {
  if (cursor === undefined) return undefined;
  const match = /^(\d{1,16})\.([0-9a-f]{32})$/.exec(cursor);
  if (match === null)
    throw invalidInput(
      "cursor",
      `'${cursor}' is no cursor of this search; pass nextCursor of the page before`,
    );
  return { createdAtMs: Number(match[1]), id: Buffer.from(match[2]!, "hex") };
}

const DELETE_TAG = `
  DELETE FROM tags
  WHERE tag_key = ? AND tag_value = ? AND created_at = ? AND id = ? AND seq = ?`;

const INSERT_TAG = `
  INSERT INTO tags (tag_key, tag_value, created_at, id, seq)
  VALUES (?, ?, ?, ?, ?)`;
