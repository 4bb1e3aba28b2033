/** What is chosen when a store is opened. */
import { migratePostgres } from "@flowfabric/postgres";
import pg from "pg";
import { expect, onTestFinished, test, vi } from "vitest";

import {
  claim,
  newSchema,
  open,
  pause,
  Peer,
  query,
  refusalOf,
  SLACK,
  tell,
  url,
} from "./stores.js";

const WAKE_UP_MS = 50;

test("the partition counts of the first opening stay", async () => {
  const schema = newSchema();
  const partitions = { flow: 16, budget: 4, quota: 8 };
  const first = await open({ schema, partitions });
  expect(first.partitions).toMatchObject(partitions);
  const { executionId } = await first.createExecution({ executionKind: "x" });
  await first.close();

  const later = await open({ schema });
  expect(later.partitions).toMatchObject(partitions);
  expect(await later.describeExecution({ executionId })).toMatchObject({
    executionId,
  });
  expect(
    await refusalOf(open({ schema, partitions: { ...partitions, flow: 256 } })),
  ).toMatchObject({
    code: "invalid_input",
    detail: { field: "partitions" },
  });
  expect((await open({ schema, partitions })).partitions).toMatchObject(
    partitions,
  );
});

test("an option that is wrong, unknown or missing is refused before anything is made", async () => {
  const schema = newSchema();
  const pool = new pg.Pool({ connectionString: url });
  onTestFinished(() => pool.end());
  for (const options of [
    { schema, connectionString: "" },
    { schema, connectionString: url, pool },
    { schema, connectionString: undefined },
    { schema, pool: {} as pg.Pool },
    { schema, maxConnections: 0 },
    { schema, preparedStatements: "sometimes" as never },
    { schema, partitions: { flow: 0, budget: 1, quota: 1 } },
    { schema, maxConections: 1 } as { schema: string },
    { schema: 'x"; DROP TABLE y; --' },
    { schema: "Capital" },
    { schema: "x".repeat(49) },
  ])
    expect(
      await refusalOf(open(options)),
      JSON.stringify(options),
    ).toMatchObject({ code: "invalid_input" });
  for (const options of [
    { schema },
    { schema, connectionString: url, pool },
    { schema, connectionString: url, dryrun: true },
  ])
    expect(await refusalOf(migratePostgres(options))).toMatchObject({
      code: "invalid_input",
    });

  expect(
    await query("SELECT FROM pg_namespace WHERE nspname = $1", [schema]),
  ).toEqual([]);
});

test("what cannot be reached or does not let in is said in words, and never with the password", async () => {
  const gone = new URL(url);
  gone.port = "1";
  gone.password = "secret";
  const stranger = new URL(url);
  stranger.username = "nobody_by_that_name";
  stranger.password = "secret";
  const elsewhere = new URL(url);
  elsewhere.pathname = "/no_such_database";
  for (const [address, kind] of [
    [gone, "transport"],
    [stranger, "auth"],
    [elsewhere, "other"],
  ] as const) {
    const options = { schema: "x", connectionString: address.href };
    for (const call of [() => open(options), () => migratePostgres(options)]) {
      const refusal = await refusalOf(call());
      expect(refusal).toMatchObject({
        code: "transport",
        detail: { backend: "postgres", backendKind: kind },
      });
      expect(refusal.message).not.toContain("secret");
    }
  }
});

