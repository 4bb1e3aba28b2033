/** A cluster that loses masters while everybody works: their replicas are promoted, and clients find them by themselves. */
import { randomUUID } from "node:crypto";

import {
  infoField,
  inSync,
  startOwnCluster,
  withClient,
  type OwnCluster,
  type RestartableServer,
} from "@flowfabric/valkey-testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { machineMs } from "../../src/reports.js";
import { pause, until } from "../fleet.js";
import { scaled, TIMEOUT_MS } from "../harness.js";
import { Load } from "./load.js";

/** How long a node may be silent before the others replace it. */
const NODE_TIMEOUT_MS = 1_500;
const STARTED_MS_MAX = 60_000;

export function valkeyClusterTests(): void {
  describe(
    "valkey: a cluster that loses masters",
    { timeout: TIMEOUT_MS },
    () => {
      let cluster: OwnCluster;
      beforeAll(async () => {
        cluster = await startOwnCluster({
          replicasPerMaster: 1,
          settings: {
            appendonly: "yes",
            appendfsync: "always",
            "cluster-node-timeout": String(NODE_TIMEOUT_MS),
          },
        });
      }, STARTED_MS_MAX);
      afterAll(() => cluster.stop());

      test("after crashes of masters nothing is lost of what waited for their replicas", async () => {
        const prefix = `faults_${randomUUID().replaceAll("-", "")}`;
        const store = `${cluster.url}?prefix=${prefix}&replicas=1`;
        const load = await Load.start({ store, direct: store });
        for (let round = 0; round < scaled(6, 2); round++) {
          const lost = await someMaster(cluster);
          await lost.shutDown("crash");
          await until(
            "a new master",
            async () => (await masters(cluster)) === 3,
          );
          await lost.start();
          // Comes back as the replica of its replica.
          await until(
            "its demotion",
            async () => (await roleOf(lost)) === "slave",
          );
          await inSync(lost);
          await load.recovered("a master replaced", machineMs());
        }
        await load.finish();
      });

      test("connections killed at every node, at random and every second, cost nobody anything", async () => {
        const prefix = `faults_${randomUUID().replaceAll("-", "")}`;
        const store = `${cluster.url}?prefix=${prefix}`;
        const load = await Load.start({ store, direct: store });
        let killed = 0;
        for (let second = 0; second < scaled(30, 4); second++) {
          for (const server of cluster.servers)
            killed += await withClient(server, async (operator) => {
              const type = Math.random() < 0.5 ? "normal" : "pubsub";
              return Number(
                await operator.call("CLIENT", "KILL", "TYPE", type),
              );
            });
          await pause(1_000);
        }
        expect(killed).toBeGreaterThan(scaled(30, 4));
        await load.recovered(`${killed} connections killed`, machineMs());
        await load.finish();
      });
    },
  );
}

async function someMaster(cluster: OwnCluster): Promise<RestartableServer> {
  const found: RestartableServer[] = [];
  for (const server of cluster.servers)
    if ((await roleOf(server)) === "master") found.push(server);
  return found[Math.floor(Math.random() * found.length)]!;
}

/** Those that run and are masters. */
async function masters(cluster: OwnCluster): Promise<number> {
  const roles = await Promise.all(
    cluster.servers.map((server) => roleOf(server).catch(() => "gone")),
  );
  return roles.filter((role) => role === "master").length;
}

function roleOf(server: RestartableServer): Promise<string | undefined> {
  return withClient(server, async (client) =>
    infoField(await client.info("replication"), "role"),
  );
}
