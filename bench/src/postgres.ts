/** Stores on Postgres: one server for all of a run, a schema for each store. */
import { randomUUID } from "node:crypto";

import { postgresBackend } from "@flowfabric/postgres";
import {
  recordingPool,
  startServer,
  type TestServer,
} from "@flowfabric/postgres-testing";
import pg from "pg";

import type { MeasuredBackend } from "./backends.js";

/** Of a connection, as the server's own configuration knows them. */
export type Settings = Readonly<Record<string, string>>;
export const PLAIN_SETTINGS: Settings = {};

let server: Promise<TestServer> | undefined;

/** Starts it where nobody has; it syncs, as a server does whose data is meant to stay. */
async function serverUrl(directory: string): Promise<string> {
  server ??= startServer({ durable: true, directory });
  return (await server).url;
}

/** To be called at the end, also where nothing was started. */
export async function stopServer(): Promise<void> {
  await (await server)?.stop();
}

export interface ServerDescription {
  readonly version: string;
  readonly settings: Settings;
}

const TOLD = [
  "fsync",
  "synchronous_commit",
  "full_page_writes",
  "shared_buffers",
  "max_wal_size",
];

/** What its figures depend on; a server that the environment names may be set up in any way. */
export async function describeServer(
  directory: string,
): Promise<ServerDescription> {
  return await withClient(await serverUrl(directory), async (client) => {
    const { rows } = await client.query<{ name: string; value: string }>(
      "SELECT name, current_setting(name) AS value FROM unnest($1::TEXT[]) AS told (name)",
      [[...TOLD, "server_version"]],
    );
    const { server_version: version = "", ...settings } = Object.fromEntries(
      rows.map(({ name, value }) => [name, value]),
    );
    return { version, settings };
  });
}

export function postgresStore(
  name: string,
  settings: Settings,
): MeasuredBackend {
  return {
    name,
    family: "postgres",
    async create(directory) {
      const url = new URL(await serverUrl(directory));
      const options = Object.entries(settings)
        .map(([setting, value]) => `-c ${setting}=${value}`)
        .join(" ");
      if (options !== "") url.searchParams.set("options", options);
      // Any process finds it by the address; the part behind the hash is ours.
      url.hash = `bench_${randomUUID().replaceAll("-", "")}`;
      return url.href;
    },
    open: (location) => postgresBackend(placeOf(location)),
    async openCounted(location) {
      const { connectionString, schema } = placeOf(location);
      const { pool, take } = recordingPool({ connectionString });
      const backend = await postgresBackend({ pool, schema });
      let asked = 0;
      return {
        backend,
        // eslint-disable-next-line @typescript-eslint/require-await -- other stores have to ask
        asked: async () => (asked += take().length),
        async [Symbol.asyncDispose]() {
          await backend.close();
          await pool.end();
        },
      };
    },
    async storedBytes(location) {
      const { connectionString, schema } = placeOf(location);
      // Tables with what they keep beside their rows, and indexes. No vacuum, as with the others: space that is free
      // inside of them counts.
      return await withClient(connectionString, async (client) => {
        const { rows } = await client.query<{ bytes: string }>(
          "SELECT sum(pg_total_relation_size(format('%I.%I', schemaname, tablename)::REGCLASS)) AS bytes FROM pg_tables WHERE schemaname = $1",
          [schema],
        );
        return Number(rows[0]!.bytes);
      });
    },
    async remove(location) {
      const { connectionString, schema } = placeOf(location);
      await withClient(connectionString, (client) =>
        client.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`),
      );
    },
  };
}

/** What a location says, as `postgresBackend` takes it. */
export function placeOf(location: string): {
  connectionString: string;
  schema: string;
} {
  const url = new URL(location);
  const schema = url.hash.slice(1);
  url.hash = "";
  return { connectionString: url.href, schema };
}

export async function withClient<Answer>(
  connectionString: string,
  use: (client: pg.Client) => Promise<Answer>,
): Promise<Answer> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}
