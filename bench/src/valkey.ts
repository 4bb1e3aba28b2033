/** Stores on Valkey: a server for each way of keeping data, a prefix for each store. */
import { randomUUID } from "node:crypto";

import { valkeyBackend } from "@flowfabric/valkey";
import {
  openClient,
  removeKeys,
  startValkey,
  type TestServer,
} from "@flowfabric/valkey-testing";
import type { Redis } from "ioredis";

import type { MeasuredBackend } from "./backends.js";

/** Of the server, as its own configuration knows them. */
type Settings = Readonly<Record<string, string>>;

const servers: Promise<TestServer>[] = [];

/** To be called at the end, also where nothing was started. */
export async function stopValkeyServers(): Promise<void> {
  await Promise.all(servers.map(async (server) => (await server).stop()));
}

export function valkeyStore(name: string, settings: Settings): MeasuredBackend {
  let server: Promise<TestServer> | undefined;
  return {
    name,
    family: "valkey",
    async create(directory) {
      if (server === undefined) {
        server = startValkey({ settings, directory });
        servers.push(server);
      }
      const url = new URL((await server).url);
      // Any process finds it by the address; the part behind the hash is ours.
      url.hash = `bench_${randomUUID().replaceAll("-", "")}`;
      return url.href;
    },
    open: (location) => valkeyBackend(placeOf(location)),
    async openCounted(location) {
      const backend = await valkeyBackend(placeOf(location));
      const client = openClient(placeOf(location).url) as Redis;
      return {
        backend,
        asked: async () => callsIn(await client.info("commandstats")),
        async [Symbol.asyncDispose]() {
          client.disconnect();
          await backend.close();
        },
      };
    },
    async storedBytes(location) {
      return await withKeys(location, async (client, prefix) => {
        let bytes = 0;
        let cursor = "0";
        do {
          const [next, keys] = await client.scanBuffer(
            cursor,
            "MATCH",
            `${prefix}:*`,
            "COUNT",
            1_000,
          );
          cursor = next.toString();
          const sizes = await client
            .pipeline(keys.map((key) => ["memory", "usage", key, "samples", 0]))
            .exec();
          for (const [, size] of sizes ?? []) bytes += size as number;
        } while (cursor !== "0");
        return bytes;
      });
    },
    remove: (location) => withKeys(location, removeKeys),
  };
}

/** How many functions the server was asked to run; what they do inside is not counted. */
function callsIn(commandStats: string): number {
  let calls = 0;
  for (const [, of] of commandStats.matchAll(
    /^cmdstat_fcall(?:_ro)?:calls=(\d+)/gm,
  ))
    calls += Number(of);
  return calls;
}

/** What a location says, as `valkeyBackend` takes it. */
function placeOf(location: string): { url: string; prefix: string } {
  const url = new URL(location);
  const prefix = url.hash.slice(1);
  url.hash = "";
  return { url: url.href, prefix };
}

async function withKeys<Answer>(
  location: string,
  use: (client: Redis, prefix: string) => Promise<Answer>,
): Promise<Answer> {
  const { url, prefix } = placeOf(location);
  const client = openClient(url) as Redis;
  try {
    return await use(client, prefix);
  } finally {
    client.disconnect();
  }
}
