/** A schema per test, with a clock that the test moves. */
import type { BackendHarness, OpenOptions } from "@flowfabric/conformance";
import type { EngineBackend } from "@flowfabric/core";
import { postgresBackend } from "@flowfabric/postgres";
import pg from "pg";

import { newSchemaName } from "./schemas.js";

interface OpenedStore {
  readonly schema: string;
  readonly options: OpenOptions;
  /** Nothing while the clock is the real one. */
  offsetMs: number | undefined;
}

/** Few, for each test opens its own. */
const CONNECTIONS = 4;
/** A test may move its clock this far: some centuries. */
const CLOCK_MS_MAX = 1e13;

/** `finish` ends what the harness has going on; to be called after the last test. */
export function postgresHarness(
  url: string,
): BackendHarness & { finish(): Promise<void> } {
  const stores = new WeakMap<EngineBackend, OpenedStore>();
  const admin = new pg.Pool({
    connectionString: url,
    max: 2,
    idleTimeoutMillis: 1_000,
  });
  const drops: Promise<unknown>[] = [];
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
    async finish() {
      const errors = (await Promise.all(drops)).filter(
        (outcome) => outcome instanceof Error,
      );
      await admin.end();
      if (errors.length > 0)
        throw new AggregateError(errors, "schemas were left behind");
    },
    async open(options = {}) {
      const schema = newSchemaName();
      const backend = await connect({
        schema,
        options,
        offsetMs: undefined,
      });
      const close = backend.close.bind(backend);
      backend.close = async () => {
        await close();
        // The next test does not wait for it.
        drops.push(
          admin.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`).catch(
            // Heard at the end.
            (error: unknown) => error,
          ),
        );
      };
      return backend;
    },
    reopen: (backend) => connect(storeOf(backend)),
    async passTime(backend, ms) {
      const store = storeOf(backend);
      const { schema } = store;
      // The function is replaced once, for that voids every plan that calls it; the sequence behind it is then moved as
      // often as a test likes, and each statement sees where it is now.
      if (store.offsetMs === undefined)
        await admin.query(`
          CREATE SEQUENCE "${schema}".test_clock MINVALUE ${-CLOCK_MS_MAX} MAXVALUE ${CLOCK_MS_MAX} START 0;
          SELECT nextval('"${schema}".test_clock');
          CREATE OR REPLACE FUNCTION "${schema}".now_ms() RETURNS BIGINT
          LANGUAGE sql VOLATILE PARALLEL SAFE
          AS $$
            SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT
              + pg_sequence_last_value('"${schema}".test_clock'::REGCLASS)
          $$`);
      store.offsetMs = (store.offsetMs ?? 0) + ms;
      await admin.query(`SELECT setval($1, $2)`, [
        `"${schema}".test_clock`,
        store.offsetMs,
      ]);
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
