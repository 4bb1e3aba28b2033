/** Opening a store. The only place that knows which kinds there are. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";

import type { EngineBackend } from "@flowfabric/core";
import { Client } from "@flowfabric/sdk";

import { RefusedError, UsageError } from "./errors.js";
import type { StoreOptions } from "./options.js";

/** Longer than one letter, or Windows drives would be schemes. */
const SCHEME = /^([a-z][a-z0-9+.-]+):(.*)$/is;

const POSTGRES_SCHEMES: ReadonlySet<string> = new Set([
  "postgres",
  "postgresql",
]);

/**
 * The file that a `--db` value names.
 * @throws UsageError for the scheme of another store
 */
export function storePath(target: string): string {
  const match = SCHEME.exec(target);
  const scheme = match?.[1]?.toLowerCase();
  const path =
    scheme === "sqlite" ? (match?.[2] ?? "").replace(/^\/\//, "") : target;
  // What follows the scheme is not repeated: a URL may hold a password.
  if (scheme !== undefined && scheme !== "sqlite")
    throw new UsageError(
      `cannot open a store of kind "${scheme}:"; give --db <path>, --db sqlite:<path> or --db postgres://<user>@<host>/<database>`,
    );
  if (path === "")
    throw new UsageError("--db is empty; give the path of a SQLite file");
  return path === ":memory:" ? path : resolve(path);
}

/** Where a `--db` value names a Postgres database; `?schema=` names another schema than the default. */
function serverAddress(
  target: string,
): { connectionString: string; schema?: string } | undefined {
  const scheme = SCHEME.exec(target)?.[1]?.toLowerCase();
  if (scheme === undefined || !POSTGRES_SCHEMES.has(scheme)) return undefined;
  if (!URL.canParse(target))
    throw new UsageError(
      "--db is no postgres:// address; give postgres://<user>@<host>/<database>",
    );
  const url = new URL(target);
  const schema = url.searchParams.get("schema");
  url.searchParams.delete("schema");
  return {
    connectionString: url.href,
    ...(schema === null ? {} : { schema }),
  };
}

/**
 * @param create whether a missing file (and its folder) is made; looking into a store must not leave an
 * empty one behind where the path was mistyped
 */
export async function openStore(
  target: string,
  { create }: { readonly create: boolean },
): Promise<EngineBackend> {
  const server = serverAddress(target);
  if (server !== undefined) {
    const { postgresBackend } = await import("@flowfabric/postgres");
    return postgresBackend(server);
  }
  const path = storePath(target);
  if (path !== ":memory:") {
    if (create) mkdirSync(dirname(path), { recursive: true });
    else if (!existsSync(path))
      throw new RefusedError(
        `there is no store at ${path}; give --db <path> or set FLOWFABRIC_DB`,
      );
  }
  // Loaded late: --help and usage errors need no native module.
  const { sqliteBackend } = await import("@flowfabric/sqlite");
  return sqliteBackend({ path });
}

/** Runs `use` with an opened store and a client of it, and closes both. */
export async function withStore<T>(
  options: StoreOptions,
  { create }: { readonly create: boolean },
  use: (client: Client, backend: EngineBackend) => Promise<T>,
): Promise<T> {
  await using backend = await openStore(options.db, { create });
  await using client = new Client({ backend, namespace: options.namespace });
  return await use(client, backend);
}
