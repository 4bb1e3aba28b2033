/** Keeps the write-ahead log from growing for ever under load that never pauses. */
import { statSync } from "node:fs";

import type { Store } from "../store.js";

const LOOK_INTERVAL_MS = 5_000;
const LARGE_LOG_BYTES = 128 * 1_048_576;

const lookedAtMs = new WeakMap<Store, number>();

/**
 * SQLite checkpoints by itself whenever it can do so without waiting; readers that never leave a gap can keep it
 * from ever starting the log over. Then this does, between two transactions.
 */
export function checkpointIfLarge(store: Store): void {
  const { connection } = store.db;
  if (connection.memory || !connection.open || connection.inTransaction) return;
  const nowMs = performance.now();
  if (nowMs - (lookedAtMs.get(store) ?? -LOOK_INTERVAL_MS) < LOOK_INTERVAL_MS)
    return;
  lookedAtMs.set(store, nowMs);
  const log = statSync(`${connection.name}-wal`, { throwIfNoEntry: false });
  if (log !== undefined && log.size > LARGE_LOG_BYTES)
    connection.pragma("wal_checkpoint(TRUNCATE)");
}
