/**
 * Who waits for streams, and how it hears of them. What this process commits is rung by it. What others commit shows as a
 * changed file: then, and once a second in any case, one look tells which streams have been written or closed since the
 * last, however many are awaited.
 */
import {
  EVENT_TYPES,
  SAFETY_POLL_MS,
  Seats,
  TERMINAL_EVENT_TYPES,
  type ExecutionId,
  type Seat,
  type TailVisibility,
} from "@flowfabric/core";
import { executionIdOf } from "@flowfabric/core/sql";

import type { Database } from "./db.js";
import type { Session } from "./session.js";
import type { Wakeups } from "./wakeups.js";

/** How far the store's changes have been told. */
interface Marks {
  readonly position: number;
  readonly changes: number;
}

interface ChangedStream {
  readonly id: Uint8Array;
  readonly partition: number;
}

export class Tails {
  readonly #wakeups: Wakeups;
  readonly #db: Database;
  readonly #seats: Seats;
  /** Ends the watch over other processes when nobody is left to tell. */
  #watch: AbortController | undefined;

  constructor(wakeups: Wakeups, db: Database, max: number) {
    this.#wakeups = wakeups;
    this.#db = db;
    this.#seats = new Seats(max, {
      onFirst: () => void this.#watchOthers(),
      onNone: () => this.#watch?.abort(),
    });
  }

  /** @throws EngineError `resource_exhausted` where too many are parked, `unavailable` once the store closes */
  seat(
    executionId: ExecutionId,
    attempt: number,
    visibility: TailVisibility,
  ): Seat {
    this.#wakeups.requireOpen();
    return this.#seats.take(executionId, attempt, visibility);
  }

  /** Frames were appended; `seen` tells whose eyes can see them. */
  ringAppended(
    executionId: ExecutionId,
    attempt: number,
    seen: (visibility: TailVisibility) => boolean,
  ): void {
    this.#seats.ringAppended(executionId, attempt, seen);
  }

  /** An attempt of this execution may have ended. */
  ringEnded(executionId: () => ExecutionId): void {
    if (!this.#seats.areEmpty) this.#seats.ringExecution(executionId());
  }

  async #watchOthers(): Promise<void> {
    const watch = new AbortController();
    this.#watch = watch;
    // From here on: whoever takes a seat looks for itself what was before.
    let told: Marks | undefined;
    while (!watch.signal.aborted && !this.#wakeups.closed) {
      const ticket = this.#wakeups.ticket("others");
      told = await this.#tellChanges(told);
      await this.#wakeups.wait(ticket, SAFETY_POLL_MS, watch.signal);
    }
    // Tails find the store closed and end.
    if (this.#wakeups.closed) this.#seats.ringAll();
  }

  async #tellChanges(since: Marks | undefined): Promise<Marks | undefined> {
    try {
      return await this.#db.read((tx) => {
        if (since !== undefined) this.#ringSince(tx, since);
        return tx.get<Marks>(READ_MARKS)!;
      });
    } catch {
      // What is wrong with the store, each tail's own look will tell.
      return since;
    }
  }

  #ringSince(tx: Session, { position, changes }: Marks): void {
    for (const one of tx.all<ChangedStream & { attempt: number }>(
      APPENDED_SINCE,
      changes,
    ))
      this.ringAppended(executionIdOf(one), one.attempt, () => true);
    for (const one of tx.all<ChangedStream>(ENDED_SINCE, position))
      this.ringEnded(() => executionIdOf(one));
  }
}

const READ_MARKS = `
  SELECT
    (SELECT value FROM settings WHERE name = 'position') AS position,
    (SELECT value FROM settings WHERE name = 'stream_changes') AS changes`;

export const APPENDED_SINCE = `
  SELECT x.id, x.partition, s.attempt
  FROM streams AS s
  JOIN executions AS x ON x.seq = s.seq
  WHERE s.changed > ?`;

/** Ends of attempts, by whatever it was; a claim of lost work ends the attempt before it. */
const ENDS = (
  [
    "reclaimed",
    "lease_expired",
    "lease_revoked",
    "retry_scheduled",
    ...TERMINAL_EVENT_TYPES,
  ] as const
).map((type) => EVENT_TYPES.indexOf(type));

export const ENDED_SINCE = `
  SELECT x.id, x.partition
  FROM events AS e
  JOIN executions AS x ON x.seq = e.execution
  WHERE e.position > ? AND e.type IN (${ENDS.join(", ")})`;
