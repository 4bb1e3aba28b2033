// The stores that the suites run against. An entry here gives a store its test projects (vitest.config.ts) and its rows in
// the summary of npm test.

import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./repository.mjs";

/**
 * @typedef {object} TestedBackend
 * @property {string} name as it stands after the colon in `conformance:<name>` and `crash:<name>`
 * @property {string} packageDirectory where its conformance test lives
 * @property {string} [faultTest] where its server, and the way to it, are broken in every way that it should live through
 * @property {string} [rateTest] what compares rates of its own, which nothing else may run beside
 * @property {string} [serverSetup] starts the server that its suites use, once per project
 * @property {readonly TestedServer[]} [furtherServers] on which the suites of every store run as well
 * @property {(server?: string) => Promise<{ store: string, driver: string }>} versions of what the tests really talk to
 *
 * @typedef {object} TestedServer
 * @property {string} name as it stands after the second colon in `conformance:<backend>:<name>` and `crash:<backend>:<name>`
 * @property {string} serverSetup
 * @property {number} scale of the random parts, as a share of the run's; the cases are all the same
 */

/** What runs on every store, each with the same cases. */
export const suitesOfEveryStore = /** @type {const} */ ([
  "conformance",
  "crash",
  "examples",
]);

/**
 * The stores of a backend: its usual server, then the further ones.
 *
 * @param {TestedBackend} backend
 * @returns {{ store: string, server: string | undefined, serverSetup: string | undefined, scale: number }[]} `store` stands
 *   after the first colon in the names of projects
 */
export function storesOf({ name, serverSetup, furtherServers = [] }) {
  return [
    { store: name, server: undefined, serverSetup, scale: 1 },
    ...furtherServers.map((further) => ({
      store: `${name}:${further.name}`,
      server: further.name,
      serverSetup: further.serverSetup,
      scale: further.scale,
    })),
  ];
}

/**
 * The tests of single packages that need the backend's server; without a server they are unit tests as any others.
 *
 * @param {TestedBackend} backend
 * @returns {string | undefined}
 */
export function unitProject({ name, serverSetup }) {
  return serverSetup === undefined ? undefined : `unit:${name}`;
}

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
    faultTest: "test-suites/crash/test/postgres-faults.test.ts",
    rateTest: "packages/postgres/test/large-tables.test.ts",
    serverSetup: "packages/postgres/test/global-setup.ts",
    furtherServers: [
      {
        name: "newest",
        serverSetup: "packages/postgres/test/global-setup-newest.ts",
        scale: 0.25,
      },
    ],
    async versions(server) {
      const require = createRequire(
        join(root, this.packageDirectory, "package.json"),
      );
      const { version } = require("pg/package.json");
      return {
        store: `Postgres ${readServerVersion("postgres", server) ?? "(no server)"}`,
        driver: `pg ${version}`,
      };
    },
  },
  {
    name: "valkey",
    packageDirectory: "packages/valkey",
    rateTest: "packages/valkey/test/large-stores.test.ts",
    faultTest: "test-suites/crash/test/valkey-faults.test.ts",
    serverSetup: "packages/valkey/test/global-setup.ts",
    furtherServers: [
      {
        name: "cluster",
        serverSetup: "packages/valkey/test/global-setup-cluster.ts",
        scale: 0.25,
      },
      {
        name: "redis",
        serverSetup: "packages/valkey/test/global-setup-redis.ts",
        scale: 0.25,
      },
    ],
    async versions(server) {
      const require = createRequire(
        join(root, this.packageDirectory, "package.json"),
      );
      const { version } = require("ioredis/package.json");
      return {
        // Which of the two products it is, and whether a cluster, is for the server to say.
        store: readServerVersion("valkey", server) ?? "Valkey (no server)",
        driver: `ioredis ${version}`,
      };
    },
  },
];

/**
 * Left by the set-up of the run; the server itself is gone when the summary is printed.
 *
 * @param {string} backend
 * @param {string} [server]
 */
function readServerVersion(backend, server) {
  const name = server === undefined ? backend : `${backend}-${server}`;
  const file = join(root, `node_modules/.cache/flowfabric/${name}-version`);
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}
