/** Migrating a schema without opening a store on it: what `flowfabric migrate` and deployments do. */
import { invalidInput, parseInput } from "@flowfabric/core";
import pg from "pg";
import { z } from "zod";

import { translateError } from "./errors.js";
import { migrate, pendingMigrations, type MigrationReport } from "./migrate.js";
import { PostgresOptions } from "./options.js";

const MigratePostgresOptions = PostgresOptions.pick({
  connectionString: true,
  pool: true,
  schema: true,
}).extend({
  /** Only tell what would be done: nothing is changed, and no schema made. */
  dryRun: z.boolean().default(false),
});
export type MigratePostgresOptions = z.input<typeof MigratePostgresOptions>;

/**
 * Brings a schema, made where it does not exist, to this library's version, as opening a store in it would.
 *
 * @returns what was applied, or with `dryRun` would be
 * @throws EngineError as `postgresBackend`
 */
export async function migratePostgres(
  options: MigratePostgresOptions,
): Promise<MigrationReport> {
  const { connectionString, pool, schema, dryRun } = parseInput(
    MigratePostgresOptions,
    options,
  );
  if ((connectionString === undefined) === (pool === undefined))
    throw invalidInput(
      "connectionString",
      "give either a connectionString or a pool",
    );
  const used =
    pool ??
    new pg.Pool({
      connectionString,
      max: 1,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      application_name: "flowfabric-migrate",
    });
  try {
    return dryRun ? await lookOnly(used, schema) : await migrate(used, schema);
  } catch (error) {
    throw translateError(error, "migrate");
  } finally {
    if (used !== pool) await used.end();
  }
}

const CONNECT_TIMEOUT_MS = 30_000;

/** In a transaction that the server itself keeps from writing. */
async function lookOnly(
  pool: pg.Pool,
  schema: string,
): Promise<MigrationReport> {
  const client = await pool.connect();
  let broken = false;
  try {
    await client.query("BEGIN READ ONLY");
    return await pendingMigrations(client, schema);
  } finally {
    await client.query("ROLLBACK").catch(() => {
      broken = true;
    });
    client.release(broken);
  }
}
