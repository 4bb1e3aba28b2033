/**
 * How Postgres finds what is asked for. A statement that misses its index is still right and a thousand times slower in a
 * large store, so the server itself tells the plan of each that it runs (auto_explain), as it was really sent and with
 * whatever was set on its connection: first with plans for the values at hand, then with plans for any values.
 */
import type { ClaimedExecution, EngineBackend, Frame } from "@flowfabric/core";
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

const FILLED = [
  "progress",
  "idempotency",
  "tags",
  "attempts",
  "grants",
  "purged",
  "suspensions",
  "suspend_replays",
  "waitpoints",
  "signals",
  "signal_keys",
  "signal_sources",
  "streams",
  "frames",
  "summaries",
  "stale_frames",
];

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
    SELECT -seq, id, partition, route, 9e15 FROM "${schema}".executions;
    INSERT INTO "${schema}".streams
      (seq, attempt, last_ms, last_n, frame_count, total_bytes, durable_kept, durable, summary, best_effort,
        durable_trimmed_ms, durable_trimmed_n, summary_trimmed_ms, summary_trimmed_n, best_effort_trimmed_ms,
        best_effort_trimmed_n)
    SELECT seq, 0, 1, 2, 3, 6, 10, 1, 1, 1, 0, 0, 0, 0, 0, 0 FROM "${schema}".executions;
    INSERT INTO "${schema}".frames (seq, attempt, mode, ms, n, frame_type, payload)
    SELECT seq, 0, mode, 1, mode, 'event', '{}' FROM "${schema}".executions, generate_series(0, 2) AS m (mode);
    INSERT INTO "${schema}".summaries (seq, attempt, document, version, first_applied_at, last_updated_at)
    SELECT seq, 0, '{}', 1, 1, 1 FROM "${schema}".executions;
    INSERT INTO "${schema}".stale_frames (seq)
    SELECT -seq FROM "${schema}".executions;
    INSERT INTO "${schema}".suspensions
      (seq, id, attempt, receipt, reason, requested_by, created_at, timeout_behavior, condition, policy, progress, closed_at)
    SELECT seq, id, 0, '{}', 'manual_pause', 'worker', 0, 'fail', '{}', '{}', '[]', 0 FROM "${schema}".executions;
    INSERT INTO "${schema}".suspend_replays (seq, replay_key, receipt, expires_at)
    SELECT seq, 'key', '{}', 9e15 FROM "${schema}".executions;
    INSERT INTO "${schema}".waitpoints (seq, id, attempt, state, waitpoint_key, kid, created_at, expires_at)
    SELECT seq, id, 0, seq % 4, 'key', 'kid', 0, 9e15 FROM "${schema}".executions;
    INSERT INTO "${schema}".signals
      (seq, n, id, waitpoint, name, category, source_type, source_identity, correlation_id, encoding, scope, created_at,
        accepted_at, effect)
    SELECT seq, n, gen_random_uuid(), id, 'go', '', '', '', '', 'json', '', 0, 0, 'buffered_for_pending_waitpoint'
    FROM "${schema}".executions, generate_series(1, 2) AS n;
    INSERT INTO "${schema}".signal_keys (seq, waitpoint, signal_key, n, expires_at)
    SELECT seq, id, 'key', 1, 9e15 FROM "${schema}".executions;
    INSERT INTO "${schema}".signal_sources (seq, source_type, source_identity, leaf)
    SELECT seq, 'human', 'a', 0 FROM "${schema}".executions`);
  await database.query(
    `VACUUM (ANALYZE) ${FILLED.map((table) => `"${schema}".${table}`).join(", ")}`,
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
 * Small by nature: fixed counters, or a row per lane, kind of work, worker, process or key that is there; and a sequence,
 * which is one row.
 */
const MAY_BE_SCANNED: ReadonlySet<string> = new Set([
  "settings",
  "routes",
  "lanes",
  "holders",
  "workers",
  "waiters",
  "waitpoint_secrets",
  "migrations",
  "events_position",
]);

/** Every visit to a table of the store that does not go through a condition on an index. */
function detours(plan: Plan, parent?: Plan): string[] {
  // Rows are locked as they come.
  const above = plan["Node Type"] === "LockRows" ? parent : plan;
  const inner = (plan.Plans ?? []).flatMap((step) => detours(step, above));
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
  work: (backend: EngineBackend, pool: pg.Pool) => Promise<void>,
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
    await work(backend, pool);
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
  leaseTtlMs: 600_000,
});

/** What a busy store does all day, and what it does at times over all of its tables. */
async function day(backend: EngineBackend, pool: pg.Pool): Promise<void> {
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
  await streamed(backend, pool, claimed[0]!);
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
  // Again, for what the second claim of a process knows already, and of several lanes.
  await backend.claimMany(claimOf(5));
  const lanes = ["idle", "default"];
  const several = await backend.claimMany({ ...claimOf(5), lanes });
  await backend.completeAndClaim({
    items: several.claimed.map(({ handle }) => ({ handle })),
    claim: { ...claimOf(5), lanes },
  });

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

  await waiting(backend);

  for (const name of SWEEPS) await backend.sweep({ name, limit: 10 });
}

/** Small enough that appends have to trim. */
const KEPT = 10;
const LIVE_KEPT = { maxlenFloor: KEPT, maxlenCeiling: KEPT };

/** Each way of writing and reading a stream, with trimming, by the quick way and by the slow one. */
async function streamed(
  backend: EngineBackend,
  pool: pg.Pool,
  { executionId, attemptIndex, handle }: ClaimedExecution,
): Promise<void> {
  const bytes = Buffer.from("{}");
  const frames = Array.from({ length: KEPT }, (): Frame[] => [
    { bytes },
    { bytes, mode: { kind: "bestEffortLive", ttlMs: 1_000, ...LIVE_KEPT } },
    { bytes, mode: { kind: "durableSummary", patchKind: "jsonMergePatch" } },
  ]).flat();
  for (let n = 0; n < 8; n++) await backend.appendFrames({ handle, frames });
  await backend.appendFrame({ handle, frame: { bytes, seq: 1 } });
  await backend.appendFrame({ handle, frame: { bytes, seq: 1 } });
  // Another process does not know what the summary is.
  await using other = await postgresBackend({ pool, schema });
  await other.appendFrames({ handle, frames });
  const stream = { executionId, attemptIndex, countLimit: 100 };
  await backend.readStream(stream);
  await backend.readStream({ ...stream, visibility: "excludeBestEffort" });
  const { nextCursor: after } = await backend.tailStream({
    ...stream,
    after: "0-0",
  });
  await backend.tailStream({ ...stream, after, blockMs: 1_500 });
  await backend.readSummary(stream);
}

/** Suspensions of every kind, signals, their timeouts and ends. */
async function waiting(backend: EngineBackend): Promise<void> {
  await backend.seedWaitpointHmacSecret({
    kid: "plans",
    secretHex: "0f".repeat(32),
  });
  const laneId = `waiting-${crypto.randomUUID()}`;
  const suspended = async () => {
    await backend.createExecution({ ...job, laneId });
    const { claimed } = await backend.claimMany({
      ...claimOf(1),
      lanes: [laneId],
    });
    const { handle, executionId } = claimed[0]!;
    const { waitpointId, hmacToken } = await backend.createWaitpoint({
      handle,
      waitpointKey: "a",
      expiresInMs: 60_000,
    });
    const vote = (sourceIdentity: string) =>
      backend.deliverSignal({
        executionId,
        waitpointId,
        waitpointToken: hmacToken,
        signalId: crypto.randomUUID(),
        signalName: "go",
        sourceIdentity,
        idempotencyKey: sourceIdentity,
      });
    await vote("early");
    await backend.suspend({
      handle,
      suspensionId: crypto.randomUUID(),
      waitpoints: [{ kind: "usePending", waitpointId }],
      resumeCondition: {
        kind: "composite",
        body: {
          kind: "count",
          n: 3,
          countKind: "distinctSources",
          waitpoints: ["a"],
        },
      },
      reasonCode: "waiting_for_approval",
      timeoutAtMs: Date.now() + 60_000,
      idempotencyKey: "once",
    });
    await vote("early");
    return { handle, executionId, waitpointId, vote };
  };

  const voted = await suspended();
  await backend.listSuspended({ limit: 10 });
  await backend.listPendingWaitpoints(voted);
  await backend.readWaitpointToken(voted);
  await backend.describeExecution(voted);
  await voted.vote("second");
  await voted.vote("third");
  await backend.claimMany({ ...claimOf(1), lanes: [laneId] });
  await backend.observeSignals(voted);
  await backend.cancelExecution({ ...voted, reason: "no" });

  const resumed = await suspended();
  await backend.deliverApprovalSignal({
    ...resumed,
    signalName: "approved",
    idempotencySuffix: "x",
  });
  const { executionId, waitpointId } = resumed;
  await backend.closeWaitpoint({ executionId, waitpointId, operator: true });
  await backend.resumeExecution(resumed);

  const timedOut = await suspended();
  await backend.expireSuspension(timedOut);
  await backend.expirePendingWaitpoint(timedOut);
  await backend.cancelExecution({ ...timedOut, reason: "no" });

  await backend.setExecutionTag({ executionId, key: "a", value: "1" });
  for (const feed of [
    await backend.subscribeSignalDelivery({ cursor: "AA" }),
    await backend.subscribeInstanceTags({ cursor: "AA" }),
  ]) {
    const events = (feed as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    await events.next();
    await events.return?.();
  }
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

for (const planCacheMode of ["force_custom_plan", "force_generic_plan"])
  test(`no hot statement goes through a whole table or index, plans being ${planCacheMode}`, async () => {
    expect(await detoursOfADay(planCacheMode)).toEqual([]);
  }, 60_000);

/** Where another index would do as well in a small store, and hide what it goes through behind a condition. */
test.each<[string, (backend: EngineBackend) => Promise<unknown>]>([
  ["executions_suspended", (backend) => backend.listSuspended({ limit: 10 })],
  ["waitpoints_open", waiting],
  ["signals_by_waitpoint", waiting],
])("%s is used", async (index, work) => {
  const plans = await explained("force_custom_plan", async (backend) => {
    await work(backend);
  });
  expect(JSON.stringify(plans)).toContain(`"Index Name":"${index}"`);
});

describe("and each index is needed for that", () => {
  for (const index of [
    "executions_by_home",
    "executions_by_timer",
    "idempotency_by_expiry",
    "events_by_execution",
    "events_by_position",
    "purged_by_completion",
    "waitpoints_pending",
    "events_unplaced",
  ])
    test(`without ${index} the test above fails`, async () => {
      await using database = await connect(url);
      const { rows } = await database.query<{ indexdef: string }>(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND indexname = $2",
        [schema, index],
      );
      const before = await detoursOfADay("force_custom_plan");
      await database.query(`DROP INDEX "${schema}".${index}`);
      try {
        const without = await detoursOfADay("force_custom_plan");
        expect(
          without.filter((detour) => !before.includes(detour)),
        ).not.toEqual([]);
      } finally {
        await database.query(rows[0]!.indexdef);
      }
    }, 60_000);
});
