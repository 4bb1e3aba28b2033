// Another process at the same file: does what it is told, one request after the other, and answers each. It runs the
// build, for Node of itself knows no TypeScript.
//
// Message { id, do, ... } is answered by { id, answer } or { id, error: { code, detail } }.

import { sqliteBackend } from "@flowfabric/sqlite";
import SqliteDriver from "better-sqlite3";

/** @typedef {import("@flowfabric/core").EngineBackend} EngineBackend */

/** @type {EngineBackend | undefined} */
let backend;

/** @type {Record<string, (request: any) => unknown>} */
const actions = {
  /** Loads the driver's binary before that: afterwards its folder may be out of reach. */
  async become({ uid }) {
    new SqliteDriver(":memory:").close();
    process.setgid?.(uid);
    process.setuid?.(uid);
    process.chdir("/");
  },

  async open({ options }) {
    backend = await sqliteBackend(options);
  },

  async call({ operation, input }) {
    const operations =
      /** @type {Record<string, (input: unknown) => unknown>} */ (
        /** @type {unknown} */ (backend)
      );
    return await operations[operation]?.(input);
  },

  async close() {
    await backend?.close();
  },

  /** Takes the write lock; answers once it has it, and lets go of it later by itself. */
  async lock({ path, ms }) {
    const database = new SqliteDriver(path, { timeout: 5_000 });
    database.exec("BEGIN IMMEDIATE");
    setTimeout(() => {
      database.exec("COMMIT");
      database.close();
    }, ms);
  },
};

process.on("message", (/** @type {any} */ request) => void answer(request));
process.on("disconnect", () => process.exit());

/** @param {any} request */
async function answer(request) {
  try {
    const answer = await actions[request.do]?.(request);
    process.send?.({ id: request.id, answer });
  } catch (error) {
    const { code, detail, message } = /** @type {any} */ (error);
    process.send?.({ id: request.id, error: { code, detail, message } });
  }
}
