/** A schema per test, with a clock that the test moves. */
import { randomUUID } from "node:crypto";

import type { BackendHarness, OpenOptions } from "@flowfabric/conformance";
import type { EngineBackend } from "@flowfabric/core";
import { postgresBackend } from "@flowfabric/postgres";
import pg from "pg";

interface OpenedStore {
  readonly schema: string;
  readonly options: OpenOptions;
  offsetMs: number;
}

/** Few, for each test opens its own. */
const CONNECTIONS = 4;

export function postgresHarness(url: string): BackendHarness {
  const stores = new WeakMap<EngineBackend, OpenedStore>();
  const admin = new pg.Pool({
    connectionString: url,
    max: 2,
    idleTimeoutMillis: 1_000,
  });
  const connect = async (store: OpenedStore): Promise<EngineBackend> => {
    const backend = await postgresBackend({
      ...store.options,
      connectionString: url,
      schema: store.schema,
      maxConnections: CONNECTIONS,
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
    name: "postgres",
    async open(options = {}) {
      const schema = `test_${randomUUID().replaceAll("-", "")}`;
      const backend = await connect({ schema, options, offsetMs: 0 });
      const close = backend.close.bind(backend);
      backend.close = async () => {
        await close();
        await admin.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
      };
      return backend;
    },
    reopen: (backend) => connect(storeOf(backend)),
    async passTime(backend, ms) {
      const store = storeOf(backend);
      store.offsetMs += ms;
      await admin.query(`
        CREATE OR REPLACE FUNCTION "${store.schema}".now_ms() RETURNS BIGINT
        LANGUAGE sql VOLATILE PARALLEL SAFE
        AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT + (${store.offsetMs}) $$`);
    },
    async beginTransaction() {
      const caller = new pg.Client({ connectionString: url });
      await caller.connect();
      await caller.query("BEGIN");
      const end = async (statement: string) => {
        await caller.query(statement);
        await caller.end();
      };
      return {
        transaction: caller,
        commit: () => end("COMMIT"),
        rollback: () => end("ROLLBACK"),
      };
    },
  };
}
