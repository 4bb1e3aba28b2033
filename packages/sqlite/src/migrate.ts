/**
 * Brings a file to this library's schema. The ledger keeps each migration's checksum, so that a file which took
 * another path is noticed before anything is written to it.
 */
import { engineError } from "@flowfabric/core";
import type SqliteDriver from "better-sqlite3";

import { migrations, type Migration } from "./generated/migrations.js";

/** Marks a file as ours; SQLite shows it as application_id. */
const APPLICATION_ID = 0x666c6f77;

export interface MigrationReport {
  /** The schema of this library, which the file has then. */
  readonly version: number;
  /** What was missing, in order; empty where the file was up to date. */
  readonly migrations: readonly {
    readonly version: number;
    readonly name: string;
  }[];
  /** The statements for it, as one script that any SQLite shell can run; empty where nothing was missing. */
  readonly sql: string;
}

/**
 * Applies what is missing, in one transaction.
 * @returns what was applied
 * @throws EngineError `library_version_mismatch` for a file of a newer library, `corruption` for a foreign one
 */
export function migrate(connection: SqliteDriver.Database): MigrationReport {
  // Cheap and lock-free where there is nothing to do, which is every opening but the first.
  if (missing(connection).length === 0) return reportOf([]);
  connection.exec("BEGIN IMMEDIATE");
  try {
    // Another process may have been faster.
    const todo = missing(connection);
    connection.exec(migrationSql(todo));
    connection.exec("COMMIT");
    return reportOf(todo);
  } catch (error) {
    if (connection.inTransaction) connection.exec("ROLLBACK");
    throw error;
  }
}

/**
 * What {@link migrate} would do to a file, or to one that does not exist yet. Reads only.
 * @throws EngineError as {@link migrate}
 */
export function pendingMigrations(
  connection: SqliteDriver.Database | undefined,
): MigrationReport {
  return reportOf(connection === undefined ? migrations : missing(connection));
}

function reportOf(todo: readonly Migration[]): MigrationReport {
  return {
    version: migrations.length,
    migrations: todo.map(({ version, name }) => ({ version, name })),
    sql:
      todo.length === 0
        ? ""
        : `BEGIN IMMEDIATE;\n\n${migrationSql(todo)}\nCOMMIT;\n`,
  };
}

/** Each migration with its line in the ledger; the first also makes the ledger and marks the file as ours. */
function migrationSql(todo: readonly Migration[]): string {
  return todo
    .flatMap(({ version, name, checksum, sql }) => [
      ...(version === 1
        ? [CREATE_LEDGER, `PRAGMA application_id = ${APPLICATION_ID};\n`]
        : []),
      sql,
      `INSERT INTO migrations (version, name, checksum, applied_at)
VALUES (${version}, '${name}', '${checksum}', ${NOW_MS});
`,
    ])
    .join("\n");
}

const NOW_MS = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

// In the words of every store that there is: SQLite keeps the text, and schema.sql shows it.
const CREATE_LEDGER = `CREATE TABLE IF NOT EXISTS migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at INTEGER NOT NULL
  );
`;

const READ_LEDGER = `
  SELECT version, name, checksum
  FROM migrations
  ORDER BY version`;

const LIST_TABLES = `
  SELECT name
  FROM sqlite_master
  WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`;

function missing(connection: SqliteDriver.Database): readonly Migration[] {
  const tables = connection.prepare(LIST_TABLES).pluck().all() as string[];
  if (tables.length === 0) return migrations;
  // The name of the ledger alone says little: many programs keep one.
  const owner = connection.pragma("application_id", { simple: true });
  if (owner !== APPLICATION_ID || !tables.includes("migrations")) {
    throw engineError("corruption", {
      context: "schema",
      field: "migrations",
      message:
        "the file is a SQLite database of something else; give FlowFabric a file of its own",
    });
  }
  const applied = connection.prepare(READ_LEDGER).all() as {
    version: number;
    name: string;
    checksum: string;
  }[];
  const newest = applied.at(-1)?.version ?? 0;
  if (newest > migrations.length) {
    throw engineError("library_version_mismatch", {
      library: `schema ${migrations.length}`,
      store: `schema ${newest}`,
    });
  }
  for (const [index, { version, name, checksum }] of applied.entries()) {
    const ours = migrations[index];
    if (
      ours === undefined ||
      ours.version !== version ||
      ours.name !== name ||
      ours.checksum !== checksum
    ) {
      throw engineError("corruption", {
        context: "schema",
        field: `migration ${version}`,
        message: `the file was migrated by '${name}', which differs from this library's; it was not touched`,
      });
    }
  }
  return migrations.slice(newest);
}
