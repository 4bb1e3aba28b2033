import {
  engineError,
  type AdminOperations,
  type Implementation,
} from "@flowfabric/core";

import { valkeyCapabilities } from "../capabilities.js";
import type { Store } from "../store.js";

export function adminOperations(store: Store): Implementation<AdminOperations> {
  const { connection } = store;
  return {
    ping: () => connection.ping(),

    async prepare() {
      return (await connection.load())
        ? {
            kind: "applied",
            description: `loaded the library ${connection.version}`,
          }
        : { kind: "noOp" };
    },

    async shutdownPrepare({ graceMs }) {
      const startedAtMs = performance.now();
      store.wakeups.close();
      const drained = connection.drained();
      const late = new Promise<"late">((resolve) =>
        setTimeout(resolve, graceMs, "late").unref(),
      );
      if ((await Promise.race([drained, late])) === "late") {
        throw engineError("timeout", {
          op: "shutdown_prepare",
          elapsedMs: Math.round(performance.now() - startedAtMs),
        });
      }
    },

    backendLabel: () => "valkey",

    capabilities: () => valkeyCapabilities,
  };
}
