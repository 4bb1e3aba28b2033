/** FlowFabric on Postgres: `postgresBackend({ connectionString })`. */
export { postgresBackend } from "./backend.js";
export {
  migratePostgres,
  type MigratePostgresOptions,
} from "./migrate-schema.js";
export type { MigrationReport } from "./migrate.js";
export type { PostgresOptions } from "./options.js";
