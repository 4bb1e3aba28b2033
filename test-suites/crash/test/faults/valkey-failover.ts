/** A replica that takes over while everybody works. Clients reach the master of the moment through a proxy. */
import { randomUUID } from "node:crypto";

import {
  infoField,
  inSync,
  startReplica,
  startRestartableValkey,
  withClient,
  type RestartableServer,
} from "@flowfabric/valkey-testing";
import { describe, onTestFinished, test } from "vitest";

import { machineMs } from "../../src/reports.js";
import { pause, until } from "../fleet.js";
import { scaled, TIMEOUT_MS } from "../harness.js";
import { Load } from "./load.js";
import { startProxy, storeAt } from "./valkey-bench.js";
import type { TcpProxy } from "./tcp-proxy.js";

/** Until someone notices that the master is gone. */
const NOTICED_MS = 1_000;

export function valkeyFailoverTests(): void {
  describe("valkey: a replica that takes over", { timeout: TIMEOUT_MS }, () => {
    test("after a crash of the master nothing is lost of what waited for its replica", async () => {
      const pair = await startPair();
      const load = await Load.start({
        store: pair.store({ replicas: 1 }),
        direct: pair.store({}),
      });
      for (let round = 0; round < scaled(5, 2); round++) {
        const { master, replica } = pair;
        await master.shutDown("crash");
        await pause(NOTICED_MS);
        await ask(replica, "REPLICAOF", "NO", "ONE");
        pair.swap();
        await master.start();
        await follow(master, replica);
        await load.recovered("a replica promoted", machineMs());
      }
      await load.finish();
    });

    test("a master that becomes a replica sends everybody on, and nothing is lost", async () => {
      const pair = await startPair();
      const load = await Load.start({
        store: pair.store({}),
        direct: pair.store({}),
      });
      for (let round = 0; round < scaled(10, 3); round++) {
        const { master, replica } = pair;
        // Connections stay, and find that their server takes no writes any more.
        await ask(master, "FAILOVER", "TO", replica.host, String(replica.port));
        await until(
          "the new master",
          async () => (await roleOf(replica)) === "master",
        );
        pair.swap();
        await inSync(master);
        await load.recovered("roles exchanged", machineMs());
      }
      await load.finish();
    });
  });
}

interface Pair {
  readonly master: RestartableServer;
  readonly replica: RestartableServer;
  /** Through the proxy. */
  store(options: { readonly replicas?: number }): string;
  /** They exchange their roles, and the proxy leads to the new master. */
  swap(): void;
}

async function startPair(): Promise<Pair> {
  const prefix = `faults_${randomUUID().replaceAll("-", "")}`;
  let master = await startRestartableValkey();
  const first = master;
  let replica = await startReplica(first);
  const second = replica;
  onTestFinished(async () => {
    await Promise.all([first.stop(), second.stop()]);
  });
  const proxy: TcpProxy = await startProxy(master);
  return {
    get master() {
      return master;
    },
    get replica() {
      return replica;
    },
    store: (options) => storeAt(first, prefix, { ...options, through: proxy }),
    swap() {
      [master, replica] = [replica, master];
      proxy.lead(master);
    },
  };
}

function ask(
  server: RestartableServer,
  command: string,
  ...args: readonly string[]
): Promise<unknown> {
  return withClient(server, (client) => client.call(command, ...args));
}

async function roleOf(server: RestartableServer): Promise<string | undefined> {
  return infoField(String(await ask(server, "INFO", "replication")), "role");
}

async function follow(
  replica: RestartableServer,
  master: RestartableServer,
): Promise<void> {
  await ask(replica, "REPLICAOF", master.host, String(master.port));
  await inSync(replica);
}
