import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import SqliteDriver from "better-sqlite3";

import { crashSuite } from "./crash-suite.js";

crashSuite({
  name: "sqlite",
  async create() {
    const folder = mkdtempSync(join(tmpdir(), "flowfabric-crash-"));
    const path = join(folder, "store.db");
    return {
      store: `sqlite:${path}`,
      async damage() {
        const database = new SqliteDriver(path, { readonly: true });
        const found = database.pragma("quick_check") as {
          quick_check: string;
        }[];
        database.close();
        return found
          .map((line) => line.quick_check)
          .filter((line) => line !== "ok");
      },
      async remove() {
        rmSync(folder, { recursive: true, force: true });
      },
    };
  },
});
