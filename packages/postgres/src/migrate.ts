/**
 * Brings a schema to this library's version, under an advisory lock, so that processes which start together take turns.
 * The ledger keeps each migration's checksum, so that a schema which took another path is noticed before anything is
 * written to it.
 */
import { engineError, type EngineError } from "@flowfabric/core";
import type { ClientBase, Pool, QueryConfig } from "pg";

import { ignore, takeConnection } from "./connection.js";
import { isContention } from "./errors.js";
import { migrations, type Migration } from "./generated/migrations.js";

/** Names our locks among other programs' advisory locks; a number of the schema's own goes with it. */
export const LOCK_CLASS = 0x666c6f77;

const TRIES_MAX = 5;

export interface MigrationReport {
  /** The schema of this library, which the store has then. */
  readonly version: number;
  /** What was missing, in order; empty where the store was up to date. */
  readonly migrations: readonly {
    readonly version: number;
    readonly name: string;
  }[];
  /** The statements for it, as one script that psql can run; empty where nothing was missing. */
  readonly sql: string;
}

/**
 * Applies what is missing, in one transaction. Workers may be at work meanwhile; where they and the migration wait for
 * each other's locks, it begins again.
 * @returns what was applied
 * @throws EngineError `library_version_mismatch` for a schema of a newer library, `corruption` for a foreign one
 */
export async function migrate(
  pool: Pool,
  schema: string,
): Promise<MigrationReport> {
  for (let tries = 1; ; tries++) {
    try {
      return await migrateOnce(pool, schema);
    } catch (error) {
      if (!isContention(error) || tries === TRIES_MAX) throw error;
    }
  }
}

async function migrateOnce(
  pool: Pool,
  schema: string,
): Promise<MigrationReport> {
  const client = await takeConnection(pool);
  let broken: Error | boolean = false;
  try {
    // Cheap and lock-free where there is nothing to do, which is every opening but the first.
    const seen = await look(client, schema);
    if (seen.todo.length === 0) return reportOf(schema, seen);
    await client.query("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE");
    await client.query(unhurried(takeLock(schema)));
    // Another process may have been faster.
    const found = await look(client, schema);
    if (found.todo.length > 0)
      await client.query(unhurried(migrationSql(schema, found)));
    await client.query("COMMIT");
    return reportOf(schema, found);
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {
      broken = true;
    });
    throw error;
  } finally {
    client.off("error", ignore);
    client.release(broken);
  }
}

/**
 * What {@link migrate} would do. Reads only.
 * @throws EngineError as {@link migrate}
 */
export async function pendingMigrations(
  client: ClientBase,
  schema: string,
): Promise<MigrationReport> {
  return reportOf(schema, await look(client, schema));
}

interface Found {
  readonly schemaExists: boolean;
  readonly todo: readonly Migration[];
}

function reportOf(schema: string, found: Found): MigrationReport {
  const { todo } = found;
  return {
    version: migrations.length,
    migrations: todo.map(({ version, name }) => ({ version, name })),
    sql:
      todo.length === 0
        ? ""
        : `BEGIN;\n${takeLock(schema)};\n\n${migrationSql(schema, found)}\nCOMMIT;\n`,
  };
}

/** The pool's bound on an answer is for calls; a migration may take as long as its table is large, or as another's does. */
function unhurried(text: string): QueryConfig & { query_timeout: number } {
  return { text, query_timeout: 2 ** 31 - 1 };
}

function takeLock(schema: string): string {
  return `SELECT pg_advisory_xact_lock(${LOCK_CLASS}, hashtext('${schema}'))`;
}

/** Each migration with its line in the ledger; the first also makes the ledger. */
function migrationSql(schema: string, { schemaExists, todo }: Found): string {
  return [
    // Where it exists nobody asks for the right to make one.
    ...(schemaExists ? [] : [`CREATE SCHEMA "${schema}";\n`]),
    // Catalogue functions and types are found all the same.
    `SET LOCAL search_path TO "${schema}";\n`,
    ...todo.flatMap(({ version, name, checksum, sql }) => [
      ...(version === 1 ? [CREATE_LEDGER] : []),
      sql,
      `INSERT INTO migrations (version, name, checksum, applied_at)
VALUES (${version}, '${name}', '${checksum}', ${NOW_MS});
`,
    ]),
  ].join("\n");
}

const NOW_MS = "floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT";

const CREATE_LEDGER = `CREATE TABLE IF NOT EXISTS migrations (
  version BIGINT PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,
  applied_at BIGINT NOT NULL
);
`;

const LEDGER_COLUMNS = ["applied_at", "checksum", "name", "version"];

/** A row with what the schema holds, or no row where there is none of that name. */
const LOOK = `
  SELECT
    ARRAY(
      SELECT relname::TEXT
      FROM pg_class
      WHERE relnamespace = n.oid AND relkind IN ('r', 'p', 'v', 'm', 'f')
    ) AS tables,
    ARRAY(
      SELECT attname::TEXT
      FROM pg_attribute AS a
      JOIN pg_class AS c ON c.oid = a.attrelid
      WHERE c.relnamespace = n.oid AND c.relname = 'migrations' AND attnum > 0 AND NOT attisdropped
      ORDER BY attname
    ) AS ledger
  FROM pg_namespace AS n
  WHERE nspname = $1`;

async function look(client: ClientBase, schema: string): Promise<Found> {
  const found = await client.query<{ tables: string[]; ledger: string[] }>(
    LOOK,
    [schema],
  );
  const row = found.rows[0];
  if (row === undefined) return { schemaExists: false, todo: migrations };
  if (row.tables.length === 0) return { schemaExists: true, todo: migrations };
  // The name of the ledger alone says little: many programs keep one.
  if (row.ledger.join() !== LEDGER_COLUMNS.join()) throw foreign(schema);
  const { rows } = await client.query<{
    version: string;
    name: string;
    checksum: string;
  }>(
    `SELECT version, name, checksum FROM "${schema}".migrations ORDER BY version`,
  );
  if (rows.length === 0 && row.tables.length > 1) throw foreign(schema);
  const newest = Number(rows.at(-1)?.version ?? 0);
  if (newest > migrations.length) {
    throw engineError("library_version_mismatch", {
      library: `schema ${migrations.length}`,
      store: `schema ${newest}`,
    });
  }
  for (const [index, { version, name, checksum }] of rows.entries()) {
    const ours = migrations[index];
    if (
      ours === undefined ||
      ours.version !== Number(version) ||
      ours.name !== name ||
      ours.checksum !== checksum
    ) {
      throw engineError("corruption", {
        context: "schema",
        field: `migration ${version}`,
        message: `the schema was migrated by '${name}', which differs from this library's; it was not touched`,
      });
    }
  }
  return { schemaExists: true, todo: migrations.slice(newest) };
}

function foreign(schema: string): EngineError {
  return engineError("corruption", {
    context: "schema",
    field: "migrations",
    message: `the schema '${schema}' holds tables of something else; give FlowFabric a schema of its own`,
  });
}
