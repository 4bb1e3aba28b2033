/** Every program here is told its store by one text, so that one line below brings in another backend. */
import type { EngineBackend } from "@flowfabric/core";
import { postgresBackend } from "@flowfabric/postgres";
import { sqliteBackend } from "@flowfabric/sqlite";

/** By what stands before the colon; the rest is the backend's own. */
const OPENERS: Readonly<
  Record<string, (location: string) => Promise<EngineBackend>>
> = {
  sqlite: (path) => sqliteBackend({ path }),
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
