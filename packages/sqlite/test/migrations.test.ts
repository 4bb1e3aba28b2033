/** From any earlier schema, and from nothing, to this library's; by one process or by several at once. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";

import type SqliteDriver from "better-sqlite3";
import { expect, test } from "vitest";

import { migrations } from "../src/generated/migrations.js";
import {
  newPath,
  open,
  openRaw,
  openWithConnection,
  Peer,
  refusalOf,
} from "./files.js";

/** The schema as text: what a reader looks up, and what a change of it shows up in. */
const SCHEMA = new URL(
  "../../../migrations/sqlite/schema.sql",
  import.meta.url,
);

function dumpSchema(database: SqliteDriver.Database): string {
  const objects = database
    .prepare(
      `SELECT sql
       FROM sqlite_master
       WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
       ORDER BY tbl_name, type DESC, name`,
    )
    .pluck()
    .all() as string[];
  const head =
    "-- What the migrations add up to. Written by the tests of packages/sqlite: UPDATE_SCHEMA=1 npm test -- --project unit";
  return `${[head, ...objects.map((sql) => `${sql};`)].join("\n\n")}\n`;
}

async function schemaOfNewStore(): Promise<string> {
  const { connection } = await openWithConnection({ path: newPath() });
  return dumpSchema(connection);
}

test("the migrations add up to the committed schema.sql", async () => {
  const schema = await schemaOfNewStore();
  if (process.env["UPDATE_SCHEMA"] === "1") writeFileSync(SCHEMA, schema);

  expect(existsSync(SCHEMA) ? readFileSync(SCHEMA, "utf8") : "").toBe(schema);
});

/** Never to change: it is what tells of all other changes. */
const LEDGER = `CREATE TABLE migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at INTEGER NOT NULL
  )`;

/** As a library left it that knew only the first `version` migrations. */
function earlierStore(version: number): string {
  const path = newPath();
  const database = openRaw(path);
  database.pragma("journal_mode = WAL");
  database.exec(LEDGER);
  // "flow"
  database.pragma("application_id = 0x666c6f77");
  for (const { version: number, name, checksum, sql } of migrations.slice(
    0,
    version,
  )) {
    database.exec(sql);
    database
      .prepare("INSERT INTO migrations VALUES (?, ?, ?, 0)")
      .run(number, name, checksum);
  }
  database.close();
  return path;
}

test("every earlier schema is brought to the same one, each step noted once", async () => {
  const schema = await schemaOfNewStore();
  for (let version = 0; version <= migrations.length; version++) {
    const path = earlierStore(version);
    const { backend, connection } = await openWithConnection({ path });

    expect(dumpSchema(connection)).toBe(schema);
    expect(
      connection
        .prepare("SELECT version, name, checksum FROM migrations")
        .all(),
    ).toEqual(
      migrations.map(({ version: number, name, checksum }) => ({
        version: number,
        name,
        checksum,
      })),
    );
    await backend.createExecution({ executionKind: "first" });
    await backend.close();
  }
});

test("a file whose migration was another is refused, whatever its schema looks like", async () => {
  for (const change of [
    "UPDATE migrations SET checksum = 'edited' WHERE version = 1",
    "UPDATE migrations SET name = 'renamed' WHERE version = 2",
    "DELETE FROM migrations WHERE version = 2",
  ]) {
    const path = newPath();
    await (await open({ path })).close();
    const database = openRaw(path);
    database.exec(change);
    database.close();
    const before = readFileSync(path);

    expect(await refusalOf(open({ path }))).toMatchObject({
      code: "corruption",
      detail: { context: "schema" },
    });
    expect(readFileSync(path).equals(before)).toBe(true);
  }
});

test("processes that open a new file at the same time all get the same store", async () => {
  const peers = [new Peer(), new Peer(), new Peer()];
  // Loaded and waiting, so that they start within a millisecond.
  await Promise.all(
    peers.map((peer) => peer.ask("open", { options: { path: ":memory:" } })),
  );
  for (let round = 0; round < 10; round++) {
    const path = newPath();

    const opened = await Promise.allSettled([
      ...peers.map((peer) => peer.ask("open", { options: { path } })),
      ...Array.from({ length: 3 }, () => open({ path })),
    ]);

    expect(opened.filter(({ status }) => status === "rejected")).toEqual([]);
    await Promise.all(
      peers.map((peer) =>
        peer.ask("call", {
          operation: "createExecution",
          input: { executionKind: "mine" },
        }),
      ),
    );
    const backend = await open({ path });
    expect((await backend.listExecutions({})).executions).toHaveLength(3);
    const database = openRaw(path);
    expect(
      database.prepare("SELECT count(*) FROM migrations").pluck().get(),
    ).toBe(migrations.length);
    await Promise.all(peers.map((peer) => peer.ask("close")));
  }
});
