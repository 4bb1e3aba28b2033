/** `@flowfabric/core/sql`: what SQL stores share, which is their rows and what answers make of them. */
export * from "./feeds.js";
export * from "./rows.js";
