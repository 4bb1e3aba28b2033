/** Files in folders: no server, so nothing but their size to tell. */
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";

import SqliteDriver from "better-sqlite3";

import type { Store } from "./store.js";

export async function sqliteStore(directory: string): Promise<Store> {
  return {
    async describe() {
      const connection = new SqliteDriver(":memory:");
      const version = connection
        .prepare<[], string>("SELECT sqlite_version()")
        .pluck()
        .get();
      connection.close();
      return `SQLite ${version} in better-sqlite3, ${process.versions["sqlite"]} in Node: journal_mode=WAL`;
    },
    newPlace: () => mkdtemp(join(directory, "flowfabric-bench-")),
    removePlace: (url) => rm(url, { recursive: true, force: true }),
    async storedBytes(url) {
      let bytes = 0;
      for (const name of await readdir(url)) {
        if (!name.endsWith(".db")) continue;
        // The log is folded in first, for its size says when it was last folded in, not what is stored.
        const connection = new SqliteDriver(join(url, name));
        connection.pragma("wal_checkpoint(TRUNCATE)");
        connection.close();
        bytes += (await stat(join(url, name))).size;
      }
      return bytes;
    },
    stop: async () => {},
  };
}
