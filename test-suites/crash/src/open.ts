/** Every program here is told its store by one text, so that one line below brings in another backend. */
import type { EngineBackend } from "@flowfabric/core";
import { postgresBackend } from "@flowfabric/postgres";
import { sqliteBackend } from "@flowfabric/sqlite";
import { valkeyBackend } from "@flowfabric/valkey";

/**
 * `valkey://host:port?prefix=name`, or `valkey+cluster://host:port,host:port?prefix=name`.
 * @param scheme with the colon
 */
const valkey =
  (scheme: string) =>
  (location: string): Promise<EngineBackend> => {
    const [address = "", query] = location.split("?");
    const parameters = new URLSearchParams(query);
    const prefix = parameters.get("prefix");
    const answerTimeoutMs = parameters.get("answerTimeoutMs");
    const replicas = parameters.get("replicas");
    return valkeyBackend({
      ...(scheme.endsWith("+cluster:")
        ? { clusterNodes: address.slice(2).split(",").map(nodeAt) }
        : { url: scheme + address }),
      ...(prefix === null ? {} : { prefix }),
      ...(answerTimeoutMs === null
        ? {}
        : { answerTimeoutMs: Number(answerTimeoutMs) }),
      ...(replicas === null
        ? {}
        : { waitForReplicas: { replicas: Number(replicas) } }),
    });
  };

function nodeAt(text: string) {
  const { hostname, port } = new URL(`node://${text}`);
  return { host: hostname, port: Number(port) };
}

/** By what stands before the colon; the rest is the backend's own. */
const OPENERS: Readonly<
  Record<string, (location: string) => Promise<EngineBackend>>
> = {
  sqlite: (path) => sqliteBackend({ path }),
  valkey: valkey("valkey:"),
  "valkey+cluster": valkey("valkey+cluster:"),
  redis: valkey("redis:"),
  postgres(location) {
    const url = new URL(`postgres:${location}`);
    const take = (name: string) => {
      const value = url.searchParams.get(name);
      url.searchParams.delete(name);
      return value ?? undefined;
    };
    const schema = take("schema");
    const listenConnectionString = take("listen");
    const maxConnections = Number(take("maxConnections") ?? 4);
    const answerTimeoutMs = take("answerTimeoutMs");
    return postgresBackend({
      connectionString: url.href,
      maxConnections,
      ...(schema === undefined ? {} : { schema }),
      ...(listenConnectionString === undefined
        ? {}
        : { listenConnectionString }),
      ...(answerTimeoutMs === undefined
        ? {}
        : { answerTimeoutMs: Number(answerTimeoutMs) }),
    });
  },
};

/** @param store for example `sqlite:/tmp/shop.db` */
export function openStore(store: string): Promise<EngineBackend> {
  const colon = store.indexOf(":");
  const open = OPENERS[store.slice(0, colon)];
  if (open === undefined) throw new Error(`no backend is known for '${store}'`);
  return open(store.slice(colon + 1));
}
