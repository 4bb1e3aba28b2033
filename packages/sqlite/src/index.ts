/** FlowFabric on SQLite: `sqliteBackend({ path })`. */
export { sqliteBackend } from "./backend.js";
export { migrateSqlite, type MigrateSqliteOptions } from "./migrate-file.js";
export type { MigrationReport } from "./migrate.js";
export type { SqliteOptions } from "./options.js";
