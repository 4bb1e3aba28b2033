/** Migrating a file without opening a store on it: what `flowfabric migrate` and deployments do. */
import { existsSync } from "node:fs";

import { parseInput } from "@flowfabric/core";
import { z } from "zod";

import { openPatiently } from "./connection.js";
import { migrate, pendingMigrations, type MigrationReport } from "./migrate.js";
import { SqliteOptions } from "./options.js";

const MigrateSqliteOptions = SqliteOptions.pick({
  path: true,
  busyTimeoutMs: true,
}).extend({
  /** Only tell what would be done: nothing is changed, and no file made. */
  dryRun: z.boolean().default(false),
});
export type MigrateSqliteOptions = z.input<typeof MigrateSqliteOptions>;

/**
 * Brings a file, made where it does not exist, to this library's schema, as opening a store on it would.
 *
 * @returns what was applied, or with `dryRun` would be
 * @throws EngineError as `sqliteBackend`
 */
export async function migrateSqlite(
  options: MigrateSqliteOptions,
): Promise<MigrationReport> {
  const { path, busyTimeoutMs, dryRun } = parseInput(
    MigrateSqliteOptions,
    options,
  );
  if (dryRun && !existsSync(path)) return pendingMigrations(undefined);
  const { connection, answer } = await openPatiently(
    { path, busyTimeoutMs },
    (connection) => {
      if (!dryRun) return migrate(connection);
      // Not opened as read-only: such a connection would leave files of its own beside one that is in WAL mode.
      connection.pragma("query_only = ON");
      return pendingMigrations(connection);
    },
  );
  connection.close();
  return answer;
}
