/**
 * A lapse that nobody has written down closes a stream only once no append is under way that began before it. Appends
 * hold the record's lock: whoever had that lock after the lapse knows that all of them are there to be seen.
 *
 * Nobody waits in line for it, for its holder may be stuck. Where it is not to be had within a moment, the stream reads as
 * still open, and readers ask again.
 */
import { setTimeout as pause } from "node:timers/promises";

import { SAFETY_POLL_MS, type ExecutionId } from "@flowfabric/core";

import type { Database } from "../db.js";
import { namedBy } from "./executions.js";
import type { PageRead } from "./streams.js";

/** Between tries: what others do with a record takes them milliseconds. */
const PAUSES_MS = [10, 30, 100];
/** Remembered at once; of lapses that were written down meanwhile nobody asks again. */
const LAPSES_MAX = 1_000;

export class UnwrittenLapses {
  readonly #db: Database;
  /** By execution: the lapse behind which its lock was had. */
  readonly #settled = new Map<ExecutionId, number>();
  readonly #settling = new Map<ExecutionId, Promise<boolean>>();

  constructor(db: Database) {
    this.#db = db;
  }

  /** Reads, and reads again where it could not be sure. */
  async surely(
    executionId: ExecutionId,
    read: () => Promise<PageRead>,
  ): Promise<PageRead> {
    for (let pauses = 0; ;) {
      const settled = this.#settled.get(executionId);
      const found = await read();
      const { lapsedAtMs } = found;
      if (lapsedAtMs === undefined || lapsedAtMs === settled) return found;
      if (await this.#settle(executionId, lapsedAtMs)) continue;
      if (pauses === PAUSES_MS.length) return stillOpen(found);
      await pause(PAUSES_MS[pauses++]);
    }
  }

  /** Once for all that ask at the same time. @returns whether the lock was had */
  #settle(executionId: ExecutionId, lapsedAtMs: number): Promise<boolean> {
    const running = this.#settling.get(executionId);
    if (running !== undefined) return running;
    const settling = this.#db
      .look(LOCK_AT_ONCE, ...namedBy(executionId))
      .then(({ length }) => {
        if (length === 0) return false;
        this.#settled.delete(executionId);
        this.#settled.set(executionId, lapsedAtMs);
        for (const oldest of this.#settled.keys()) {
          if (this.#settled.size <= LAPSES_MAX) break;
          this.#settled.delete(oldest);
        }
        return true;
      })
      .finally(() => this.#settling.delete(executionId));
    this.#settling.set(executionId, settling);
    return settling;
  }
}

/** A tail looks again by itself: whoever holds the lock may let go of it without a word. */
function stillOpen(found: PageRead): PageRead {
  const { closedAtMs: _at, closedReason: _reason, ...page } = found.page;
  return { ...found, page, lapsesInMs: SAFETY_POLL_MS };
}

const LOCK_AT_ONCE = `
  SELECT seq
  FROM executions
  WHERE id = ? AND partition = ?
  FOR NO KEY UPDATE SKIP LOCKED`;