test("stores in schemas of one database have nothing to do with each other", async () => {
  const schemas = [newSchema(), newSchema(), newSchema()];
  const stores = await Promise.all(schemas.map((schema) => open({ schema })));
  const submitted = await Promise.all(
    stores.map((store) =>
      store.createExecution({
        executionKind: "x",
        idempotencyKey: "the same",
        tags: { "shop.n": "1" },
      }),
    ),
  );
  expect(new Set(submitted.map(({ kind }) => kind))).toEqual(
    new Set(["created"]),
  );
  for (const [n, store] of stores.entries()) {
    const own = submitted[n]!.executionId;
    expect((await store.listExecutions({})).executions).toEqual([own]);
    expect(
      await store.countByTags({
        match: { all: [{ key: "shop.n", value: "1" }] },
      }),
    ).toBe(1);
    for (const { executionId } of submitted)
      if (executionId !== own)
        expect(await store.describeExecution({ executionId })).toBeUndefined();
  }

  // News of one wakes nobody in another: neither claims it nor looks.
  const [first, second] = stores;
  await second!.claimMany(claim);
  let woken = false;
  const parked = second!
    .claimMany({ ...claim, maxWaitMs: 1_000 })
    .finally(() => {
      woken = true;
    });
  await pause(200);
  await first!.createExecution({ executionKind: "x" });
  await pause(200);
  expect(woken).toBe(false);
  expect((await parked).claimed).toEqual([]);

  // One goes, the others stay.
  await query(`DROP SCHEMA "${schemas[0]!}" CASCADE`);
  expect(
    await stores[1]!.createExecution({ executionKind: "x" }),
  ).toMatchObject({ kind: "created" });
});

