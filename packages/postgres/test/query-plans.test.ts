/**
 * How Postgres finds what is asked for. A statement that misses its index is still right and a thousand times slower in a
 * large store, so the server itself tells the plan of each that it runs (auto_explain), as it was really sent and with
 * whatever was set on its connection: first with plans for the values at hand, then with plans for any values.
 */
import type { EngineBackend } from "@flowfabric/core";
import { SWEEPS } from "@flowfabric/core";
import { postgresBackend } from "@flowfabric/postgres";
import { fillTables } from "@flowfabric/postgres-testing";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";

import { connect, newSchemaName } from "./schemas.js";

const url = inject("postgresUrl");
const schema = newSchemaName();

beforeAll(async () => {
  await using database = await connect(url);
  await using backend = await postgresBackend({
    connectionString: url,
    schema,
  });
  await fillTables({
    backend,
    database,
    schema,
    finished: 20_000,
    waiting: 5_000,
    payloadBytes: 100,
  });
  await fillBeside(database);
}, 120_000);

afterAll(async () => {
  await using database = await connect(url);
  await database.query(`DROP SCHEMA "${schema}" CASCADE`);
});

/** What the copied executions have nothing of, so that a plan which misses its index there costs something too. */
async function fillBeside(database: pg.Client): Promise<void> {
  await database.query(`
    INSERT INTO "${schema}".progress (seq, percent)
    SELECT seq, 50 FROM "${schema}".executions;
    INSERT INTO "${schema}".idempotency (namespace, lane, idempotency_key, seq, expires_at)
    SELECT 'other', 'default', 'key-' || seq, seq, 9e15 FROM "${schema}".executions;
    INSERT INTO "${schema}".tags (tag_key, tag_value, created_at, id, seq)
    SELECT 'album', 'value-' || seq, created_at, id, seq FROM "${schema}".executions;
    INSERT INTO "${schema}".attempts (seq, attempt, record)
    SELECT seq, 0, '{}' FROM "${schema}".executions;
    INSERT INTO "${schema}".grants (seq, kind, worker_id, instance_id, created_at, expires_at)
    SELECT seq, 'claim', 'w', 'w', 0, 9e15 FROM "${schema}".executions;
    INSERT INTO "${schema}".purged (seq, id, partition, route, completed_at)
    SELECT -seq, id, partition, route, 9e15 FROM "${schema}".executions`);
  await database.query(
    `VACUUM (ANALYZE) ${["progress", "idempotency", "tags", "attempts", "grants", "purged"].map((table) => `"${schema}".${table}`).join(", ")}`,
  );
}

interface Plan {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly "Index Name"?: string;
  readonly "Index Cond"?: string;
  readonly Filter?: string;
  readonly Plans?: readonly Plan[];
}

/**
 * Small by nature: fixed counters, or a row per lane, kind of work, worker or process that is there; and a sequence, which
 * is one row.
 */
const MAY_BE_SCANNED: ReadonlySet<string> = new Set([
  "settings",
  "routes",
  "lanes",
  "holders",
  "workers",
  "waiters",
  "migrations",
  "events_position",
]);

/** Every visit to a table of the store that does not go through a condition on an index. */
function detours(plan: Plan, parent?: Plan): string[] {
  const inner = (plan.Plans ?? []).flatMap((step) => detours(step, plan));
  const table = plan["Relation Name"];
  // The server's own catalogs are its own affair; they are asked when a store is opened.
  if (table?.startsWith("pg_") === true) return inner;
  if (plan["Node Type"] === "Seq Scan" && !MAY_BE_SCANNED.has(table!))
    return [`all of ${table}`, ...inner];
  // Where nothing better is there, a walk through a whole index stands in for the one through its table. One that takes
  // each row it meets and ends at a limit is none.
  const index = plan["Index Name"];
  const endsSoon =
    parent?.["Node Type"] === "Limit" && plan.Filter === undefined;
  if (
    index !== undefined &&
    plan["Index Cond"] === undefined &&
    !endsSoon &&
    !MAY_BE_SCANNED.has(table ?? index)
  )
    return [`all of the index ${index}`, ...inner];
  return inner;
}

interface Explained {
  readonly "Query Text": string;
  readonly Plan: Plan;
}

/** Plans of everything that a store does on the pool, as the server tells them. */
async function explained(
  planCacheMode: string,
  work: (backend: EngineBackend) => Promise<void>,
): Promise<Explained[]> {
  const connection = new URL(url);
  connection.searchParams.set(
    "options",
    [
      "session_preload_libraries=auto_explain",
      "auto_explain.log_min_duration=0",
      "auto_explain.log_format=json",
      "auto_explain.log_level=notice",
      // No part of a plan, and slow on the plans that are looked for here.
      "jit=off",
      `plan_cache_mode=${planCacheMode}`,
    ]
      .map((setting) => `-c ${setting}`)
      .join(" "),
  );
  const pool = new pg.Pool({
    connectionString: connection.href,
    max: 4,
    pipeline: true,
  });
  const plans: Explained[] = [];
  pool.on("connect", (client) =>
    client.on("notice", ({ message = "" }) => {
      const json = /^duration: .* plan:\n([^]*)$/.exec(message)?.[1];
      if (json !== undefined) plans.push(JSON.parse(json) as Explained);
    }),
  );
  try {
    await using backend = await postgresBackend({ pool, schema });
    await work(backend);
  } finally {
    await pool.end();
  }
  return plans;
}

