/**
 * A store with as many executions as one likes, in seconds: a finished and a waiting one go through the engine, and SQL
 * copies every row that they left, each copy a millisecond older than the one before. So the copies have whatever columns
 * the engine has, and a sample of them is looked at as users would look.
 */
import { deepStrictEqual } from "node:assert/strict";
import { createHash } from "node:crypto";

import type { EngineBackend, ExecutionId } from "@flowfabric/core";
import type pg from "pg";

export interface Filling {
  /** An empty store. */
  readonly backend: EngineBackend;
  /** Where its tables are. */
  readonly schema: string;
  /** On its database. */
  readonly database: pg.Client | pg.Pool;
  readonly finished: number;
  readonly waiting: number;
  readonly payloadBytes: number;
}

const KIND = "filled";
const SAMPLES = 5;

/** Also brings statistics and visibility up to date, as the server itself would do in the middle of a measurement. */
export async function fillTables(filling: Filling): Promise<void> {
  const { backend, schema, database, finished, waiting } = filling;
  const models = [
    { executionId: await finishOne(filling), copies: finished - 1 },
    { executionId: await submitOne(filling), copies: waiting - 1 },
  ];
  const copied: { model: Shown; ids: Map<number, ExecutionId> }[] = [];
  for (const { executionId, copies } of models) {
    const seq = await copyExecution(filling, executionId, copies);
    copied.push({
      model: await show(backend, executionId),
      ids: await sampleIds(filling, seq, copies),
    });
  }
  await database.query(
    (await tablesOf(filling))
      .map((table) => `"${schema}"."${table}"`)
      .join(", ")
      .replace(/^/, "VACUUM (ANALYZE) "),
  );
  for (const { model, ids } of copied)
    for (const [n, executionId] of ids)
      deepStrictEqual(
        await show(backend, executionId),
        aged(model, n, executionId),
        "a copied execution differs from the one that the engine wrote",
      );
}

async function submitOne({
  backend,
  payloadBytes,
}: Filling): Promise<ExecutionId> {
  const { executionId } = await backend.createExecution({
    executionKind: KIND,
    inputPayload: Buffer.alloc(payloadBytes, 1),
  });
  return executionId;
}

async function finishOne(filling: Filling): Promise<ExecutionId> {
  const executionId = await submitOne(filling);
  const { claimed } = await filling.backend.claimMany({
    workerId: "filler",
    workerInstanceId: "filler",
    lanes: ["default"],
    max: 1,
    leaseTtlMs: 60_000,
  });
  deepStrictEqual(
    claimed.map((one) => one.executionId),
    [executionId],
    "only an empty store can be filled",
  );
  await filling.backend.complete({
    handle: claimed[0]!.handle,
    payload: Buffer.alloc(filling.payloadBytes, 2),
  });
  return executionId;
}

/** Tables of one row or more per execution, by the column that names it. */
async function tablesOf(filling: Filling): Promise<string[]> {
  return [...new Set((await ownersOf(filling)).map(({ table }) => table))];
}

interface Owner {
  readonly table: string;
  readonly key: string;
}

async function ownersOf({ database, schema }: Filling): Promise<Owner[]> {
  const { rows } = await database.query<Owner>(OWNERS, [schema]);
  return rows;
}

const OWNERS = `
  SELECT table_name AS table, column_name AS key
  FROM information_schema.columns
  WHERE table_schema = $1 AND (column_name = 'seq' OR (table_name = 'events' AND column_name = 'execution'))
  ORDER BY table_name = 'executions' DESC, table_name`;

