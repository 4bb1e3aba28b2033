/**
 * Brings a schema to this library's version, under an advisory lock, so that processes which start together take turns.
 * The ledger keeps each migration's checksum, so that a schema which took another path is noticed before anything is
 * written to it.
 */
import { engineError } from "@flowfabric/core";
import type { Pool, PoolClient } from "pg";

import { migrations } from "./generated/migrations.js";

/** Names the lock among other programs' advisory locks; the schema's own number goes with it. */
const LOCK_CLASS = 0x666c6f77;

export interface MigrationRecord {
  readonly version: number;
  readonly name: string;
}

/**
 * Applies what is missing, in one transaction.
 * @returns what was applied
 * @throws EngineError `library_version_mismatch` for a schema of a newer library, `corruption` for a foreign one
 */
export async function migrate(
  pool: Pool,
  schema: string,
): Promise<MigrationRecord[]> {
  const client = await pool.connect();
  let broken: Error | boolean = false;
  try {
    // Cheap and lock-free where there is nothing to do, which is every opening but the first.
    if ((await missing(client, schema)).length === 0) return [];
    return await apply(client, schema);
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {
      broken = true;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

async function apply(
  client: PoolClient,
  schema: string,
): Promise<MigrationRecord[]> {
  await client.query("BEGIN");
  await client.query(TAKE_LOCK, [LOCK_CLASS, schema]);
  const todo = await missing(client, schema);
  await client.query(
    [
      `CREATE SCHEMA IF NOT EXISTS "${schema}"`,
      `SET LOCAL search_path TO "${schema}"`,
      CREATE_LEDGER,
      ...todo.map(({ sql }) => sql.replace(/;\s*$/, "")),
    ].join(";\n"),
  );
  for (const { version, name, checksum } of todo)
    await client.query(RECORD_MIGRATION, [version, name, checksum, Date.now()]);
  await client.query("COMMIT");
  return todo.map(({ version, name }) => ({ version, name }));
}

const TAKE_LOCK = `
  SELECT pg_advisory_xact_lock($1, hashtext($2))`;

const CREATE_LEDGER = `
  CREATE TABLE IF NOT EXISTS migrations (
    version BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at BIGINT NOT NULL
  )`;

const RECORD_MIGRATION = `
  INSERT INTO migrations (version, name, checksum, applied_at)
  VALUES ($1, $2, $3, $4)`;

const LIST_TABLES = `
  SELECT tablename AS name
  FROM pg_tables
  WHERE schemaname = $1`;

async function missing(
  client: PoolClient,
  schema: string,
): Promise<readonly (typeof migrations)[number][]> {
  const found = await client.query<{ name: string }>(LIST_TABLES, [schema]);
  const tables = found.rows.map(({ name }) => name);
  if (!tables.includes("migrations")) {
    if (tables.length === 0) return migrations;
    throw engineError("corruption", {
      context: "schema",
      field: "migrations",
      message: `the schema '${schema}' holds tables of something else; give FlowFabric a schema of its own`,
    });
  }
  const ledger = await client.query<{
    version: string;
    name: string;
    checksum: string;
  }>(
    `SELECT version, name, checksum FROM "${schema}".migrations ORDER BY version`,
  );
  const newest = Number(ledger.rows.at(-1)?.version ?? 0);
  if (newest > migrations.length) {
    throw engineError("library_version_mismatch", {
      library: `schema ${migrations.length}`,
      store: `schema ${newest}`,
    });
  }
  for (const { version, name, checksum } of ledger.rows) {
    const ours = migrations[Number(version) - 1];
    if (
      ours === undefined ||
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
  return migrations.slice(newest);
}
