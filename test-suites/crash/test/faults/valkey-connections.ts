/** Connections that are taken away: by a restart of the server, or by an operator. */
import { withClient } from "@flowfabric/valkey-testing";
import { describe, expect, test } from "vitest";

import { machineMs } from "../../src/reports.js";
import { pause } from "../fleet.js";
import { scaled, TIMEOUT_MS } from "../harness.js";
import { Load } from "./load.js";
import { createValkeyBench, type ServerOf } from "./valkey-bench.js";

/** How long the server stays away. */
const DOWN_MS = 1_500;

export function valkeyConnectionTests(serverOf: ServerOf): void {
  describe(
    "valkey: connections that are taken away",
    { timeout: TIMEOUT_MS },
    () => {
      test("restarts of a server that syncs its log before it answers, orderly and by a crash, lose nothing", async () => {
        const { server, store } = createValkeyBench(serverOf());
        const load = await Load.start({ store: store(), direct: store() });
        for (let round = 0; round < scaled(5, 1); round++) {
          for (const shutdown of ["orderly", "crash"] as const) {
            await server.shutDown(shutdown);
            await pause(DOWN_MS);
            await server.start();
            await load.recovered(`restart, ${shutdown}`, machineMs());
          }
        }
        await load.finish();
      });

      test("connections killed by an operator, at random and every second, cost nobody anything", async () => {
        const { server, store } = createValkeyBench(serverOf());
        const load = await Load.start({ store: store(), direct: store() });
        let killed = 0;
        await withClient(server, async (operator) => {
          for (let second = 0; second < scaled(30, 4); second++) {
            const own = String(await operator.client("ID"));
            for (const id of await someConnections(operator, own))
              killed += Number(await operator.client("KILL", "ID", id));
            await pause(1_000);
          }
        });
        expect(killed).toBeGreaterThan(scaled(30, 4));
        await load.recovered(`${killed} connections killed`, machineMs());
        await load.finish();
      });
    },
  );
}

/** One that works and one that listens. */
async function someConnections(
  operator: {
    client(subcommand: "LIST", type: "TYPE", kind: string): Promise<unknown>;
  },
  own: string,
): Promise<string[]> {
  const chosen: string[] = [];
  for (const kind of ["normal", "pubsub"]) {
    const list = String(await operator.client("LIST", "TYPE", kind));
    const ids = [...list.matchAll(/^id=(\d+)/gm)]
      .map(([, id]) => id!)
      .filter((id) => id !== own);
    const id = ids[Math.floor(Math.random() * ids.length)];
    if (id !== undefined) chosen.push(id);
  }
  return chosen;
}
