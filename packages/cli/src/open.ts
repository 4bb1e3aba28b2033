/** Opening a store. The only place that knows which kinds there are. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname, resolve } from "node:path";

import type { EngineBackend } from "@flowfabric/core";
import type { MigrationReport } from "@flowfabric/postgres";
import { Client } from "@flowfabric/sdk";

import { RefusedError, UsageError } from "./errors.js";
import type { StoreOptions } from "./options.js";
import {
  describeValkeyAddress,
  formatValkeyAddress,
  isValkeyScheme,
  parseValkeyAddress,
  valkeyServer,
  valkeyStoreExists,
  type ValkeyAddress,
} from "./valkey.js";

/** Longer than one letter, or Windows drives would be schemes. */
const SCHEME = /^([a-z][a-z0-9+.-]+):(.*)$/is;

/** What keeps a store apart from others on its server. */
interface StoreNames {
  readonly schema: string;
  readonly prefix: string;
}

/** Those of the backends, so that a program that names none has the same store. */
const DEFAULT_NAMES: StoreNames = { schema: "flowfabric", prefix: "ff" };

/** Where a store is. */
export type StoreAddress =
  | { readonly kind: "sqlite"; readonly path: string }
  | {
      readonly kind: "postgres";
      readonly connectionString: string;
      readonly schema: string;
    }
  | ValkeyAddress;

/**
 * What a `--backend` value names: a file, a Postgres database, of which `?schema=` chooses the schema, or a Valkey or Redis,
 * of which `?prefix=` chooses the keys.
 * @throws UsageError for anything else
 */
export function parseAddress(
  given: string,
  defaults = DEFAULT_NAMES,
): StoreAddress {
  const match = SCHEME.exec(given);
  const scheme = match?.[1]?.toLowerCase();
  switch (scheme) {
    case "postgres":
    case "postgresql":
      return parseServerAddress(given, defaults.schema);
    case "sqlite":
      return fileAddress((match?.[2] ?? "").replace(/^\/\//, ""));
    case undefined:
      return fileAddress(given);
    default:
      if (isValkeyScheme(scheme))
        return parseValkeyAddress(given, defaults.prefix);
      // What follows the scheme is not repeated: a URL may hold a password.
      throw new UsageError(
        `cannot open a store of kind "${scheme}:"; give --backend <path>, --backend sqlite:<path>, --backend postgres://<user>@<host>/<database> or --backend valkey://<host>:<port>`,
      );
  }
}

function fileAddress(path: string): StoreAddress {
  if (path === "")
    throw new UsageError("--backend is empty; give the path of a SQLite file");
  return {
    kind: "sqlite",
    path: path === ":memory:" ? path : resolve(path),
  };
}

function parseServerAddress(
  given: string,
  defaultSchema: string,
): StoreAddress {
  if (!URL.canParse(given))
    throw new UsageError(
      "--backend is no postgres:// address; give postgres://<user>@<host>/<database>",
    );
  const url = new URL(given);
  const schema = url.searchParams.get("schema") ?? defaultSchema;
  // Ours; the server would be asked for a setting of that name.
  url.searchParams.delete("schema");
  return { kind: "postgres", connectionString: url.href, schema };
}

/** The text that {@link parseAddress} reads: for another process, never for people. */
export function formatAddress(address: StoreAddress): string {
  if (address.kind === "sqlite") return `sqlite:${address.path}`;
  if (address.kind === "valkey") return formatValkeyAddress(address);
  const url = new URL(address.connectionString);
  url.searchParams.set("schema", address.schema);
  return url.href;
}

/** As people see it, without anything secret. */
export function describeAddress(address: StoreAddress): string {
  if (address.kind === "sqlite") return address.path;
  if (address.kind === "valkey") return describeValkeyAddress(address);
  const { protocol, username, host, pathname } = new URL(
    address.connectionString,
  );
  const user = username === "" ? "" : `${username}@`;
  return `${protocol}//${user}${host}${pathname}?schema=${address.schema}`;
}

/**
 * @param create whether a missing store (and its folder) is made; looking into one must not leave an empty one behind
 * where the address was mistyped
 */
export async function openStore(
  address: StoreAddress,
  { create }: { readonly create: boolean },
): Promise<EngineBackend> {
  if (!create && !(await storeExists(address)))
    throw new RefusedError(
      `there is no store at ${describeAddress(address)}; give --backend <path or URL> or set FLOWFABRIC_DB`,
    );
  // Loaded late: --help and usage errors need no native module, and each store only its own driver.
  if (address.kind === "postgres") {
    const { postgresBackend } = await import("@flowfabric/postgres");
    const { connectionString, schema } = address;
    return postgresBackend({ connectionString, schema });
  }
  if (address.kind === "valkey") {
    const { valkeyBackend } = await import("@flowfabric/valkey");
    const { prefix } = address;
    return valkeyBackend({ ...valkeyServer(address), prefix });
  }
  const { path } = address;
  makeFolder(path);
  const { sqliteBackend } = await import("@flowfabric/sqlite");
  return sqliteBackend({ path });
}

export async function storeExists(address: StoreAddress): Promise<boolean> {
  if (address.kind === "sqlite")
    return address.path === ":memory:" || existsSync(address.path);
  if (address.kind === "valkey") return valkeyStoreExists(address);
  const { version, migrations } = await migrateStore(address, {
    dryRun: true,
  });
  return migrations.length < version;
}

/** Brings a store to this version's schema, or tells what that would take. */
export async function migrateStore(
  address: Exclude<StoreAddress, ValkeyAddress>,
  { dryRun }: { readonly dryRun: boolean },
): Promise<MigrationReport> {
  if (address.kind === "postgres") {
    const { migratePostgres } = await import("@flowfabric/postgres");
    const { connectionString, schema } = address;
    return migratePostgres({ connectionString, schema, dryRun });
  }
  const { path } = address;
  if (!dryRun) makeFolder(path);
  const { migrateSqlite } = await import("@flowfabric/sqlite");
  return migrateSqlite({ path, dryRun });
}

function makeFolder(path: string): void {
  if (path !== ":memory:") mkdirSync(dirname(path), { recursive: true });
}

/** Runs `use` with an opened store and a client of it, and closes both. */
export async function withStore<T>(
  options: StoreOptions,
  { create }: { readonly create: boolean },
  use: (client: Client, backend: EngineBackend) => Promise<T>,
): Promise<T> {
  await using backend = await openStore(parseAddress(options.backend), {
    create,
  });
  await using client = new Client({ backend, namespace: options.namespace });
  return await use(client, backend);
}
