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
    const schema = url.searchParams.get("schema") ?? "flowfabric";
    url.searchParams.delete("schema");
    return postgresBackend({
      connectionString: url.href,
      schema,
      maxConnections: 4,
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
