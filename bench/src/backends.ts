/** The stores that are measured. A store more is one entry more in {@link BACKENDS}; nothing else names one. */
import { mkdtemp, rm } from "node:fs/promises";
import { statSync } from "node:fs";
import { join } from "node:path";

import type { EngineBackend } from "@flowfabric/core";
import { sqliteBackend } from "@flowfabric/sqlite";
import SqliteDriver from "better-sqlite3";

import { PLAIN_SETTINGS, postgresStore } from "./postgres.js";
import { valkeyStore } from "./valkey.js";

export interface MeasuredBackend {
  readonly name: string;
  /** Stands for all of its kind in arguments. */
  readonly family: string;
  /** An empty store of its own, below `directory` where it lives in files; the answer finds it from any process. */
  create(directory: string): Promise<string>;
  open(location: string): Promise<EngineBackend>;
  openCounted(location: string): Promise<CountedBackend>;
  /** Bytes it takes up now. Called while nobody has it open. */
  storedBytes(location: string): Promise<number>;
  remove(location: string): Promise<void>;
}

/** Opened with a look at what goes to its server. */
export interface CountedBackend extends AsyncDisposable {
  readonly backend: EngineBackend;
  /** What the server was asked so far, in statements or calls; absent where there is no server. */
  readonly asked?: () => Promise<number>;
}

export const BACKENDS: readonly MeasuredBackend[] = [
  sqlite("SQLite FULL", "full"),
  sqlite("SQLite NORMAL", "normal"),
  postgresStore("Postgres", PLAIN_SETTINGS),
  postgresStore("Postgres synchronous_commit=off", {
    synchronous_commit: "off",
  }),
  valkeyStore("Valkey", {}),
  valkeyStore("Valkey appendfsync=everysec", {
    appendonly: "yes",
    appendfsync: "everysec",
  }),
  valkeyStore("Valkey appendfsync=always", {
    appendonly: "yes",
    appendfsync: "always",
  }),
];

/** One store by its name, or all of a family. */
export function backendsNamed(name: string): MeasuredBackend[] {
  const found = BACKENDS.filter(
    (backend) => backend.name === name || backend.family === name,
  );
  if (found.length === 0) throw new Error(`There is no backend '${name}'.`);
  return found;
}

export function backendNamed(name: string): MeasuredBackend {
  return backendsNamed(name)[0]!;
}

function sqlite(name: string, durability: "full" | "normal"): MeasuredBackend {
  const fileIn = (location: string) => join(location, "store.db");
  const open = (location: string) =>
    sqliteBackend({ path: fileIn(location), durability });
  return {
    name,
    family: "sqlite",
    create: (directory) => mkdtemp(join(directory, "flowfabric-bench-")),
    open,
    async openCounted(location) {
      const backend = await open(location);
      return { backend, [Symbol.asyncDispose]: () => backend.close() };
    },
    // eslint-disable-next-line @typescript-eslint/require-await -- other stores have to ask
    async storedBytes(location) {
      // The log is folded in first, for its size says when it was last folded in, not what is stored. No vacuum: pages
      // that are free inside the file count.
      const connection = new SqliteDriver(fileIn(location));
      connection.pragma("wal_checkpoint(TRUNCATE)");
      connection.close();
      return statSync(fileIn(location)).size;
    },
    remove: (location) => rm(location, { recursive: true, force: true }),
  };
}
