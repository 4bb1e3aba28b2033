import { supports, type Capabilities } from "@flowfabric/core";

/** All that a backend may leave out is here, but for `prepare`: opening the store does its work. */
export const postgresCapabilities: Capabilities = {
  identity: { family: "postgres", version: { major: 0, minor: 1, patch: 0 } },
  supports: supports({ prepare: false }),
};
