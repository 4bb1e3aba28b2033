/**
 * Brings a file to this library's schema. The ledger keeps each migration's checksum, so that a file which took
 * another path is noticed before anything is written to it.
 */
import { engineError } from "@flowfabric/core";
import type SqliteDriver from "better-sqlite3";

import { migrations } from "./generated/migrations.js";

/** Marks a file as ours; SQLite shows it as application_id. */
const APPLICATION_ID = 0x666c6f77;

export interface MigrationRecord {
  readonly version: number;
  readonly name: string;
}

/**
 * Applies what is missing, in one transaction.
 * @returns what was applied
 * @throws EngineError `library_version_mismatch` for a file of a newer library, `corruption` for a foreign one
 */
export function migrate(connection: SqliteDriver.Database): MigrationRecord[] {
  // Cheap and lock-free where there is nothing to do, which is every opening but the first.
  if (missing(connection).length === 0) return [];
  connection.exec("BEGIN IMMEDIATE");
  try {
    const todo = missing(connection);
    connection.exec(CREATE_LEDGER);
    const record = connection.prepare(RECORD_MIGRATION);
    for (const migration of todo) {
      connection.exec(migration.sql);
      record.run(
        migration.version,
        migration.name,
        migration.checksum,
        Date.now(),
      );
    }
    connection.pragma(`application_id = ${APPLICATION_ID}`);
    connection.exec("COMMIT");
    return todo.map(({ version, name }) => ({ version, name }));
  } catch (error) {
    if (connection.inTransaction) connection.exec("ROLLBACK");
    throw error;
  }
}

/**
 * Reads only.
 * @throws EngineError as {@link migrate}
 */
export function checkSchema(connection: SqliteDriver.Database): void {
  missing(connection);
}

const CREATE_LEDGER = `
  CREATE TABLE IF NOT EXISTS migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at INTEGER NOT NULL
  )`;

const RECORD_MIGRATION = `
  INSERT INTO migrations (version, name, checksum, applied_at)
  VALUES (?, ?, ?, ?)`;

const READ_LEDGER = `
  SELECT version, name, checksum
  FROM migrations
  ORDER BY version`;

const LIST_TABLES = `
  SELECT name
  FROM sqlite_master
  WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`;

function missing(
  connection: SqliteDriver.Database,
): readonly (typeof migrations)[number][] {
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
