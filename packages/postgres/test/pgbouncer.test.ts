/**
 * Behind PgBouncer in transaction mode: each transaction of a client may run on another connection of the server, so that
 * nothing that belongs to a session works, and the version that Debian 12 has knows no prepared statements.
 */
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  answering,
  findBouncer,
  freePort,
  Workplace,
  type StartedProgram,
} from "@flowfabric/postgres-testing";
import { Client, Worker } from "@flowfabric/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";

import { migrations } from "../src/generated/migrations.js";
import { migratePostgres } from "../src/migrate-schema.js";
import {
  claim,
  connect,
  newSchema,
  open,
  pause,
  query,
  refusalOf,
  SLACK,
  tell,
  url,
} from "./stores.js";

/** Fewer than any test here has clients, so that those have to share. */
const SERVER_CONNECTIONS = 3;
const WAKE_UP_MS = 50;

let workplace: Workplace;
let bouncer: StartedProgram;
let startBouncer: () => Promise<void>;
let bouncerUrl: string;

beforeAll(async () => {
  const { directory, libraries } = findBouncer();
  workplace = new Workplace("pgbouncer");
  const programs = workplace.reachable(directory);
  const port = await freePort();
  const { hostname, port: serverPort, username, password } = new URL(url);
  const target = {
    host: hostname,
    port: serverPort === "" ? "5432" : serverPort,
    user: decodeURIComponent(username),
    ...(password === "" ? {} : { password: decodeURIComponent(password) }),
  };
  const ini = workplace.path("pgbouncer.ini");
  writeFileSync(
    ini,
    `[databases]
* = ${Object.entries(target)
      .map(([name, value]) => `${name}='${value.replaceAll("'", "''")}'`)
      .join(" ")}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 100
default_pool_size = ${SERVER_CONNECTIONS}
server_idle_timeout = 5
ignore_startup_parameters = extra_float_digits
`,
  );
  // It may hold a password.
  chmodSync(ini, 0o600);
  workplace.own(ini);
  const address = new URL(url);
  address.hostname = "127.0.0.1";
  address.port = String(port);
  bouncerUrl = address.href;
  startBouncer = async () => {
    bouncer = workplace.start(
      join(programs, "pgbouncer"),
      [ini],
      libraries === undefined
        ? {}
        : { LD_LIBRARY_PATH: join(programs, libraries) },
    );
    try {
      await answering(bouncerUrl, () => bouncer.running);
    } catch (cause) {
      throw new Error(`PgBouncer did not start: ${bouncer.lastWords()}`, {
        cause,
      });
    }
  };
  await startBouncer();
  // Fetching it may take a while, once.
}, 120_000);

afterAll(async () => {
  await bouncer?.stop();
  workplace?.remove();
});

const behind = () => ({
  connectionString: bouncerUrl,
  listenConnectionString: url,
  preparedStatements: "never" as const,
});

test("this is transaction mode: one client's transactions share connections with those of others", async () => {
  const clients = await Promise.all(
    Array.from({ length: 4 * SERVER_CONNECTIONS }, () =>
      connect({ connectionString: bouncerUrl }),
    ),
  );
  const pids = await Promise.all(
    clients.map(async (client) => {
      const { rows } = await client.query<{ pid: number }>(
        "SELECT pg_backend_pid() AS pid, pg_sleep(0.02)",
      );
      return rows[0]!.pid;
    }),
  );
  expect(new Set(pids).size).toBeLessThanOrEqual(SERVER_CONNECTIONS);
});

test("sessions that clients share are not ended when one of them has been idle for long", async () => {
  const schema = newSchema();
  const backends = await Promise.all(
    Array.from({ length: 2 * SERVER_CONNECTIONS }, () =>
      open({ schema, ...behind(), answerTimeoutMs: 1_000 }),
    ),
  );
  await Promise.all(
    backends.map((backend) => backend.createExecution({ executionKind: "x" })),
  );
  const clients = await Promise.all(
    Array.from({ length: SERVER_CONNECTIONS }, () =>
      connect({ connectionString: bouncerUrl }),
    ),
  );
  const limits = await Promise.all(
    clients.map(async (client) => {
      const { rows } = await client.query<{ limit: string }>(
        "SELECT current_setting('idle_session_timeout') AS limit, pg_sleep(0.02)",
      );
      return rows[0]!.limit;
    }),
  );
  const [server] = await query<{ limit: string }>(
    "SELECT current_setting('idle_session_timeout') AS limit",
  );
  expect(new Set(limits)).toEqual(new Set([server!.limit]));
});

test("a fleet at work: every execution once, retries, delays, cancels and feeds included", async () => {
  const schema = newSchema();
  const backends = await Promise.all(
    Array.from({ length: 3 }, () =>
      open({ schema, ...behind(), maxConnections: 5 }),
    ),
  );
  const runs = new Map<string, number>();
  const workers = backends.map((backend) => {
    const worker = new Worker({ backend, maxConcurrentTasks: 4 });
    worker.handle("flaky", (bytes, task) => {
      runs.set(task.executionId, (runs.get(task.executionId) ?? 0) + 1);
      if (task.attemptIndex === 0) throw new Error("at first");
      return bytes;
    });
    return worker;
  });
  const running = workers.map((worker) => worker.run());
  const [backend] = backends;
  await using client = new Client({ backend: backend! });
  const stop = new AbortController();
  const completions = await backend!.subscribeCompletion({
    signal: stop.signal,
  });

  const submitted: string[] = [];
  for (let n = 0; n < 60; n++) {
    const { executionId } = await backends[n % 3]!.createExecution({
      executionKind: "flaky",
      inputPayload: Buffer.from(`[${n}]`),
      idempotencyKey: `key-${n}`,
      tags: { "shop.n": String(n % 2) },
      policy: {
        retryPolicy: {
          maxRetries: 2,
          backoff: { type: "fixed", delayMs: 20 },
        },
      },
      ...(n % 5 === 0 ? { delayUntilMs: Date.now() + 200 } : {}),
    });
    submitted.push(executionId);
  }
  const again = await client.submit({
    executionKind: "flaky",
    idempotencyKey: "key-0",
  });
  expect(again.executionId).toBe(submitted[0]);
  const { executionId: idle } = await backend!.createExecution({
    executionKind: "flaky",
    laneId: "nobody-serves",
  });
  await backend!.cancelExecution({ executionId: idle, reason: "not needed" });

  const ended: string[] = [];
  for await (const { executionId } of completions) {
    ended.push(executionId);
    if (ended.length === submitted.length + 1) break;
  }
  stop.abort();
  expect([...ended].sort()).toEqual([...submitted, idle].sort());
  expect([...runs.values()]).toEqual(submitted.map(() => 2));
  const states = await Promise.all(
    submitted.map((executionId) =>
      backend!.readExecutionState({ executionId }),
    ),
  );
  expect(new Set(states)).toEqual(new Set(["completed"]));
  expect(
    await backend!.countByTags({
      match: { all: [{ key: "shop.n", value: "1" }] },
    }),
  ).toBe(30);
  for (const worker of workers) await worker.stop();
  await Promise.all(running);
});

test("a lease that is taken away is refused, and the fence holds", async () => {
  const schema = newSchema();
  const one = await open({ schema, ...behind() });
  const other = await open({ schema, ...behind() });
  const { executionId } = await one.createExecution({ executionKind: "x" });
  const { claimed } = await one.claimMany(claim);
  const [lost] = claimed;
  await other.revokeLease({ executionId, reason: "operator" });
  const taken = await other.claimMany({
    ...claim,
    workerInstanceId: "worker-2",
  });
  expect(taken.claimed).toMatchObject([{ executionId }]);

  await expect(one.complete({ handle: lost!.handle })).rejects.toMatchObject({
    code: "stale_lease",
  });
  await other.complete({ handle: taken.claimed[0]!.handle });
});

test("a parked claim is woken by push, by the direct connection", async () => {
  const schema = newSchema();
  const submitter = await open({ schema, ...behind() });
  const backend = await open({ schema, ...behind() });
  const delays: number[] = [];
  for (let round = 0; round < 9; round++) {
    const parked = backend
      .claimMany({ ...claim, maxWaitMs: 10_000 })
      .then(({ claimed }) => ({ claimed, atMs: performance.now() }));
    await pause(150);
    await submitter.createExecution({ executionKind: "x" });
    const submittedAtMs = performance.now();
    const { claimed, atMs } = await parked;
    expect(claimed).toHaveLength(1);
    delays.push(atMs - submittedAtMs);
  }
  delays.sort((a, b) => a - b);
  tell(
    `submitted to claimed through PgBouncer: median ${delays[4]!.toFixed(1)} ms, longest ${delays.at(-1)!.toFixed(1)} ms`,
  );
  expect(delays[4]).toBeLessThan(SLACK * WAKE_UP_MS);
  expect(
    await query("SELECT FROM pg_stat_activity WHERE query = $1", [
      `LISTEN "flowfabric_${schema}"`,
    ]),
  ).toHaveLength(1);
});

test("a submission in the caller's own transaction, through PgBouncer as well", async () => {
  const schema = newSchema();
  const backend = await open({ schema, ...behind() });
  const db = await connect({ connectionString: bouncerUrl });
  for (const [end, lengths] of [
    ["ROLLBACK", 0],
    ["COMMIT", 1],
  ] as const) {
    await db.query("BEGIN");
    await backend.createExecutionInTransaction({
      executionKind: "x",
      transaction: db,
    });
    await db.query(end);
    expect((await backend.listExecutions({})).executions).toHaveLength(lengths);
  }
});

test("migrations take turns through PgBouncer too", async () => {
  const schema = newSchema();
  const reports = await Promise.all(
    Array.from({ length: 6 }, () =>
      migratePostgres({ connectionString: bouncerUrl, schema }),
    ),
  );
  expect(
    reports.map(({ migrations }) => migrations.length).sort((a, b) => a - b),
  ).toEqual([0, 0, 0, 0, 0, migrations.length]);
});

test("PgBouncer gone and back: refused meanwhile, and then work goes on", async () => {
  const schema = newSchema();
  const backend = await open({ schema, ...behind() });
  const { executionId } = await backend.createExecution({ executionKind: "x" });
  await bouncer.stop();
  expect(
    await refusalOf(backend.createExecution({ executionKind: "x" })),
  ).toMatchObject({ code: "transport" });
  await startBouncer();

  const { claimed } = await backend.claimMany(claim);
  expect(claimed).toMatchObject([{ executionId }]);
});
