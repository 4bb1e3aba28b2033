/** A Postgres as it is installed, that syncs every commit; a database of its own for each place. */
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";

import { startServer, startServerWith } from "@flowfabric/postgres-testing";
import pg from "pg";

import type { Store, Usage } from "./store.js";

/** On top of the settings of a server for tests, whose data is thrown away. */
const SETTINGS = [
  "fsync=on",
  "full_page_writes=on",
  "synchronous_commit=on",
  // Room for the log: a checkpoint in the middle would be somebody's bad luck.
  "max_wal_size=4GB",
  // Counts statements.
  "shared_preload_libraries=pg_stat_statements",
  "pg_stat_statements.track=top",
];

const TOLD = [
  "fsync",
  "synchronous_commit",
  "full_page_writes",
  "shared_buffers",
  "max_wal_size",
  "max_connections",
];

export async function postgresStore(directory: string): Promise<Store> {
  const server = await startServerWith(() => SETTINGS).catch(() =>
    // Its programs may come without that library.
    startServer({ durable: true, directory }),
  );
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  const counts = await client
    .query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    .then(() => true)
    .catch(() => false);
  const processId = await serverProcessId(client);
  return {
    async describe() {
      const { rows } = await client.query<{ name: string; value: string }>(
        "SELECT name, current_setting(name) AS value FROM unnest($1::TEXT[]) AS told (name)",
        [["server_version", ...TOLD]],
      );
      const [version, ...settings] = rows;
      return `Postgres ${version!.value}: ${settings.map(({ name, value }) => `${name}=${value}`).join(", ")}`;
    },
    async newPlace() {
      const name = `bench_${randomUUID().replaceAll("-", "")}`;
      await client.query(`CREATE DATABASE ${name}`);
      // What others have left to be written is no cost of whoever comes next.
      await client.query("CHECKPOINT");
      const url = new URL(server.url);
      url.pathname = `/${name}`;
      return url.href;
    },
    async removePlace(url) {
      await client.query(`DROP DATABASE ${databaseOf(url)} WITH (FORCE)`);
    },
    async usage() {
      const usage: { -readonly [K in keyof Usage]: Usage[K] } = {};
      if (counts) usage.requests = await statements(client);
      const cpuMs = cpuOf(processId);
      if (cpuMs !== undefined) usage.cpuMs = cpuMs;
      return usage;
    },
    async storedBytes(url) {
      const { rows } = await client.query<{ bytes: string }>(
        "SELECT pg_database_size($1) AS bytes",
        [databaseOf(url)],
      );
      return Number(rows[0]!.bytes);
    },
    async stop() {
      await client.end();
      await server.stop();
    },
  };
}

const databaseOf = (url: string) => new URL(url).pathname.slice(1);

/** Of all sessions but the one that asks, whose statements are few. */
async function statements(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ calls: string }>(
    "SELECT coalesce(sum(calls), 0) AS calls FROM pg_stat_statements WHERE dbid <> (SELECT oid FROM pg_database WHERE datname = current_database())",
  );
  return Number(rows[0]!.calls);
}

/** The process whose children the sessions are; unknown where the server runs elsewhere, as in a container. */
async function serverProcessId(client: pg.Client): Promise<number | undefined> {
  const { rows } = await client.query<{ id: number }>(
    "SELECT pg_backend_pid() AS id",
  );
  const session = statOf(rows[0]!.id);
  return session?.program === "postgres" ? session.parentId : undefined;
}

/** Of it and its children, also of those that have ended. */
function cpuOf(processId: number | undefined): number | undefined {
  if (processId === undefined) return undefined;
  const own = statOf(processId);
  if (own === undefined) return undefined;
  let ticks = own.ticks + own.ticksOfEndedChildren;
  for (const name of readdirSync("/proc")) {
    const stat = /^\d+$/.test(name) ? statOf(Number(name)) : undefined;
    if (stat?.parentId === processId) ticks += stat.ticks;
  }
  return ticks * MS_PER_TICK;
}

/** USER_HZ is 100 wherever Linux runs Node. */
const MS_PER_TICK = 10;

interface ProcessStat {
  readonly program: string;
  readonly parentId: number;
  readonly ticks: number;
  readonly ticksOfEndedChildren: number;
}

function statOf(processId: number): ProcessStat | undefined {
  try {
    const text = readFileSync(`/proc/${processId}/stat`, "utf8");
    // The name in brackets may hold anything; behind it come numbers, from the third field on.
    const fields = text
      .slice(text.lastIndexOf(")") + 2)
      .split(" ")
      .map(Number);
    const [, parentId = 0] = fields;
    const [user = 0, system = 0, childUser = 0, childSystem = 0] = fields.slice(
      11,
      15,
    );
    return {
      program: text.slice(text.indexOf("(") + 1, text.lastIndexOf(")")),
      parentId,
      ticks: user + system,
      ticksOfEndedChildren: childUser + childSystem,
    };
  } catch {
    return undefined;
  }
}
