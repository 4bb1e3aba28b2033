/** From any earlier schema, and from nothing, to this library's; by one process or by several at once. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";

import { Worker } from "@flowfabric/sdk";
import { expect, onTestFinished, test, vi } from "vitest";

import { migrations } from "../src/generated/migrations.js";
import { migratePostgres } from "../src/migrate-schema.js";
import { dumpSchema } from "./schema-dump.js";
import {
  connect,
  newSchema,
  open,
  Peer,
  query,
  refusalOf,
  url,
} from "./stores.js";

const SCHEMA = new URL(
  "../../../migrations/postgres/schema.sql",
  import.meta.url,
);

const ALL = migrations.map(({ version, name }) => ({ version, name }));

async function newStore(): Promise<string> {
  const schema = newSchema();
  await (await open({ schema })).close();
  return schema;
}

test("the migrations add up to the committed schema.sql", async () => {
  const schema = await dumpSchema(await newStore());
  if (process.env["UPDATE_SCHEMA"] === "1") writeFileSync(SCHEMA, schema);

  expect(existsSync(SCHEMA) ? readFileSync(SCHEMA, "utf8") : "").toBe(schema);
});

test("schema.sql makes the schema, the ledger's content aside", async () => {
  const schema = newSchema();
  await query(
    `CREATE SCHEMA "${schema}"; SET search_path TO "${schema}"; ${readFileSync(SCHEMA, "utf8")}`,
  );

  expect(await dumpSchema(schema)).toBe(readFileSync(SCHEMA, "utf8"));
});

test("the dump tells of every kind of change", async () => {
  const schema = await newStore();
  let before = await dumpSchema(schema);
  for (const change of [
    "ALTER TABLE executions ADD COLUMN more BIGINT DEFAULT 1",
    "ALTER TABLE executions ALTER COLUMN more SET DEFAULT 2",
    "ALTER TABLE executions ALTER COLUMN more TYPE INTEGER",
    "ALTER TABLE executions ALTER COLUMN more SET NOT NULL",
    "ALTER TABLE executions SET (fillfactor = 80)",
    "ALTER TABLE executions ADD CHECK (more > 0)",
    "ALTER TABLE inputs ALTER COLUMN payload SET STORAGE EXTENDED",
    "ALTER TABLE waiters SET LOGGED",
    "DROP INDEX executions_by_timer",
    "CREATE INDEX executions_by_timer ON executions (timer_at)",
    'ALTER TABLE purged ALTER COLUMN id TYPE TEXT COLLATE "C"',
    "ALTER SEQUENCE events_position CACHE 10",
    "CREATE TABLE more (id BIGINT GENERATED ALWAYS AS IDENTITY)",
    "CREATE VIEW seen AS SELECT 1 AS one",
    "CREATE OR REPLACE FUNCTION now_ms() RETURNS BIGINT LANGUAGE sql AS $$ SELECT 0::BIGINT $$",
  ]) {
    await query(`SET search_path TO "${schema}"; ${change}`);
    const after = await dumpSchema(schema);
    expect(after, change).not.toBe(before);
    before = after;
  }
});

/** Never to change: it is what tells of all other changes. */
const LEDGER = `CREATE TABLE migrations (
  version BIGINT PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,
  applied_at BIGINT NOT NULL
)`;

/** As a library left it that knew only the first `version` migrations. */
async function earlierStore(version: number): Promise<string> {
  const schema = newSchema();
  const client = await connect();
  await client.query(
    `CREATE SCHEMA "${schema}"; SET search_path TO "${schema}"; ${LEDGER}`,
  );
  for (const { version: number, name, checksum, sql } of migrations.slice(
    0,
    version,
  )) {
    await client.query(sql);
    await client.query("INSERT INTO migrations VALUES ($1, $2, $3, 0)", [
      number,
      name,
      checksum,
    ]);
  }
  return schema;
}

test("every earlier schema is brought to the same one, each step noted once", async () => {
  const expected = await dumpSchema(await newStore());
  for (let version = 0; version <= migrations.length; version++) {
    const schema = await earlierStore(version);
    const backend = await open({ schema });

    expect(await dumpSchema(schema)).toBe(expected);
    expect(
      await query(
        `SELECT version::INT, name, checksum FROM "${schema}".migrations ORDER BY version`,
      ),
    ).toEqual(
      migrations.map(({ version: number, name, checksum }) => ({
        version: number,
        name,
        checksum,
      })),
    );
    await backend.createExecution({ executionKind: "first" });
  }
});