const job = { executionKind: "plan", inputPayload: Buffer.alloc(100) };
const retried = { ...job, policy: { retryPolicy: { maxRetries: 3 } } };

const claimOf = (max: number) => ({
  workerId: "plans",
  workerInstanceId: "plans",
  namespace: "default",
  lanes: ["default"],
  max,
  leaseTtlMs: 60_000,
});

/** What a busy store does all day, and what it does at times over all of its tables. */
async function day(backend: EngineBackend): Promise<void> {
  const key = { ...job, idempotencyKey: crypto.randomUUID() };
  const tags = { album: crypto.randomUUID() };
  const { executionId } = await backend.createExecution({ ...key, tags });
  await backend.createExecution({ ...key, tags });
  await backend.createExecution(job);
  await backend.submitMany({ items: [retried, retried, retried] });
  await backend.createExecution({
    ...job,
    delayUntilMs: Date.now() + 3_600_000,
  });
  await backend.createExecution({
    ...job,
    policy: { timeoutPolicy: { executionDeadlineMs: 3_600_000 } },
  });

  const { claimed } = await backend.claimMany({
    ...claimOf(10),
    requestId: "plans",
  });
  await backend.claimMany({
    ...claimOf(1),
    requestId: "plans",
    repeat: true,
  });
  await backend.claimMany({
    ...claimOf(1),
    lanes: ["idle"],
    maxWaitMs: 20,
  });
  const [first, second, third, fourth, fifth, ...others] = claimed.map(
    ({ handle }) => handle,
  );
  await backend.renew({ handle: first! });
  await backend.progress({ handle: first!, percent: 1 });
  await backend.complete({ handle: first!, payload: Buffer.alloc(100) });
  await backend.fail({
    handle: second!,
    reason: { message: "no" },
    classification: "permanent",
  });
  await backend.cancel({ handle: third!, reason: "no" });
  await backend.delay({ handle: fourth!, delayUntilMs: Date.now() + 60_000 });
  await backend.completeMany({ items: [{ handle: fifth! }] });
  await backend.completeAndClaim({
    items: others.map((handle) => ({ handle })),
    claim: claimOf(5),
  });
  // Again, for what the second claim of a process knows already.
  await backend.claimMany(claimOf(5));

  await backend.describeExecution({ executionId });
  await backend.readEvents({ executionId });
  await backend.listAttempts({ executionId });
  await backend.getExecutionResult({ executionId });
  await backend.searchByTags({
    match: { all: [{ key: "album", value: tags.album }] },
    limit: 10,
  });
  await backend.listExecutions({ limit: 10 });
  await backend.listExpiredLeases({});
  await backend.cancelExecution({ executionId, reason: "no" });
  await backend.replayExecution({ executionId });
  const feed = await backend.subscribeCompletion({ cursor: "AA" });
  const events = feed[Symbol.asyncIterator]();
  await events.next();
  await events.return?.();

  for (const name of SWEEPS) await backend.sweep({ name, limit: 10 });
}

/** What a day's statements go through for want of an index, each with the beginning of the statement. */
async function detoursOfADay(planCacheMode: string): Promise<string[]> {
  const plans = await explained(planCacheMode, day);
  // A server that tells nothing would leave nothing to complain about.
  expect(
    new Set(plans.map((plan) => plan["Query Text"])).size,
    "statements whose plan was told",
  ).toBeGreaterThan(30);
  const found = plans.flatMap(({ "Query Text": text, Plan: plan }) =>
    detours(plan).map((detour) => `${detour}: ${beginningOf(text)}`),
  );
  return [...new Set(found)].sort();
}

/** Enough to know it by; with the last step of one that has many. */
function beginningOf(text: string): string {
  const line = text
    .replaceAll(/\s+/g, " ")
    .replaceAll(`"${schema}".`, "")
    .trim();
  return line.length <= 400
    ? line
    : `${line.slice(0, 250)} … ${line.slice(-150)}`;
}

for (const planCacheMode of ["auto", "force_generic_plan"])
  test(`no hot statement goes through a whole table or index, plans being ${planCacheMode}`, async () => {
    expect(await detoursOfADay(planCacheMode)).toEqual([]);
  }, 60_000);

describe("and each index is needed for that", () => {
  for (const index of [
    "executions_by_home",
    "executions_by_timer",
    "idempotency_by_expiry",
    "events_by_execution",
    "events_by_position",
    "purged_by_completion",
  ])
    test(`without ${index} the test above fails`, async () => {
      await using database = await connect(url);
      const { rows } = await database.query<{ indexdef: string }>(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND indexname = $2",
        [schema, index],
      );
      const before = await detoursOfADay("auto");
      await database.query(`DROP INDEX "${schema}".${index}`);
      try {
        const without = await detoursOfADay("auto");
        expect(
          without.filter((detour) => !before.includes(detour)),
        ).not.toEqual([]);
      } finally {
        await database.query(rows[0]!.indexdef);
      }
    }, 60_000);
});