/** @returns the number of the execution that was copied */
async function copyExecution(
  filling: Filling,
  executionId: ExecutionId,
  copies: number,
): Promise<number> {
  const { database, schema } = filling;
  const { rows } = await database.query<{ seq: string; last: string }>(
    `SELECT seq, (SELECT max(seq) FROM "${schema}".executions) AS last
     FROM "${schema}".executions
     WHERE id = $1`,
    [uuidOf(executionId)],
  );
  const seq = Number(rows[0]!.seq);
  const last = Number(rows[0]!.last);
  for (const { table, key } of await ownersOf(filling)) {
    const left = await database.query(
      `SELECT FROM "${schema}"."${table}" WHERE "${key}" = $1`,
      [seq],
    );
    if (left.rowCount === 0) continue;
    const columns = await database.query<{ name: string; type: string }>(
      COLUMNS,
      [schema, table],
    );
    const values = columns.rows.map(({ name, type }) => {
      if (name === key) return `${last} + copy.no`;
      if (name === "position")
        return `CASE WHEN position IS NOT NULL THEN nextval('"${schema}".events_position') END`;
      if (name === "id" && type === "uuid") return AGED_ID;
      if (type === "uuid") return `md5("${name}"::TEXT || copy.no)::UUID`;
      return INSTANTS.test(name) ? `"${name}" - copy.no` : `"${name}"`;
    });
    await database.query(
      `INSERT INTO "${schema}"."${table}" (${columns.rows.map(({ name }) => `"${name}"`).join(", ")})
       SELECT ${values.join(", ")}
       FROM "${schema}"."${table}", generate_series(1, $2::INTEGER) AS copy (no)
       WHERE "${key}" = $1
       ORDER BY copy.no`,
      [seq, copies],
    );
  }
  await database.query(
    `SELECT setval(pg_get_serial_sequence('"${schema}".executions', 'seq'), $1)`,
    [last + copies],
  );
  return seq;
}

const COLUMNS = `
  SELECT column_name AS name, data_type AS type
  FROM information_schema.columns
  WHERE table_schema = $1 AND table_name = $2
  ORDER BY ordinal_position`;

/** Columns that hold a moment, in epoch milliseconds; a score is one or is made of one. */
const INSTANTS = /^at$|^score$|^renew_by$|_at$|_until$/;

/** As ids are minted: a version 7, whose first 48 bits are the time. */
const AGED_ID = `
  (lpad(to_hex(created_at - copy.no), 12, '0') || '7' || substr(md5(id::TEXT || copy.no), 1, 3) || '8' || substr(md5(id::TEXT || copy.no), 4, 15))::UUID`;

function uuidOf(executionId: ExecutionId): string {
  return executionId.slice(executionId.indexOf(":", 4) + 1);
}

/** Ids of some copies, by how many milliseconds older they are; first and last among them. */
async function sampleIds(
  { database, schema }: Filling,
  seq: number,
  copies: number,
): Promise<Map<number, ExecutionId>> {
  const { rows } = await database.query<{ n: string; id: ExecutionId }>(
    `SELECT model.created_at - e.created_at AS n, '{fp:' || e.partition || '}:' || e.id AS id
     FROM "${schema}".executions AS model, "${schema}".executions AS e
     WHERE model.seq = $1 AND e.home = model.home
       AND model.created_at - e.created_at = ANY ($2::BIGINT[])`,
    [
      seq,
      Array.from({ length: SAMPLES }, (_unused, index) =>
        Math.max(1, Math.round((index / (SAMPLES - 1)) * copies)),
      ),
    ],
  );
  deepStrictEqual(rows.length, SAMPLES, "not all copies are there");
  return new Map(rows.map(({ n, id }) => [Number(n), id]));
}

/** All that reads tell of one execution. */
async function show(backend: EngineBackend, executionId: ExecutionId) {
  return {
    snapshot: await backend.describeExecution({ executionId }),
    history: await backend.readEvents({ executionId }),
    attempts: await backend.listAttempts({ executionId }),
    result: await backend.getExecutionResult({ executionId }),
  };
}
type Shown = Awaited<ReturnType<typeof show>>;

const EPOCH_MS = 1e12;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** What reads must tell of a copy that is so many milliseconds older. */
function aged<Value>(value: Value, n: number, executionId: ExecutionId): Value {
  const change = (one: unknown): unknown => {
    if (typeof one === "number") return one > EPOCH_MS ? one - n : one;
    if (typeof one === "string") {
      if (one.startsWith("{fp:")) return executionId;
      return UUID.test(one) ? agedUuid(one, n) : one;
    }
    if (Array.isArray(one)) return one.map(change);
    if (one === null || typeof one !== "object" || one instanceof Uint8Array)
      return one;
    return Object.fromEntries(
      Object.entries(one).map(([name, inner]) => [name, change(inner)]),
    );
  };
  return change(value) as Value;
}

function agedUuid(uuid: string, n: number): string {
  return createHash("md5")
    .update(`${uuid}${n}`)
    .digest("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
