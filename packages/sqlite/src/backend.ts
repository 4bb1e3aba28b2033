/** Opening a store: file, schema, settings; then the groups, behind the edge that checks inputs. */
import {
  checked,
  engineError,
  type EngineBackend,
  type PartitionConfig,
} from "@flowfabric/core";
import type SqliteDriver from "better-sqlite3";

import { AUTOCHECKPOINT_PAGES, Checkpointer } from "./checkpointer.js";
import { openPatiently } from "./connection.js";
import { Database } from "./db.js";
import { translateError } from "./errors.js";
import { migrate, pendingMigrations } from "./migrate.js";
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
import { suspensionOperations } from "./operations/suspension.js";
import { streamOperations } from "./operations/streams.js";
import { tagOperations } from "./operations/tags.js";
import { workerOperations } from "./operations/workers.js";
import {
  parseOptions,
  type ParsedOptions,
  type SqliteOptions,
} from "./options.js";
import { Driver } from "./procedures/drive.js";
import { Holders } from "./procedures/holders.js";
import { Routes } from "./procedures/routes.js";
import type { Store } from "./store.js";
import { Tails } from "./tails.js";
import { Wakeups } from "./wakeups.js";

/**
 * Opens, and makes where it does not exist, a store in one file. Several processes of one host may share it.
 *
 * @throws EngineError
 * - `invalid_input`: an option is wrong, or `partitions` differs from what the file was made with
 * - `library_version_mismatch`: the file was written by a newer library
 * - `corruption`: the file is another program's database, or its schema is not what its ledger says
 * - `transport`: the file is damaged, read-only, no database, or cannot be opened; it was left as it is
 */
export async function sqliteBackend(
  options: SqliteOptions,
): Promise<EngineBackend> {
  const parsed = parseOptions(options);
  const { connection, answer: partitions } = await openPatiently(
    parsed,
    (connection) =>
      prepareFile(connection, parsed, options.partitions !== undefined),
  );
  return compose(connection, parsed, partitions);
}

function compose(
  connection: SqliteDriver.Database,
  options: ParsedOptions,
  partitions: PartitionConfig,
): EngineBackend {
  const routes = new Routes();
  const holders = new Holders();
  const checkpointer = new Checkpointer(connection);
  const db = new Database(connection, {
    clock: options.clock ?? { offsetMs: 0 },
    busyTimeoutMs: options.busyTimeoutMs,
    onLosses: () => wakeups.ringLosses(),
    onRollback: () => {
      routes.forget();
      holders.forget();
    },
    onCommit: (hasWritten) => {
      if (hasWritten) wakeups.tellOthers();
      checkpointer.afterCommit();
    },
  });
  const wakeups = new Wakeups(connection, options);
  const store: Store = {
    db,
    wakeups,
    tails: new Tails(wakeups, db, options.parkedTailsMax),
    routes,
    holders,
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
      await db.close();
      await checkpointer.close();
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

function prepareFile(
  connection: SqliteDriver.Database,
  options: ParsedOptions,
  explicitPartitions: boolean,
): PartitionConfig {
  // Before anything is written: the journal mode already changes the file.
  pendingMigrations(connection);
  connection.pragma("journal_mode = WAL");
  connection.pragma(
    `synchronous = ${options.durability === "full" ? "FULL" : "NORMAL"}`,
  );
  connection.pragma(`wal_autocheckpoint = ${AUTOCHECKPOINT_PAGES}`);
  connection.pragma("cache_size = -65536");
  connection.pragma("temp_store = MEMORY");
  migrate(connection);
  return settlePartitions(connection, options.partitions, explicitPartitions);
}

/** The counts decide where ids live, so the first boot fixes them. */
function settlePartitions(
  connection: SqliteDriver.Database,
  wanted: PartitionConfig,
  explicit: boolean,
): PartitionConfig {
  const read = connection.prepare<[string], { value: number }>(
    "SELECT value FROM settings WHERE name = ?",
  );
  const store = connection.prepare(
    "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
  );
  const nameOf = (family: string) => `partitions.${family}`;
  const families = Object.entries(wanted);
  // All of them by one process, where several open a new file with different wishes.
  if (families.some(([family]) => read.get(nameOf(family)) === undefined))
    connection
      .transaction(() => {
        for (const [family, count] of families)
          store.run(nameOf(family), count);
      })
      .immediate();

  const settled: Record<string, number> = {};
  for (const [family, count] of families) {
    const stored = read.get(nameOf(family))!.value;
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
