import { supports, type Capabilities } from "@flowfabric/core";

/** No transaction of a caller can span a store of this kind. */
export const valkeyCapabilities: Capabilities = {
  identity: { family: "valkey", version: { major: 0, minor: 1, patch: 0 } },
  supports: supports({ callerTransaction: false }),
};
