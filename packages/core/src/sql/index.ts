/** `@flowfabric/core/sql`: for stores in tables. Their rows are records, and so all of `@flowfabric/core/records` is here too. */
export * from "../records/attempts.js";
export * from "../records/events.js";
export * from "../records/executions.js";
export * from "../records/feeds.js";
export * from "../records/values.js";
export * from "../records/workers.js";
export * from "./attempts.js";
export * from "./cursors.js";
export * from "./lifecycle.js";
export * from "./parking.js";
export * from "./rows.js";
export * from "./suspending.js";
export * from "./suspensions.js";
export * from "./streams.js";
