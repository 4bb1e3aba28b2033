/** FlowFabric on SQLite: `sqliteBackend({ path })`. */
export { sqliteBackend } from "./backend.js";
export type { SqliteOptions } from "./options.js";
