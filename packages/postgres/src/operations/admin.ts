import {
  engineError,
  type AdminOperations,
  type Implementation,
} from "@flowfabric/core";

import { postgresCapabilities } from "../capabilities.js";
import type { Store } from "../store.js";

export function adminOperations(store: Store): Implementation<AdminOperations> {
  const { db } = store;
  return {
    ping: async () => void (await db.query("SELECT 1")),

    // Opening the store has migrated it; there is nothing left to do.
    prepare: async () => {
      await db.read(() => undefined);
      return { kind: "noOp" };
    },

    async shutdownPrepare({ graceMs }) {
      const startedAtMs = performance.now();
      store.wakeups.close();
      const drained = db.drained();
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

    backendLabel: () => "postgres",

    capabilities: () => postgresCapabilities,
  };
}
