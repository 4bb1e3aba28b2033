/** Stores on Valkey and Redis: how they are named, and what the command does to them past the backend. */
import type { ValkeyOptions } from "@flowfabric/valkey";
import type { Cluster, Redis, RedisOptions } from "ioredis";

import { UsageError } from "./errors.js";

/** Where a store is. */
export interface ValkeyAddress {
  readonly kind: "valkey";
  /** As it was given, without our own parameter. */
  readonly url: string;
  /** Begins all keys of the store. */
  readonly prefix: string;
}

/** The product, `s` for TLS, and whether the hosts are nodes of one cluster. */
const SCHEME = /^(?:valkey|redis)(s?)(\+cluster)?$/;

/** Scheme with user and password, hosts, and the rest. */
const PARTS = /^([^:]+:\/\/(?:[^@/?#]*@)?)([^/?#]+)(.*)$/s;

const DEFAULT_PORT = 6379;

export function isValkeyScheme(scheme: string): boolean {
  return SCHEME.test(scheme);
}

/** @throws UsageError where it is none; its text is not repeated, for it may hold a password */
export function parseValkeyAddress(
  given: string,
  defaultPrefix: string,
): ValkeyAddress {
  const { hosts, url } = partsOf(given);
  const prefix = url.searchParams.get("prefix") ?? defaultPrefix;
  url.searchParams.delete("prefix");
  return { kind: "valkey", url: textOf(url, hosts), prefix };
}

/** The text that is read back to the same address. */
export function formatValkeyAddress({ url: text, prefix }: ValkeyAddress) {
  const { hosts, url } = partsOf(text);
  url.searchParams.set("prefix", prefix);
  return textOf(url, hosts);
}

/** As people see it, without anything secret. */
export function describeValkeyAddress({ url: text, prefix }: ValkeyAddress) {
  const { hosts, url } = partsOf(text);
  url.password = "";
  url.search = "";
  url.searchParams.set("prefix", prefix);
  return textOf(url, hosts);
}

/** What the backend is told of the server. */
export function valkeyServer(
  address: ValkeyAddress,
): Pick<ValkeyOptions, "url" | "clusterNodes" | "redisOptions"> {
  const { isCluster, nodes, login } = partsOf(address.url);
  return isCluster
    ? { clusterNodes: nodes, redisOptions: login }
    : { url: address.url };
}

/** Whether a store has been opened there. */
export function valkeyStoreExists(address: ValkeyAddress): Promise<boolean> {
  return withClient(
    address,
    // Its first cell's own record, which its first opening makes.
    async (client) => (await client.exists(`${address.prefix}:{0}`)) === 1,
  );
}

export function removeValkeyStore(address: ValkeyAddress): Promise<void> {
  return withClient(address, async (client) => {
    // A cluster's nodes are known once it has answered.
    await client.ping();
    const nodes = "nodes" in client ? client.nodes("master") : [client];
    for (const node of nodes) {
      let cursor = "0";
      do {
        // Keys hold bytes that are no text.
        const [next, keys] = await node.scanBuffer(
          cursor,
          "MATCH",
          `${address.prefix}:*`,
          "COUNT",
          1_000,
        );
        cursor = next.toString();
        // One by one, for in a cluster they lie in several slots.
        await node.pipeline(keys.map((key) => ["unlink", key])).exec();
      } while (cursor !== "0");
    }
  });
}

/** The driver waits this long for the end of a connection, in milliseconds, also of one that never began. */
const QUICK_END = { disconnectTimeout: 100 };

/** A connection that is gone afterwards. */
async function withClient<T>(
  address: ValkeyAddress,
  use: (client: Redis | Cluster) => Promise<T>,
): Promise<T> {
  const { isCluster, nodes, login } = partsOf(address.url);
  const { Cluster, Redis } = await import("ioredis");
  const client = isCluster
    ? new Cluster(nodes, {
        lazyConnect: true,
        clusterRetryStrategy: () => null,
        redisOptions: { ...login, ...QUICK_END },
      })
    : new Redis(driverUrl(address.url), {
        ...QUICK_END,
        lazyConnect: true,
        // Who mistyped an address wants to hear of it.
        retryStrategy: () => null,
      });
  let reason: unknown;
  client.on("error", (error) => (reason = error));
  try {
    await client.connect();
    return await use(client);
  } catch (error) {
    // The driver rejects with the end of the connection; why it ended it only tells as an event.
    throw reason ?? error;
  } finally {
    client.disconnect();
  }
}

/** The driver takes a scheme that it does not know for a host. */
function driverUrl(url: string): string {
  return url.replace(/^valkey(s?):/, "redis$1:");
}

function partsOf(text: string) {
  const [, before = "", hosts = "", after = ""] = PARTS.exec(text) ?? [];
  // Several hosts are more than a URL can have.
  const url = parseUrl(`${before}host${after}`);
  const [, secure, cluster] = SCHEME.exec(url.protocol.slice(0, -1)) ?? [];
  const isCluster = cluster !== undefined;
  const names = hosts.split(",");
  if (names.length > 1 && !isCluster)
    throw new UsageError(
      "--backend names several hosts; of a cluster they are nodes of, give valkey+cluster://<host>:<port>,<host>:<port>",
    );
  const nodes = names.map((name) => {
    const { hostname, port } = parseUrl(`node://${name}`);
    if (hostname === "") throw notAnAddress();
    return {
      host: hostname.replace(/^\[(.*)\]$/, "$1"),
      port: port === "" ? DEFAULT_PORT : Number(port),
    };
  });
  const login: Pick<RedisOptions, "username" | "password" | "tls"> = {
    ...(url.username === ""
      ? {}
      : { username: decodeURIComponent(url.username) }),
    ...(url.password === ""
      ? {}
      : { password: decodeURIComponent(url.password) }),
    ...(secure === "s" ? { tls: {} } : {}),
  };
  return { isCluster, hosts, nodes, url, login };
}

function parseUrl(text: string): URL {
  if (URL.canParse(text)) return new URL(text);
  throw notAnAddress();
}

function notAnAddress(): UsageError {
  return new UsageError(
    "--backend is no valkey:// address; give valkey://<host>:<port>, or valkey+cluster://<host>:<port>,<host>:<port>",
  );
}

function textOf(url: URL, hosts: string): string {
  return url.href.replace(/(:\/\/(?:[^@/?#]*@)?)host/, `$1${hosts}`);
}
