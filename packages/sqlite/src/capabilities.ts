import { supports, type Capabilities } from "@flowfabric/core";

/** Opening the file does the work of `prepare`, and the caller's own thread that of every call. */
export const sqliteCapabilities: Capabilities = {
  identity: { family: "sqlite", version: { major: 0, minor: 1, patch: 0 } },
  supports: supports({ prepare: false, concurrentCalls: false }),
};
