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
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import { findExecution, lockExecution } from "../procedures/executions.js";
import { readOpenSuspension } from "../procedures/suspensions.js";
import { READ_PAYLOAD } from "../procedures/take.js";
import type { Session, Store } from "../store.js";

export function readOperations(store: Store): Implementation<ReadOperations> {
  const { db } = store;
  return {
    describeExecution: (args) =>
      db.read((tx) => {
        const row = findExecution(store, tx, args);
        return row === undefined ? undefined : snapshot(store, tx, row);
      }),

    readExecutionContext: async (args) =>
      settle(
        await db.read((tx) => {
          const row = lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const payload =
            tx.get<{ payload: Uint8Array | null }>(READ_PAYLOAD, row.seq)
              ?.payload ?? new Uint8Array();
          return {
            inputPayload: payload,
            executionKind: row.kind,
            tags: readTags(row.tags),
          };
        }),
      ),

    readExecutionInfo: (args) =>
      db.read((tx) => {
        const row = findExecution(store, tx, args);
        if (row === undefined) return undefined;
        return toInfo(row, {
          route: store.routes.require(tx, row.route),
          holder: undefined,
          nowMs: tx.now(),
        });
      }),

    readExecutionState: (args) =>
      db.read((tx) => {
        const row = findExecution(store, tx, args);
        return row === undefined ? undefined : publicStateAt(row, tx.now());
      }),

    getExecutionResult: (args) =>
      db.read((tx) => {
        const row = findExecution(store, tx, args);
        return row === undefined
          ? undefined
          : tx.get<{ payload: Uint8Array }>(READ_RESULT, row.seq)?.payload;
      }),

    readCurrentAttemptIndex: async (args) =>
      settle(
        await db.read((tx) => {
          const row = lockExecution(store, tx, args);
          return isRefusal(row) ? row : row.attempt;
        }),
      ),

    readTotalAttemptCount: async (args) =>
      settle(
        await db.read((tx) => {
          const row = lockExecution(store, tx, args);
          return isRefusal(row) ? row : row.attempts;
        }),
      ),

    getExecutionNamespace: (args) =>
      db.read((tx) => {
        const row = findExecution(store, tx, args);
        return row === undefined
          ? undefined
          : store.routes.require(tx, row.route).namespace;
      }),

    listExecutions: (args) => db.read((tx) => list(store, tx, args)),

    listAttempts: (args) =>
      db.read((tx) => {
        const row = findExecution(store, tx, args);
        return row === undefined ? [] : attempts(store, tx, row);
      }),

    listLanes: ({ cursor, limit }) =>
      db.read((tx) => {
        if (limit === 0) return { lanes: [] };
        const lanes = tx
          .all<{ lane: LaneId }>(LIST_LANES, cursor ?? "", limit + 1)
          .map(({ lane }) => lane);
        if (lanes.length <= limit) return { lanes };
        lanes.length = limit;
        return { lanes, nextCursor: lanes.at(-1)! };
      }),
  };
}

function snapshot(
  store: Store,
  tx: Session,
  row: ExecutionRow,
): ExecutionSnapshot {
  const progress =
    row.progress_at === null
      ? undefined
      : tx.get<{ percent: number | null; message: string | null }>(
          READ_PROGRESS,
          row.seq,
        );
  const creator = tx.get<{ creator: string | null }>(
    READ_CREATOR,
    row.seq,
  )?.creator;
  return toSnapshot(
    row,
    {
      route: store.routes.require(tx, row.route),
      holder: store.holders.find(tx, row.holder),
      nowMs: tx.now(),
    },
    { creator, progress, currentWaitpoint: currentWaitpoint(tx, row) },
  );
}

/** The primary one of the open suspension. */
function currentWaitpoint(
  tx: Session,
  row: ExecutionRow,
): WaitpointId | undefined {
  if (row.home !== HOME.suspended) return undefined;
  const suspension = readOpenSuspension(tx, row);
  return suspension === undefined
    ? undefined
    : (readReceipt(suspension.receipt).waitpoints[0] as WaitpointId);
}

function attempts(
  store: Store,
  tx: Session,
  row: ExecutionRow,
): AttemptRecord[] {
  const earlier = tx
    .all<{ attempt: number; record: string }>(LIST_ATTEMPTS, row.seq)
    .map(({ attempt, record }) => {
      const stored = parseJson<ArchivedAttempt>(record, "attempt");
      const holder = store.holders.require(tx, stored.holder);
      return toEarlierAttempt(attempt, stored, holder);
    });
  if (row.attempt_id === null) return earlier;
  const holder = store.holders.require(tx, row.holder!);
  return [...earlier, toCurrentAttempt(row, holder)];
}

function list(
  store: Store,
  tx: Session,
  args: Args<"listExecutions">,
): { executions: ExecutionId[]; nextCursor?: string } {
  const after = parsePosition(args.cursor);
  if (args.limit === 0) return { executions: [] };
  const filters = ["seq > ?"];
  const values: (string | number)[] = [after];
  if (args.partition !== undefined) {
    filters.push("partition = ?");
    values.push(args.partition);
  }
  if (args.namespace !== undefined || args.lanes !== undefined) {
    const routes = store.routes
      .matching(tx, args.namespace, args.lanes)
      .map(({ id }) => id);
    // Not an index condition: pages go by creation, and one index serves one order.
    filters.push("+route IN (SELECT value FROM json_each(?))");
    values.push(JSON.stringify(routes));
  }
  if (args.publicStates !== undefined) {
    const { condition, nowMs } = stateCondition(args.publicStates, tx.now());
    filters.push(condition);
    values.push(
      ...Array.from({ length: condition.split("?").length - 1 }, () => nowMs),
    );
  }
  const rows = tx.all<{ seq: number; id: Uint8Array; partition: number }>(
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
  const parts = [`+home IN (${homes.join(", ")})`];
  if (wanted.has("delayed"))
    parts.push(`(+home = ${HOME.delayed} AND score > ?)`);
  if (shown(effectiveHome(HOME.delayed, 0, 1)))
    parts.push(`(+home = ${HOME.delayed} AND score <= ?)`);
  return { condition: `(${parts.join(" OR ")})`, nowMs };
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

const LIST_LANES = `
  SELECT lane
  FROM lanes
  WHERE lane > ?
  ORDER BY lane
  LIMIT ?`;
