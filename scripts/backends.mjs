// The stores that the suites run against. A line here gives a store its test projects (vitest.config.ts) and its rows in
// the summary of npm test.

/**
 * @typedef {object} TestedBackend
 * @property {string} name as it stands after the colon in `conformance:<name>` and `crash:<name>`
 * @property {string} packageDirectory where its conformance test lives
 * @property {() => Promise<{ store: string, driver: string }>} versions of what the tests really talk to
 */

/** @type {readonly TestedBackend[]} */
export const backends = [
  {
    name: "sqlite",
    packageDirectory: "packages/sqlite",
    async versions() {
      const { default: Database } = await import("better-sqlite3");
      const driver = await import("better-sqlite3/package.json", {
        with: { type: "json" },
      });
      const database = new Database(":memory:");
      const store = database.prepare("SELECT sqlite_version()").pluck().get();
      database.close();
      return {
        store: `SQLite ${store}`,
        driver: `better-sqlite3 ${driver.default.version}`,
      };
    },
  },
];
