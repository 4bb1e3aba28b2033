import {
  effectiveHome,
  HOME,
  HOMES,
  invalidInput,
  isRefusal,
  type Args,
  type AttemptRecord,
  type ExecutionId,
  type ExecutionSnapshot,
  type Home,
  type Implementation,
  type LaneId,
  type PublicState,
  type ReadOperations,
  type WaitpointId,
} from "@flowfabric/core";
import {
  executionIdOf,
  parseJson,
  publicStateAt,
  readReceipt,
  readTags,
  toCurrentAttempt,
  toEarlierAttempt,
  toInfo,
  toSnapshot,
  type ArchivedAttempt,
  type ExecutionRow,
  type SuspensionRow,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import { findExecution, lockExecution } from "../procedures/executions.js";
import { readOpenSuspension } from "../procedures/suspensions.js";
import { READ_PAYLOAD } from "../procedures/take.js";
import type { SqlValue } from "../session.js";
import type { Session, Store } from "../store.js";

export function readOperations(store: Store): Implementation<ReadOperations> {
  const { db } = store;
  return {
    describeExecution: (args) =>
      db.read(async (tx) => {
        const row = await findExecution(store, tx, args);
        return row === undefined ? undefined : await snapshot(store, tx, row);
      }),

    readExecutionContext: async (args) =>
      settle(
        await db.read(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const payload =
            (
              await tx.get<{ payload: Uint8Array | null }>(
                READ_PAYLOAD,
                row.seq,
              )
            )?.payload ?? new Uint8Array();
          return {
            inputPayload: payload,
            executionKind: row.kind,
            tags: readTags(row.tags),
          };
        }),
      ),

    readExecutionInfo: (args) =>
      db.read(async (tx) => {
        const row = await findExecution(store, tx, args);
        if (row === undefined) return undefined;
        return toInfo(row, {
          route: store.routes.require(row.route),
          holder: undefined,
          nowMs: tx.now(),
        });
      }),

    readExecutionState: (args) =>
      db.read(async (tx) => {
        const row = await findExecution(store, tx, args);
        return row === undefined ? undefined : publicStateAt(row, tx.now());
      }),

    getExecutionResult: (args) =>
      db.read(async (tx) => {
        const row = await findExecution(store, tx, args);
        return row === undefined
          ? undefined
          : (await tx.get<{ payload: Uint8Array }>(READ_RESULT, row.seq))
              ?.payload;
      }),

    readCurrentAttemptIndex: async (args) =>
      settle(
        await db.read(async (tx) => {
          const row = await lockExecution(store, tx, args);
          return isRefusal(row) ? row : row.attempt;
        }),
      ),

    readTotalAttemptCount: async (args) =>
      settle(
        await db.read(async (tx) => {
          const row = await lockExecution(store, tx, args);
          return isRefusal(row) ? row : row.attempts;
        }),
      ),

    getExecutionNamespace: (args) =>
      db.read(async (tx) => {
        const row = await findExecution(store, tx, args);
        return row === undefined
          ? undefined
          : store.routes.require(row.route).namespace;
      }),

    listExecutions: (args) =>
      db.read(async (tx) => await list(store, tx, args)),

    listAttempts: (args) =>
      db.read(async (tx) => {
        const row = await findExecution(store, tx, args);
        return row === undefined ? [] : await attempts(store, tx, row);
      }),

    listLanes: ({ cursor, limit }) =>
      db.read(async (tx) => {
        if (limit === 0) return { lanes: [] };
        const lanes = (
          await tx.all<{ lane: LaneId }>(LIST_LANES, cursor ?? "", limit + 1)
        ).map(({ lane }) => lane);
        if (lanes.length <= limit) return { lanes };
        lanes.length = limit;
        return { lanes, nextCursor: lanes.at(-1)! };
      }),
  };
}

async function snapshot(
  store: Store,
  tx: Session,
  row: ExecutionRow,
): Promise<ExecutionSnapshot> {
  const [progress, created, suspension] = await Promise.all([
    row.progress_at === null
      ? undefined
      : tx.get<{ percent: number | null; message: string | null }>(
          READ_PROGRESS,
          row.seq,
        ),
    tx.get<{ creator: string | null }>(READ_CREATOR, row.seq),
    readOpenSuspension(tx, row),
  ]);
  return toSnapshot(
    row,
    {
      route: store.routes.require(row.route),
      holder: store.holders.find(row.holder),
      nowMs: tx.now(),
    },
    {
      creator: created?.creator,
      progress,
      currentWaitpoint: suspension && primaryWaitpoint(suspension),
    },
  );
}

