/** `@flowfabric/core/records`: what stores keep, as far as all of them keep it alike, and what answers make of it. */
export * from "./attempts.js";
export * from "./events.js";
export * from "./executions.js";
export * from "./feeds.js";
export * from "./values.js";
export * from "./workers.js";
