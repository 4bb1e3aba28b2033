/** Opening a store: connection, library, settings; then the groups, behind the edge that checks inputs. */
import {
  byLane,
  checked,
  type EngineBackend,
  type PartitionConfig,
} from "@flowfabric/core";

import { Cell, Cells } from "./cells.js";
import { openConnection, type Connection } from "./connection.js";
import { translateError } from "./errors.js";
import { library, testLibrary } from "./library.js";
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
  type ValkeyOptions,
} from "./options.js";
import { Driver } from "./procedures/drive.js";
import { Settings } from "./procedures/settings.js";
import { StreamReads } from "./procedures/stream-reads.js";
import { Summaries } from "./procedures/summaries.js";
import type { Store } from "./store.js";
import { Tails } from "./tails.js";
import { Wakeups } from "./wakeups.js";

const CELLS_OF_A_CLUSTER = 16;

/**
 * Opens a store on a server or a cluster, under a prefix of its own. Any number of processes may share it. Valkey 7.2,
 * Redis 7.0, or newer.
 *
 * What an answered call means after a crash of the server is up to its `appendonly` settings; see the README.
 *
 * @throws EngineError
 * - `invalid_input`: an option is wrong, or `partitions` or `cells` differs from what the store was made with
 * - `unavailable`: the server knows no functions
 * - `transport`: the server cannot be reached or refuses
 */
export async function valkeyBackend(
  options: ValkeyOptions,
): Promise<EngineBackend> {
  const parsed = parseOptions(options);
  const connection = await openConnection(
    parsed,
    parsed.testClock ? testLibrary : library,
  );
  try {
    return await compose(connection, parsed, options);
  } catch (error) {
    await connection.close();
    throw translateError(error, "open");
  }
}

async function compose(
  connection: Connection,
  options: ParsedOptions,
  given: ValkeyOptions,
): Promise<EngineBackend> {
  await connection.loadWhereReachable();
  if (options.waitForReplicas !== undefined)
    await connection.waitForCopies(
      options.waitForReplicas,
      options.answerTimeoutMs,
    );
  const settings = new Settings(firstCell(connection, options.prefix));
  const [count] = await settings.settle([
    {
      name: "cells",
      value: options.cells ?? (connection.isCluster ? CELLS_OF_A_CLUSTER : 1),
      isGiven: given.cells !== undefined,
    },
  ]);
  const partitions = await settlePartitions(
    settings,
    options.partitions,
    given.partitions !== undefined,
  );
  const cells = new Cells(connection, options.prefix, count!, () =>
    settings.restore(),
  );
  const driver = new Driver();
  const wakeups = new Wakeups(cells, {
    push: options.push,
    answerTimeoutMs: options.answerTimeoutMs,
    connect: () => connection.listener(),
    onTimer: (inMs) => driver.dueIn(inMs),
  });
  const store: Store = {
    connection,
    cells,
    wakeups,
    tails: new Tails(cells, wakeups, options.parkedTailsMax),
    streamReads: new StreamReads(),
    summaries: new Summaries(),
    driver,
    options,
    partitionOfKey: (laneId, key) =>
      (options.partitioner ?? byLane)(laneId, partitions.flow, key),
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
    ...streamOperations(store),
    ...eventOperations(store),
    ...maintenanceOperations(store),
    ...adminOperations(store),
    async close() {
      wakeups.close();
      await connection.close();
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

/** Its settings say how many there are. */
function firstCell(connection: Connection, prefix: string): Cell {
  return new Cell(connection, prefix, 0, async () => {});
}

async function settlePartitions(
  settings: Settings,
  wanted: PartitionConfig,
  isGiven: boolean,
): Promise<PartitionConfig> {
  const families = Object.entries(wanted) as [string, number][];
  const counts = await settings.settle(
    families.map(([family, value]) => ({
      name: `partitions.${family}`,
      value,
      isGiven,
    })),
  );
  return Object.fromEntries(
    families.map(([family], index) => [family, counts[index]]),
  ) as unknown as PartitionConfig;
}