test("the caller's pool is used, never closed, and left without listeners of ours", async () => {
  const schema = newSchema();
  const pool = new pg.Pool({ connectionString: url, max: 3 });
  onTestFinished(() => pool.end());
  const listeners = () =>
    pool.eventNames().map((name) => [name, pool.listenerCount(name)]);
  const before = listeners();
  let connects = 0;
  pool.on("connect", () => connects++);
  const withOurs = listeners();

  const backend = await open({ schema, pool });
  const submitted = await Promise.all(
    Array.from({ length: 20 }, () =>
      backend.createExecution({ executionKind: "x" }),
    ),
  );
  const { claimed } = await backend.claimMany(claim);
  expect(claimed).toHaveLength(10);
  expect(submitted).toHaveLength(20);
  expect(connects).toBeGreaterThan(0);
  expect(pool.totalCount).toBeLessThanOrEqual(3);
  await backend.close();

  expect(listeners()).toEqual(withOurs);
  expect(before).toEqual([]);
  expect(pool.ended).toBe(false);
  expect((await pool.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  // Given back as they were: no setting of ours stays on a connection.
  for (const setting of ["search_path", "enable_seqscan"]) {
    const { rows } = await pool.query<{ source: string }>(
      "SELECT source FROM pg_settings WHERE name = $1",
      [setting],
    );
    expect(rows, setting).toEqual([{ source: "default" }]);
  }
  expect(await refusalOf(backend.listExecutions({}))).toMatchObject({
    code: "unavailable",
  });
  // The same pool serves again, and migrates.
  expect(await migratePostgres({ pool, schema })).toMatchObject({
    migrations: [],
  });
  const again = await open({ schema, pool });
  expect((await again.listExecutions({})).executions).toHaveLength(20);
});

test("type parsers that the caller set for all of pg change nothing, and are left alone", async () => {
  const INT8 = 20;
  const before = pg.types.getTypeParser(INT8);
  pg.types.setTypeParser(INT8, (text) => BigInt(text));
  onTestFinished(() => pg.types.setTypeParser(INT8, before));
  const backend = await open({ schema: newSchema() });

  const { executionId } = await backend.createExecution({
    executionKind: "x",
  });

  expect(
    (await backend.describeExecution({ executionId }))?.createdAtMs,
  ).toEqual(expect.any(Number));
  expect((await query<{ n: unknown }>("SELECT 1::BIGINT AS n"))[0]!.n).toBe(1n);
});

test("a pool of its own is closed with the store, and its connections say whose they are", async () => {
  const name = `application_name_${newSchema()}`;
  const connectionString = new URL(url);
  connectionString.searchParams.set("application_name", name);
  const connections = () =>
    query(
      "SELECT FROM pg_stat_activity WHERE application_name = $1 OR application_name LIKE 'flowfabric%' AND query LIKE '%' || $2 || '%'",
      [name, name.slice("application_name_".length)],
    );
  const backend = await open({
    schema: name.slice("application_name_".length),
    connectionString: connectionString.href,
  });
  await backend.claimMany({ ...claim, maxWaitMs: 50 });
  expect(await connections()).not.toEqual([]);

  await backend.close();

  await vi.waitFor(async () => expect(await connections()).toEqual([]), {
    timeout: 5_000,
  });
});

test("preparedStatements decides whether the server keeps plans", async () => {
  const prepared = async (preparedStatements: "auto" | "never" | undefined) => {
    const pool = new pg.Pool({ connectionString: url, max: 1 });
    onTestFinished(() => pool.end());
    const backend = await open({
      schema: newSchema(),
      pool,
      ...(preparedStatements === undefined ? {} : { preparedStatements }),
    });
    await backend.createExecution({ executionKind: "x" });
    await backend.claimMany(claim);
    const { rows } = await pool.query(
      "SELECT name FROM pg_prepared_statements",
    );
    return rows.length;
  };

  expect(await prepared("never")).toBe(0);
  expect(await prepared("auto")).toBeGreaterThan(3);
  expect(await prepared(undefined)).toBeGreaterThan(3);
});

test("with push another process's submission wakes a parked claim; without, it looks every second", async () => {
  const schema = newSchema();
  const peer = new Peer();
  await peer.ask("open", {
    options: { connectionString: url, schema, maxConnections: 2 },
  });
  const submit = () =>
    peer.ask("call", {
      operation: "createExecution",
      input: { executionKind: "x" },
    });
  const listeners = () =>
    query("SELECT FROM pg_stat_activity WHERE query = $1", [
      `LISTEN "flowfabric_${schema}"`,
    ]);
  /** From the answer to the submission to that of the parked claim; the middle one of several. */
  const delayMs = async (push: boolean) => {
    const backend = await open({ schema, push });
    const delays: number[] = [];
    for (let round = 0; round < 5; round++) {
      const parked = backend
        .claimMany({ ...claim, maxWaitMs: 10_000 })
        .then(({ claimed }) => ({ claimed, atMs: performance.now() }));
      // At different places of the second between two looks.
      await pause(150 + 170 * round);
      await submit();
      const submittedAtMs = performance.now();
      const { claimed, atMs } = await parked;
      expect(claimed).toHaveLength(1);
      delays.push(atMs - submittedAtMs);
    }
    const heard = (await listeners()).length;
    await backend.close();
    return { heard, ms: delays.sort((a, b) => a - b)[2]! };
  };

  const without = await delayMs(false);
  const withPush = await delayMs(true);

  tell(
    `submitted to claimed: median ${withPush.ms.toFixed(1)} ms with push, ${without.ms.toFixed(1)} ms without`,
  );
  expect(without.heard).toBe(0);
  expect(withPush.heard).toBe(1);
  expect(withPush.ms).toBeLessThan(SLACK * WAKE_UP_MS);
  expect(without.ms).toBeLessThan(SLACK * 1_000);
});

test("finished executions are kept as long as the store says, or as long as their policy says", async () => {
  const schema = newSchema();
  const backend = await open({ schema, retentionMs: 60_000 });
  const pass = (ms: number) =>
    query(`
      CREATE OR REPLACE FUNCTION "${schema}".now_ms() RETURNS BIGINT
      LANGUAGE sql VOLATILE PARALLEL SAFE
      AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT + ${ms} $$`);
  const end = async (retentionTtlMs?: number) => {
    const { executionId } = await backend.createExecution({
      executionKind: "x",
      policy:
        retentionTtlMs === undefined
          ? {}
          : { streamPolicy: { retentionTtlMs } },
    });
    await backend.cancelExecution({ executionId, reason: "over" });
    return executionId;
  };
  await end(1_000);
  const usual = await end();
  const long = await end(120_000);
  const left = async () => (await backend.listExecutions({})).executions;

  await pass(2_000);
  await backend.sweep({ name: "retention_trimmer" });
  expect(await left()).toEqual([usual, long]);
  await pass(62_000);
  await backend.sweep({ name: "retention_trimmer" });
  expect(await left()).toEqual([long]);
  await pass(122_000);
  await backend.sweep({ name: "retention_trimmer" });
  expect(await left()).toEqual([]);
});
