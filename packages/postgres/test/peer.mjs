// Another process at the same schema: does what it is told, one request after the other, and answers each. It runs the
// build, for Node of itself knows no TypeScript.
//
// Message { id, do, ... } is answered by { id, answer } or { id, error: { code, detail } }.

import { migratePostgres, postgresBackend } from "@flowfabric/postgres";

/** @typedef {import("@flowfabric/core").EngineBackend} EngineBackend */

/** @type {EngineBackend | undefined} */
let backend;

/** @type {Record<string, (request: any) => unknown>} */
const actions = {
  /** Loaded and ready. */
  async wait() {},

  async migrate({ options }) {
    return await migratePostgres(options);
  },

  async open({ options }) {
    backend = await postgresBackend(options);
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
