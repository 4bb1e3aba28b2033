/** Where an example runs. Only this file knows which kinds of stores there are. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { postgresBackend } from "@flowfabric/postgres";
import { sqliteBackend } from "@flowfabric/sqlite";
import { valkeyBackend } from "@flowfabric/valkey";

/** What begins the names of everything that examples keep on a server. */
const NAME = "flowfabric_examples";

/** A store by one text, so that another process can be told of it as well. */
export interface Store {
  readonly url: string;
  readonly remove: () => void;
}

/**
 * @param given `sqlite`, `postgres`, `valkey`, or the URL of a server
 * @returns nothing where it names no store
 */
export function findStore(given: string): Store | undefined {
  const { FF_HOST, FF_PORT, FF_POSTGRES_URL } = process.env;
  if (given === "sqlite") {
    const folder = mkdtempSync(join(tmpdir(), "flowfabric-example-"));
    const remove = () => rmSync(folder, { recursive: true, force: true });
    return { url: `sqlite:${join(folder, "example.db")}`, remove };
  }
  const url =
    given === "postgres"
      ? (FF_POSTGRES_URL ??
        "postgres://postgres:postgres@127.0.0.1:54314/postgres")
      : given === "valkey"
        ? `valkey://${FF_HOST ?? "localhost"}:${FF_PORT ?? "6379"}`
        : given;
  const isServer = /^(postgres(ql)?|(valkey|redis)(\+cluster)?):\/\//.test(url);
  return isServer ? { url, remove: () => {} } : undefined;
}

export function openStore(url: string) {
  const [scheme = "", rest = ""] = splitAt(url, ":");
  if (scheme === "sqlite") return sqliteBackend({ path: rest });
  if (scheme.startsWith("postgres")) {
    const address = new URL(url);
    const schema = address.searchParams.get("schema") ?? NAME;
    address.searchParams.delete("schema");
    return postgresBackend({ connectionString: address.href, schema });
  }
  const [server = "", query] = splitAt(url, "?");
  const prefix = new URLSearchParams(query).get("prefix") ?? NAME;
  if (!scheme.endsWith("+cluster"))
    return valkeyBackend({ url: server, prefix });
  const clusterNodes = rest
    .slice("//".length, server.length - scheme.length - 1)
    .split(",")
    .map((node) => new URL(`node://${node}`))
    .map(({ hostname, port }) => ({ host: hostname, port: Number(port) }));
  return valkeyBackend({ clusterNodes, prefix });
}

/** How such a server is started. */
export function startCommandOf(url: string): string {
  return url.startsWith("postgres")
    ? "docker run --rm -p 54314:5432 -e POSTGRES_PASSWORD=postgres postgres:16"
    : "docker run --rm -p 6379:6379 valkey/valkey:8";
}

function splitAt(text: string, mark: string): string[] {
  const at = text.indexOf(mark);
  return at === -1 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
