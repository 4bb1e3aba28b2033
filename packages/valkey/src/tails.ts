/**
 * Who waits for streams, and how it hears of them. Functions publish on a channel of the execution, `!stream:<ref>`: the attempt
 * that got frames, with ` live` where these are best effort only, or nothing where an attempt may have ended. Messages may
 * get lost, or not be heard yet: once a second one call for each cell tells which of all awaited streams stand otherwise than
 * their tails have seen.
 */
import {
  SAFETY_POLL_MS,
  Seats,
  type Audience,
  type ExecutionId,
  type Seat,
  type TailVisibility,
} from "@flowfabric/core";

import type { Cell, Cells } from "./cells.js";
import { listOf } from "./connection.js";
import { askEach } from "./procedures/outages.js";
import { standingOf } from "./procedures/streams.js";
import { refOf } from "./rows.js";
import { channelOf, type Wakeups } from "./wakeups.js";

/** A call tells of so many streams; it takes the server some milliseconds. */
const STREAMS_PER_CALL = 1_000;

/** What tells of the streams of one execution. */
interface Listening {
  readonly channel: string;
  /** Nobody waited when the last look was made. Whoever reads on from a page comes back sooner. */
  isLeft: boolean;
}

export class Tails {
  readonly #cells: Cells;
  readonly #wakeups: Wakeups;
  readonly #seats: Seats;
  readonly #listening = new Map<ExecutionId, Listening>();
  #nextLook: NodeJS.Timeout | undefined;
  #isLooking = false;

  constructor(cells: Cells, wakeups: Wakeups, max: number) {
    this.#cells = cells;
    this.#wakeups = wakeups;
    this.#seats = new Seats(max);
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

  /** A tail has looked before it waits. */
  noteSeen(executionId: ExecutionId, attempt: number, standing: string): void {
    this.#seats.noteSeen(executionId, attempt, standing);
  }

  /** The server is asked to tell of these streams; once it does, who waits looks again, for before that nothing was told. */
  listen(executionId: ExecutionId): void {
    const listening = this.#listening.get(executionId);
    if (listening !== undefined) {
      listening.isLeft = false;
      return;
    }
    const cell = this.#cells.of(executionId);
    const channel = channelOf(cell, "stream:", refOf(executionId));
    this.#listening.set(executionId, { channel, isLeft: false });
    const ringAll = () => this.#seats.ringExecution(executionId);
    this.#wakeups.watch(channel, {
      onMessage: (message) => this.#ring(executionId, message),
      onHeard: ringAll,
      // They find the store closed, and end.
      onClosed: ringAll,
    });
    this.#lookSoon();
  }

  #ring(executionId: ExecutionId, message: string): void {
    const [attempt, live] = message.split(" ");
    const seen = (visibility: TailVisibility) =>
      live === undefined || visibility === "all";
    if (attempt === "") this.#seats.ringExecution(executionId);
    else this.#seats.ringAppended(executionId, Number(attempt), seen);
  }

  #lookSoon(): void {
    if (this.#nextLook !== undefined || this.#isLooking) return;
    this.#nextLook = setTimeout(() => {
      this.#nextLook = undefined;
      if (this.#wakeups.closed) return;
      this.#isLooking = true;
      void this.#look().then(() => {
        this.#isLooking = false;
        if (this.#listening.size > 0) this.#lookSoon();
      });
    }, SAFETY_POLL_MS);
    this.#nextLook.unref();
  }

  async #look(): Promise<void> {
    this.#dismiss();
    const awaited = new Map<Cell, Audience[]>();
    for (const audience of this.#seats.audiences()) {
      const cell = this.#cells.of(audience.executionId);
      const ofCell = awaited.get(cell);
      if (ofCell === undefined) awaited.set(cell, [audience]);
      else ofCell.push(audience);
    }
    // What is wrong with a cell, each tail's own look will tell.
    await askEach([...awaited.keys()], (cell) =>
      this.#lookAtAll(cell, awaited.get(cell)!),
    );
  }

  /** Channels that nobody waits for any more. */
  #dismiss(): void {
    for (const [executionId, listening] of this.#listening) {
      if (this.#seats.has(executionId)) continue;
      if (listening.isLeft) {
        this.#listening.delete(executionId);
        this.#wakeups.unwatch(listening.channel);
      } else listening.isLeft = true;
    }
  }

  async #lookAtAll(cell: Cell, audiences: readonly Audience[]): Promise<void> {
    for (let from = 0; from < audiences.length; from += STREAMS_PER_CALL) {
      const some = audiences.slice(from, from + STREAMS_PER_CALL);
      const [standings] = await cell.call(
        "stream_standings",
        ...some.flatMap(({ executionId, attempt }) => [
          refOf(executionId),
          attempt,
        ]),
      );
      const numbers = listOf(standings);
      for (const [index, audience] of some.entries()) {
        const [events, ms, n] = numbers.slice(3 * index, 3 * index + 3);
        this.#seats.compare(audience, standingOf(events!, ms!, n!));
      }
    }
  }
}
