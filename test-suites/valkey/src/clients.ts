/** Connections of the tests' own, which belong to nobody under test. */
import { setTimeout as pause } from "node:timers/promises";

import { Cluster, Redis } from "ioredis";

import {
  clusterNodes,
  driverUrl,
  isClusterUrl,
  type Node,
} from "./addresses.js";

const START_MS_MAX = 30_000;

/** To look at a store from outside, or to tidy up; whoever opens it calls `disconnect`. */
export function openClient(url: string): Redis | Cluster {
  const client = isClusterUrl(url)
    ? new Cluster(clusterNodes(url), { lazyConnect: true })
    : new Redis(driverUrl(url), { lazyConnect: true });
  // Heard from what is asked.
  client.on("error", () => {});
  return client;
}

/** Keys by their pattern, with the node that has them: in a cluster each master has its share. Keys hold bytes that are no text. */
export async function* findKeys(
  client: Redis | Cluster,
  pattern: string,
): AsyncGenerator<{ node: Redis; keys: Buffer[] }> {
  // A cluster's nodes are known once it has answered.
  await client.ping();
  const nodes = client instanceof Cluster ? client.nodes("master") : [client];
  for (const node of nodes) {
    let cursor = "0";
    do {
      const [next, keys] = await node.scanBuffer(
        cursor,
        "MATCH",
        pattern,
        "COUNT",
        1_000,
      );
      cursor = next.toString();
      yield { node, keys };
    } while (cursor !== "0");
  }
}

/** Removes what a store had: all keys behind its prefix. */
export async function removeKeys(
  client: Redis | Cluster,
  prefix: string,
): Promise<void> {
  for await (const { node, keys } of findKeys(client, `${prefix}:*`))
    // One by one, for in a cluster they lie in several slots.
    await node.pipeline(keys.map((key) => ["unlink", key])).exec();
}

/** One connection for `use`, tried once. */
export async function withClient<T>(
  { host, port }: Node,
  use: (client: Redis) => Promise<T>,
): Promise<T> {
  const client = new Redis({ host, port, ...ONE_TRY });
  // What is asked is only told that the connection is closed.
  let reason: Error | undefined;
  client.on("error", (error) => (reason = error));
  try {
    await client.connect();
    return await use(client);
  } catch (error) {
    throw reason ?? error;
  } finally {
    client.disconnect();
  }
}

const ONE_TRY = {
  lazyConnect: true,
  retryStrategy: () => null,
  maxRetriesPerRequest: 0,
  // Who listens takes a connection at once; only this process may come late to hear of it.
  connectTimeout: 10_000,
} as const;

/**
 * Until `fulfilled` says so.
 * @param running whether it can still come to that
 * @throws the last refusal; that it took too long, where there was none
 */
export async function until(
  fulfilled: () => Promise<boolean>,
  what: string,
  running: () => boolean = () => true,
): Promise<void> {
  const endsAtMs = performance.now() + START_MS_MAX;
  for (;;) {
    let refusal: unknown = new Error(`${what}: not after ${START_MS_MAX} ms`);
    try {
      if (await fulfilled()) return;
    } catch (error) {
      refusal = error;
    }
    if (!running() || performance.now() > endsAtMs) throw refusal;
    await pause(20);
  }
}

/** Until it takes commands, which is after it has read its files. */
export function answering(node: Node, running?: () => boolean): Promise<void> {
  return until(
    () => withClient(node, async (client) => (await client.ping()) === "PONG"),
    `${node.host}:${node.port} answers`,
    running,
  );
}

/** A field of what INFO and CLUSTER INFO tell. */
export function infoField(info: string, name: string): string | undefined {
  return new RegExp(`^${name}:(.*?)\r?$`, "m").exec(info)?.[1];
}

/** For people: `Valkey 8.0.1`, and of a cluster how many masters it has. */
export async function describeServer(url: string): Promise<string> {
  if (!isClusterUrl(url)) {
    const client = new Redis(driverUrl(url), ONE_TRY);
    client.on("error", () => {});
    try {
      await client.connect();
      return versionOf(await client.info("server"));
    } finally {
      client.disconnect();
    }
  }
  return withClient(clusterNodes(url)[0]!, async (client) => {
    const size = infoField(await client.cluster("INFO"), "cluster_size");
    return `${versionOf(await client.info("server"))}, ${size} masters`;
  });
}

function versionOf(info: string): string {
  const valkey = infoField(info, "valkey_version");
  return valkey === undefined
    ? `Redis ${infoField(info, "redis_version")}`
    : `Valkey ${valkey}`;
}