test("a schema that exists and is empty is used; only one that does not exist takes the right to make it", async () => {
  const schema = newSchema();
  const role = `role_${schema}`;
  await query(`CREATE ROLE ${role} LOGIN PASSWORD 'p'`);
  onTestFinished(async () => {
    await query(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`);
  });
  await query(`CREATE SCHEMA "${schema}" AUTHORIZATION ${role}`);
  const address = new URL(url);
  address.username = role;
  address.password = "p";
  const connectionString = address.href;

  const backend = await open({ schema, connectionString });
  await backend.createExecution({ executionKind: "mine" });
  expect(
    await refusalOf(open({ schema: newSchema(), connectionString })),
  ).toMatchObject({ code: "transport", detail: { backendKind: "auth" } });
});

test("a schema whose migration was another is refused, whatever its tables look like", async () => {
  for (const change of [
    "UPDATE migrations SET checksum = 'edited' WHERE version = 1",
    "UPDATE migrations SET name = 'renamed' WHERE version = 2",
    "DELETE FROM migrations WHERE version = 2",
    "DELETE FROM migrations",
  ]) {
    const schema = await newStore();
    await query(`SET search_path TO "${schema}"; ${change}`);
    const before = await dumpSchema(schema);

    for (const call of [
      () => open({ schema }),
      () => migratePostgres({ connectionString: url, schema }),
      () => migratePostgres({ connectionString: url, schema, dryRun: true }),
    ])
      expect(await refusalOf(call()), change).toMatchObject({
        code: "corruption",
        detail: { context: "schema" },
      });
    expect(await dumpSchema(schema)).toBe(before);
  }
});

test("a library older than the schema is refused and told both versions", async () => {
  const schema = await newStore();
  const newer = migrations.length + 1;
  await query(
    `INSERT INTO "${schema}".migrations VALUES (${newer}, 'later', 'x', 0)`,
  );

  for (const call of [
    () => open({ schema }),
    () => migratePostgres({ connectionString: url, schema, dryRun: true }),
  ])
    expect(await refusalOf(call())).toMatchObject({
      code: "library_version_mismatch",
      detail: {
        library: `schema ${migrations.length}`,
        store: `schema ${newer}`,
      },
    });
});

test("a schema with another program's tables is refused and left as it is", async () => {
  for (const theirs of [
    "CREATE TABLE orders (id BIGINT)",
    "CREATE VIEW orders AS SELECT 1 AS id",
    // Many programs keep a ledger of that name.
    "CREATE TABLE migrations (id SERIAL PRIMARY KEY, name TEXT, run_on TIMESTAMP)",
    `${LEDGER}; CREATE TABLE orders (id BIGINT)`,
  ]) {
    const schema = newSchema();
    await query(
      `CREATE SCHEMA "${schema}"; SET search_path TO "${schema}"; ${theirs}`,
    );
    const before = await dumpSchema(schema);

    expect(await refusalOf(open({ schema })), theirs).toMatchObject({
      code: "corruption",
      detail: { message: expect.stringContaining("a schema of its own") },
    });
    expect(await dumpSchema(schema)).toBe(before);
  }
});

test("a dry run says what would be done and does nothing; its script does exactly that", async () => {
  const expected = await dumpSchema(await newStore());
  const dry = { connectionString: url, dryRun: true };
  const fresh = newSchema();

  const report = await migratePostgres({ ...dry, schema: fresh });
  expect(report).toMatchObject({ version: ALL.length, migrations: ALL });
  expect(
    await query("SELECT FROM pg_namespace WHERE nspname = $1", [fresh]),
  ).toEqual([]);
  await query(report.sql);
  expect(await dumpSchema(fresh)).toBe(expected);
  expect(await migratePostgres({ ...dry, schema: fresh })).toEqual({
    version: ALL.length,
    migrations: [],
    sql: "",
  });

  const earlier = await earlierStore(1);
  const rest = await migratePostgres({ ...dry, schema: earlier });
  expect(rest.migrations).toEqual(ALL.slice(1));
  expect(rest.sql).not.toContain("CREATE SCHEMA");
  expect(rest.sql).not.toContain("CREATE TABLE executions");
  expect(
    await migratePostgres({ connectionString: url, schema: earlier }),
  ).toEqual(rest);
  expect(await dumpSchema(earlier)).toBe(expected);
});

test("a migration that fails leaves nothing behind", async () => {
  const schema = await earlierStore(1);
  // Stands in the way of the second migration's sequence of that name.
  await query(`CREATE SEQUENCE "${schema}".events_position`);
  const before = await dumpSchema(schema);

  expect(await refusalOf(open({ schema }))).toMatchObject({
    code: "transport",
  });

  expect(await dumpSchema(schema)).toBe(before);
  expect(await query(`SELECT FROM "${schema}".migrations`)).toHaveLength(1);
});

test("processes that open a new schema at the same time all get the same store", async () => {
  const peers = [new Peer(), new Peer(), new Peer()];
  // Loaded and waiting, so that they start within a millisecond.
  await Promise.all(peers.map((peer) => peer.ask("wait")));
  for (let round = 0; round < 5; round++) {
    const schema = newSchema();
    const options = { connectionString: url, schema, maxConnections: 2 };

    const opened = await Promise.allSettled([
      ...peers.map((peer) => peer.ask("open", { options })),
      ...Array.from({ length: 3 }, () => open(options)),
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
    const backend = await open(options);
    expect((await backend.listExecutions({})).executions).toHaveLength(3);
    expect(await query(`SELECT FROM "${schema}".migrations`)).toHaveLength(
      migrations.length,
    );
    await Promise.all(peers.map((peer) => peer.ask("close")));
  }
});

test("of processes that migrate at the same time one does it, and the others say that nothing was left", async () => {
  const peers = [new Peer(), new Peer(), new Peer(), new Peer()];
  await Promise.all(peers.map((peer) => peer.ask("wait")));
  const options = { connectionString: url, schema: newSchema() };

  const reports = (await Promise.all(
    peers.map((peer) => peer.ask("migrate", { options })),
  )) as { migrations: object[] }[];

  expect(
    reports
      .map(({ migrations: applied }) => applied.length)
      .sort((a, b) => a - b),
  ).toEqual([0, 0, 0, migrations.length]);
});

test("a server whose transactions are serializable by default makes no difference", async () => {
  const schema = newSchema();
  const connectionString = new URL(url);
  connectionString.searchParams.set(
    "options",
    "-c default_transaction_isolation=serializable",
  );
  const reports = await Promise.all(
    Array.from({ length: 4 }, () =>
      migratePostgres({ connectionString: connectionString.href, schema }),
    ),
  );
  expect(
    reports
      .map(({ migrations: applied }) => applied.length)
      .sort((a, b) => a - b),
  ).toEqual([0, 0, 0, migrations.length]);
});

/** What a later library may do while workers of this one go on. */
const ADDITIVE = `
  ALTER TABLE executions ADD COLUMN weight INTEGER NOT NULL DEFAULT 1;
  ALTER TABLE events ADD COLUMN origin TEXT;
  ALTER TABLE workers ADD COLUMN region TEXT DEFAULT 'here';
  CREATE INDEX executions_by_weight ON executions (weight);
  CREATE TABLE budgets (id BIGINT PRIMARY KEY);
  INSERT INTO budgets VALUES (1);
`;

test("old workers keep running through additive migrations", async () => {
  const schema = newSchema();
  const backend = await open({ schema });
  await using worker = new Worker({ backend, maxConcurrentTasks: 4 });
  let handled = 0;
  worker.handle("echo", (bytes) => {
    handled++;
    return bytes;
  });
  const running = worker.run();
  const submitted: string[] = [];
  const submit = async (count: number) => {
    const before = handled;
    for (let n = 0; n < count; n++) {
      const { executionId } = await backend.createExecution({
        executionKind: "echo",
        inputPayload: Buffer.from("[1]"),
        tags: { "shop.n": String(n) },
      });
      submitted.push(executionId);
    }
    await vi.waitFor(() => expect(handled).toBe(before + count), {
      timeout: 20_000,
    });
  };
  // Every statement is prepared on every connection.
  await submit(50);

  vi.resetModules();
  vi.doMock("../src/generated/migrations.js", () => ({
    migrations: [
      ...migrations,
      { version: ALL.length + 1, name: "more", checksum: "m", sql: ADDITIVE },
    ],
  }));
  onTestFinished(() => vi.doUnmock("../src/generated/migrations.js"));
  const newer = await import("../src/migrate-schema.js");
  const working = submit(100);
  const report = await newer.migratePostgres({ connectionString: url, schema });
  await working;
  expect(report.migrations).toEqual([
    { version: ALL.length + 1, name: "more" },
  ]);

  await submit(50);
  await worker.stop();
  await running;
  const states = await Promise.all(
    submitted.map((executionId) => backend.readExecutionState({ executionId })),
  );
  expect(new Set(states)).toEqual(new Set(["completed"]));
  expect(handled).toBe(200);
  // All that reads whole rows, too.
  const [executionId] = submitted;
  expect(
    await backend.describeExecution({ executionId: executionId! }),
  ).toMatchObject({ publicState: "completed" });
  expect(
    (await backend.readEvents({ executionId: executionId! })).events,
  ).toHaveLength(3);
  expect(
    await backend.countByTags({
      match: { all: [{ key: "shop.n", value: "1" }] },
    }),
  ).toBe(3);
  // It goes on, but a new one of its kind does not begin.
  expect(await refusalOf(open({ schema }))).toMatchObject({
    code: "library_version_mismatch",
  });
});
