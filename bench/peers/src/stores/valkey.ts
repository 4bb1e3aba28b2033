/** A Valkey that keeps an append-only file and evicts nothing, as BullMQ's guide to production asks for. */
import {
  infoField,
  openClient,
  startRestartableValkey,
} from "@flowfabric/valkey-testing";
import type { Redis } from "ioredis";

import type { Store } from "./store.js";

const SETTINGS = {
  appendonly: "yes",
  appendfsync: "everysec",
  "maxmemory-policy": "noeviction",
  // A rewrite in the middle would be somebody's bad luck.
  "auto-aof-rewrite-percentage": "0",
};

export async function valkeyStore(directory: string): Promise<Store> {
  // Its own in any case: places are made by emptying all of it, which nobody's server but ours may be.
  const server = await startRestartableValkey({
    settings: SETTINGS,
    directory,
  });
  const client = openClient(server.url) as Redis;
  return {
    async describe() {
      const info = await client.info("server");
      const settings = Object.entries(SETTINGS)
        .map(([name, value]) => `${name}=${value}`)
        .join(", ");
      const version =
        infoField(info, "valkey_version") ?? infoField(info, "redis_version");
      return `Valkey ${version}: ${settings}`;
    },
    async newPlace() {
      await client.flushall("SYNC");
      await client.function("FLUSH");
      return server.url;
    },
    removePlace: async () => {},
    async usage() {
      const [cpu, stats] = await Promise.all([
        client.info("cpu"),
        client.info("stats"),
      ]);
      return {
        cpuMs:
          (numberIn(cpu, "used_cpu_user") + numberIn(cpu, "used_cpu_sys")) *
          1_000,
        requests: numberIn(stats, "total_reads_processed"),
      };
    },
    storedBytes: async () =>
      numberIn(await client.info("memory"), "used_memory"),
    async stop() {
      client.disconnect();
      await server.stop();
    },
  };
}

const numberIn = (info: string, field: string) =>
  Number(infoField(info, field));
