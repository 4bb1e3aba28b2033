/**
 * Who waits for streams, and how it hears of them. What this process commits is rung by it. Others notify with the name
 * of what they changed, and only where somebody has said that it waits for just that. Once a second in any case, and
 * whenever notices may have been missed, one look over all awaited streams tells which of them have news.
 */
import {
  parseExecutionId,
  SAFETY_POLL_MS,
  Seats,
  type Audience,
  type ExecutionId,
  type Grouped,
  type Seat,
  type TailVisibility,
} from "@flowfabric/core";

import type { Database } from "./db.js";
import { few } from "./dialect.js";
import { grouped } from "./grouped.js";
import { standingOf, type Standing } from "./procedures/streams.js";
import type { Session } from "./session.js";
import { namesOfStream, parseStreamName, streamName } from "./stream-names.js";
import { FIRST_LOOK_MS, type Wakeups } from "./wakeups.js";

/** One statement asks for this many streams; beyond it there are several, one after the other. */
const LOOKS_PER_STATEMENT = 1_000;

export class Tails {
  readonly #wakeups: Wakeups;
  readonly #db: Database;
  readonly #seats: Seats;
  readonly #announcements: Grouped<string, boolean>;
  /** Ends the watch when nobody is left to tell. */
  #watch: AbortController | undefined;
  /** Announced a moment ago: who began to write before that does not know yet. */
  readonly #unsure = new Set<ExecutionId>();

  constructor(wakeups: Wakeups, db: Database, max: number) {
    this.#wakeups = wakeups;
    this.#db = db;
    this.#announcements = grouped((names) => wakeups.announce(names));
    this.#seats = new Seats(max, {
      onFirst: () => void this.#watchAll(),
      // At once, so that a tail which comes back in this very moment begins another watch.
      onNone: () => this.#watch?.abort(),
    });
    wakeups.hearStreams((name) => {
      const { executionId, visibility } = parseStreamName(name);
      this.#seats.ringExecution(executionId, (seen) => seen === visibility);
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

  /** Others tell us of this stream from now on. @returns whether that was said just now, and another look is needed */
  async announce(
    executionId: ExecutionId,
    visibility: TailVisibility,
  ): Promise<boolean> {
    const name = streamName(executionId, visibility);
    if (this.#wakeups.isAnnounced(name)) return false;
    const isNew = await this.#announcements.call(name);
    if (isNew) this.#lookAgainSoon(executionId);
    return isNew;
  }

  /** A tail has looked before it waits. */
  noteSeen(executionId: ExecutionId, attempt: number, standing: string): void {
    this.#seats.noteSeen(executionId, attempt, standing);
  }

  /** Frames were appended; `seen` tells whose eyes can see them. */
  ringAppendedHere(
    executionId: ExecutionId,
    attempt: number,
    seen: (visibility: TailVisibility) => boolean,
  ): void {
    this.#seats.ringAppended(executionId, attempt, seen);
  }

  /** An attempt of this execution may end with this transaction. */
  ringEnded(tx: Session, executionId: ExecutionId): void {
    for (const name of namesOfStream(executionId)) tx.tell(name, 0);
    tx.afterCommit(() => this.ringEndedHere(executionId));
  }

  ringEndedHere(executionId: ExecutionId): void {
    this.#seats.ringExecution(executionId);
  }

  #lookAgainSoon(executionId: ExecutionId): void {
    if (this.#unsure.size === 0)
      setTimeout(() => {
        const unsure = new Set(this.#unsure);
        this.#unsure.clear();
        void this.#lookAt(
          this.#seats.audiences().filter((one) => unsure.has(one.executionId)),
        );
      }, FIRST_LOOK_MS).unref();
    this.#unsure.add(executionId);
  }

  async #watchAll(): Promise<void> {
    const watch = new AbortController();
    this.#watch = watch;
    while (!watch.signal.aborted && !this.#wakeups.closed) {
      const ticket = this.#wakeups.ticket("missed");
      await this.#wakeups.wait(ticket, SAFETY_POLL_MS, watch.signal);
      if (watch.signal.aborted || this.#wakeups.closed) break;
      await this.#lookAt(this.#seats.audiences());
    }
    // Tails find the store closed and end.
    if (this.#wakeups.closed) this.#seats.ringAll();
  }

  async #lookAt(audiences: readonly Audience[]): Promise<void> {
    for (let at = 0; at < audiences.length; at += LOOKS_PER_STATEMENT) {
      const some = audiences.slice(at, at + LOOKS_PER_STATEMENT);
      try {
        const found = await this.#db.query<PlacedStanding>(
          STANDINGS,
          JSON.stringify(
            some.map(({ executionId, attempt }, place) => {
              const { partition, uuid } = parseExecutionId(executionId)!;
              return { id: uuid, partition, attempt, place };
            }),
          ),
        );
        const standings = new Map(
          found.map(({ place, ...one }) => [place, standingOf(one)]),
        );
        for (const [place, audience] of some.entries())
          this.#seats.compare(audience, standings.get(place) ?? "");
      } catch {
        // What is wrong with the store, each tail's own look will tell.
        return;
      }
    }
  }
}

interface PlacedStanding extends Standing {
  readonly place: number;
}

const STANDINGS = `
  SELECT place, x.events, s.last_ms, s.last_n
  FROM json_to_recordset(?::JSON) AS r (id UUID, partition INTEGER, attempt INTEGER, place INTEGER)
  JOIN executions AS x ON x.id = r.id AND x.partition = r.partition
  LEFT JOIN streams AS s ON s.seq = x.seq AND s.attempt = r.attempt
  WHERE ${few("place")}`;
