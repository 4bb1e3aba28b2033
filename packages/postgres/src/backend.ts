/** Opening a store: pool, schema, settings; then the groups, behind the edge that checks inputs. */
import {
  checked,
  engineError,
  type EngineBackend,
  type PartitionConfig,
} from "@flowfabric/core";
import pg from "pg";

import { Database } from "./db.js";
import { Dialect } from "./dialect.js";
import { translateError } from "./errors.js";
import { idleLimits, limitIdleTime } from "./idle-sessions.js";
import { migrate } from "./migrate.js";
import { adminOperations } from "./operations/admin.js";
import { admissionOperations } from "./operations/admission.js";
import { claimOperations } from "./operations/claims.js";
import { eventOperations } from "./operations/events.js";
import { executionOperations } from "./operations/executions.js";
import { grantOperations } from "./operations/grants.js";
import { leaseOperations } from "./operations/leases.js";
import { maintenanceOperations } from "./operations/maintenance.js";
import { outcomeOperations } from "./operations/outcomes.js";
import { readOperations } from "./operations/reads.js";
import { reclaimOperations } from "./operations/reclaim.js";
import { secretOperations } from "./operations/secrets.js";
import { signalOperations } from "./operations/signals.js";
import { streamOperations } from "./operations/streams.js";
import { suspensionOperations } from "./operations/suspension.js";
import { tagOperations } from "./operations/tags.js";
import { workerOperations } from "./operations/workers.js";
import {
  parseOptions,
  type ParsedOptions,
  type PostgresOptions,
} from "./options.js";
import { planOnce } from "./plans.js";
import { Driver } from "./procedures/drive.js";
import { FeedPages } from "./procedures/feeds.js";
import { Floors } from "./procedures/floors.js";
import { HeldLeases } from "./procedures/held-leases.js";
import { HeldStreams } from "./procedures/held-streams.js";
import { Holders } from "./procedures/holders.js";
import { Horizon } from "./procedures/horizon.js";
import { Routes } from "./procedures/routes.js";
import type { Store } from "./store.js";
import { Tails } from "./tails.js";
import { Wakeups } from "./wakeups.js";

/**
 * Opens a store in a schema of a database, and makes the schema where it does not exist. Any number of processes may
 * share it. Postgres 14 or newer.
 *
 * @throws EngineError
 * - `invalid_input`: an option is wrong, or `partitions` differs from what the store was made with
 * - `library_version_mismatch`: the schema was written by a newer library
 * - `corruption`: the schema holds another program's tables, or is not what its ledger says
 * - `transport`: the server cannot be reached or refuses
 */
export async function postgresBackend(
  options: PostgresOptions,
): Promise<EngineBackend> {
  const parsed = parseOptions(options);
  const { pool, end } = openPool(parsed);
  try {
    await migrate(pool, parsed.schema);
    const backend = await compose(pool, end, parsed, options);
    return backend;
  } catch (error) {
    await end();
    throw translateError(error, "open");
  }
}

interface OpenedPool {
  readonly pool: pg.Pool;
  readonly end: () => Promise<void>;
}

function openPool(options: ParsedOptions): OpenedPool {
  // Without a listener an idle connection that breaks would end the process; the next call sees to it.
  const ignore = () => {};
  if (options.pool !== undefined) {
    const { pool } = options;
    pool.on("error", ignore);
    return {
      pool,
      end: async () => void pool.off("error", ignore),
    };
  }
  const idle = idleLimits(options.answerTimeoutMs);
  const pool = new pg.Pool({
    connectionString: options.connectionString,
    max: options.maxConnections,
    // Waiting for a connection, be it for the server or for a turn in the pool; and for each answer.
    connectionTimeoutMillis: options.answerTimeoutMs,
    query_timeout: options.answerTimeoutMs,
    idleTimeoutMillis: idle.clientMs,
    application_name: "flowfabric",
    keepAlive: true,
    // The writes of a transaction leave together, without waiting for each other's answers.
    pipeline: true,
  });
  pool.on("error", ignore);
  // Leaves together with what the connection is made for.
  pool.on("connect", (client) => {
    void limitIdleTime(client, idle);
    if (options.preparedStatements === "auto") void planOnce(client);
  });
  let ended: Promise<void> | undefined;
  return { pool, end: () => (ended ??= pool.end()) };
}

async function compose(
  pool: pg.Pool,
  end: () => Promise<void>,
  options: ParsedOptions,
  given: PostgresOptions,
): Promise<EngineBackend> {
  const routes = new Routes();
  const dialect = new Dialect(
    options.schema,
    options.preparedStatements === "auto",
    options.answerTimeoutMs,
  );
  const db: Database = new Database(pool, dialect, {
    push: options.push,
    end,
    onRoutes: (newest) => routes.catchUp(db, newest),
  });
  const partitions = await settlePartitions(
    db,
    options.partitions,
    given.partitions !== undefined,
  );
  const wakeups = new Wakeups(db, {
    push: options.push,
    listen: listenConfig(options),
    answerTimeoutMs: options.answerTimeoutMs,
  });
  const store: Store = {
    db,
    wakeups,
    tails: new Tails(wakeups, db, options.parkedTailsMax),
    routes,
    holders: new Holders(),
    horizon: new Horizon(),
    feedPages: new FeedPages(),
    leases: new HeldLeases(),
    heldStreams: new HeldStreams(),
    floors: new Floors(),
    driver: new Driver(),
    options,
  };

  const implementation = {
    partitions,
    ...executionOperations(store),
    ...readOperations(store),
    ...tagOperations(store),
    ...claimOperations(store),
    ...grantOperations(store),
    ...admissionOperations(store),
    ...leaseOperations(store),
    ...reclaimOperations(store),
    ...outcomeOperations(store),
    ...suspensionOperations(store),
    ...signalOperations(store),
    ...secretOperations(store),
    ...workerOperations(store),
    ...eventOperations(store),
    ...streamOperations(store),
    ...maintenanceOperations(store),
    ...adminOperations(store),
    async close() {
      wakeups.close();
      await wakeups.closedFully();
      await db.close();
    },
  };
  return checked(implementation, {
    maxPayloadBytes: options.maxPayloadBytes,
    ...(options.partitioner === undefined
      ? {}
      : { partitioner: options.partitioner }),
    translateError,
  });
}

/** Where the listener connects: its own address, else that of the others. */
function listenConfig(options: ParsedOptions): pg.ClientConfig {
  const connectionString =
    options.listenConnectionString ?? options.connectionString;
  if (connectionString !== undefined)
    return { connectionString, application_name: "flowfabric-listen" };
  return { ...options.pool!.options, application_name: "flowfabric-listen" };
}

/** The counts decide where ids live, so the first boot fixes them. */
async function settlePartitions(
  db: Database,
  wanted: PartitionConfig,
  explicit: boolean,
): Promise<PartitionConfig> {
  const settled: Record<string, number> = {};
  for (const [family, count] of Object.entries(wanted)) {
    const name = `partitions.${family}`;
    await db.query(STORE_SETTING, name, count);
    const [row] = await db.query<{ value: number }>(READ_SETTING, name);
    const stored = row!.value;
    if (explicit && stored !== count) {
      throw engineError("invalid_input", {
        reason: `the store was made with ${stored} ${family} partitions, not ${count}`,
        field: "partitions",
      });
    }
    settled[family] = stored;
  }
  return settled as unknown as PartitionConfig;
}

const STORE_SETTING = `
  INSERT INTO settings (name, value)
  VALUES (?, ?)
  ON CONFLICT DO NOTHING`;

const READ_SETTING = `
  SELECT value
  FROM settings
  WHERE name = ?`;
