/** A SQLite store per test, in a file of its own, with a clock that the test moves. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import type { BackendHarness, OpenOptions } from "@flowfabric/conformance";
import type { EngineBackend } from "@flowfabric/core";
import { sqliteBackend } from "@flowfabric/sqlite";
import SqliteDriver from "better-sqlite3";

interface OpenedStore {
  readonly path: string;
  readonly clock: { offsetMs: number };
  readonly options: OpenOptions;
}

export function sqliteHarness(): BackendHarness {
  const stores = new WeakMap<EngineBackend, OpenedStore>();
  const connect = async (store: OpenedStore): Promise<EngineBackend> => {
    const { path, clock, options } = store;
    const backend = await sqliteBackend({
      ...options,
      path,
      clock,
      // No test here pulls the plug.
      durability: "normal",
    });
    stores.set(backend, store);
    return backend;
  };
  const storeOf = (backend: EngineBackend): OpenedStore => {
    const store = stores.get(backend);
    if (store === undefined) throw new Error("not opened by this harness");
    return store;
  };

  return {
    name: "sqlite",
    async open(options = {}) {
      const directory = mkdtempSync(join(tmpdir(), "flowfabric-"));
      const path = join(directory, "store.db");
      const backend = await connect({ path, clock: { offsetMs: 0 }, options });
      const close = backend.close.bind(backend);
      backend.close = async () => {
        await close();
        rmSync(directory, { recursive: true, force: true });
      };
      return backend;
    },
    reopen: (backend) => connect(storeOf(backend)),
    async passTime(backend, ms) {
      storeOf(backend).clock.offsetMs += ms;
    },
    async beginTransaction(backend) {
      const caller = new SqliteDriver(storeOf(backend).path);
      caller.exec("BEGIN IMMEDIATE");
      const end = async (statement: string) => {
        caller.exec(statement);
        caller.close();
      };
      return {
        transaction: caller,
        commit: () => end("COMMIT"),
        rollback: () => end("ROLLBACK"),
      };
    },
  };
}
