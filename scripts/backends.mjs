// The stores that the suites run against. A line here gives a store its test projects (vitest.config.ts) and its rows in
// the summary of npm test.

import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./repository.mjs";

/**
 * @typedef {object} TestedBackend
 * @property {string} name as it stands after the colon in `conformance:<name>` and `crash:<name>`
 * @property {string} packageDirectory where its conformance test lives
 * @property {string} [serverSetup] starts the server that its suites use, once per run
 * @property {() => Promise<{ store: string, driver: string }>} versions of what the tests really talk to
 */

/** @type {readonly TestedBackend[]} */
export const backends = [
  {
    name: "sqlite",
    packageDirectory: "packages/sqlite",
    async versions() {
      // The copy that the backend itself loads, whatever else is installed.
      const require = createRequire(
        join(root, this.packageDirectory, "package.json"),
      );
      const Database = require("better-sqlite3");
      const { version } = require("better-sqlite3/package.json");
      const database = new Database(":memory:");
      const store = database.prepare("SELECT sqlite_version()").pluck().get();
      database.close();
      return {
        store: `SQLite ${String(store)}`,
        driver: `better-sqlite3 ${version}`,
      };
    },
  },
  {
    name: "postgres",
    packageDirectory: "packages/postgres",
    serverSetup: "packages/postgres/test/global-setup.ts",
    async versions() {
      const require = createRequire(
        join(root, this.packageDirectory, "package.json"),
      );
      const { version } = require("pg/package.json");
      return {
        store: `Postgres ${readServerVersion() ?? "(no server)"}`,
        driver: `pg ${version}`,
      };
    },
  },
];

/** Left by the set-up of the last run; the server itself is gone when the summary is printed. */
function readServerVersion() {
  const file = join(root, "node_modules/.cache/flowfabric/postgres-version");
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}
