/** FlowFabric on Postgres: `postgresBackend({ connectionString })`. */
export { postgresBackend } from "./backend.js";
export type { PostgresOptions } from "./options.js";