function primaryWaitpoint({ receipt }: SuspensionRow): WaitpointId {
  return readReceipt(receipt).waitpoints[0] as WaitpointId;
}

async function attempts(
  store: Store,
  tx: Session,
  row: ExecutionRow,
): Promise<AttemptRecord[]> {
  const rows = await tx.all<{ attempt: number; record: string }>(
    LIST_ATTEMPTS,
    row.seq,
  );
  const earlier = rows.map(({ attempt, record }) => {
    const stored = parseJson<ArchivedAttempt>(record, "attempt");
    const holder = store.holders.require(stored.holder);
    return toEarlierAttempt(attempt, stored, holder);
  });
  if (row.attempt_id === null) return earlier;
  const holder = store.holders.require(row.holder!);
  return [...earlier, toCurrentAttempt(row, holder)];
}

async function list(
  store: Store,
  tx: Session,
  args: Args<"listExecutions">,
): Promise<{ executions: ExecutionId[]; nextCursor?: string }> {
  const after = parsePosition(args.cursor);
  if (args.limit === 0) return { executions: [] };
  const filters = ["seq > ?"];
  const values: SqlValue[] = [after];
  if (args.partition !== undefined) {
    filters.push("partition = ?");
    values.push(args.partition);
  }
  if (args.namespace !== undefined || args.lanes !== undefined) {
    const routes = store.routes
      .matching(args.namespace, args.lanes)
      .map(({ id }) => id);
    // Not an index condition: pages go by creation, and one index serves one order.
    filters.push("route = ANY(?::BIGINT[])");
    values.push(routes);
  }
  if (args.publicStates !== undefined) {
    const { condition, nowMs } = stateCondition(args.publicStates, tx.now());
    filters.push(condition);
    values.push(
      ...Array.from({ length: condition.split("?").length - 1 }, () => nowMs),
    );
  }
  const rows = await tx.all<{ seq: number; id: Uint8Array; partition: number }>(
    `
  SELECT seq, id, partition
  FROM executions
  WHERE ${filters.join(" AND ")}
  ORDER BY seq
  LIMIT ?`,
    ...values,
    args.limit + 1,
  );
  const page = rows.slice(0, args.limit);
  return {
    executions: page.map(executionIdOf),
    ...(rows.length > args.limit
      ? { nextCursor: String(page.at(-1)!.seq) }
      : {}),
  };
}

/** Public states as a condition on stored columns; what only time has changed counts as changed. */
export function stateCondition(
  states: readonly PublicState[],
  nowMs: number,
): { readonly condition: string; readonly nowMs: number } {
  const wanted = new Set<PublicState>(states);
  const shown = (home: Home) => wanted.has(HOMES[home].publicState);
  const homes = (Object.keys(HOMES).map(Number) as Home[]).filter(
    (home) => home !== HOME.delayed && shown(home),
  );
  // An empty list is no SQL.
  const parts = homes.length === 0 ? [] : [`home IN (${homes.join(", ")})`];
  if (wanted.has("delayed"))
    parts.push(`(home = ${HOME.delayed} AND score > ?)`);
  if (shown(effectiveHome(HOME.delayed, 0, 1)))
    parts.push(`(home = ${HOME.delayed} AND score <= ?)`);
  return {
    condition: parts.length === 0 ? "FALSE" : `(${parts.join(" OR ")})`,
    nowMs,
  };
}

function parsePosition(cursor: string | undefined): number {
  if (cursor === undefined) return 0;
  if (!/^(0|[1-9]\d{0,15})$/.test(cursor))
    throw invalidInput(
      "cursor",
      `'${cursor}' is no cursor of this list; pass nextCursor of the page before`,
    );
  return Number(cursor);
}

const READ_CREATOR = `
  SELECT creator
  FROM inputs
  WHERE seq = ?`;

const READ_RESULT = `
  SELECT payload
  FROM results
  WHERE seq = ?`;

const READ_PROGRESS = `
  SELECT percent, message
  FROM progress
  WHERE seq = ?`;

const LIST_ATTEMPTS = `
  SELECT attempt, record
  FROM attempts
  WHERE seq = ?
  ORDER BY attempt`;

/** A route alone is no use of its lane: it may be of a submission that was rolled back. */
const LIST_LANES = `
  SELECT lane
  FROM (
    SELECT lane
    FROM lanes
    UNION
    SELECT lane
    FROM routes AS r
    WHERE EXISTS (SELECT 1 FROM executions WHERE route = r.id)
  ) AS used
  WHERE lane > ?
  ORDER BY lane
  LIMIT ?`;
