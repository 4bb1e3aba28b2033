/**
 * Tails that wait, each for its own stream: an append or an end wakes those of that stream and nobody else. A parked tail
 * is an entry in memory; it holds no connection and no lock, and writers do not notice it.
 */
import { onAbort } from "./aborts.js";
import { engineError } from "./errors.js";
import type { ExecutionId } from "./ids.js";
import type { Args } from "./operations/inputs-by-operation.js";
import type { StreamFrames, TailVisibility } from "./streams.js";

/** Woken tails read at most this many per turn of the event loop, so that others have their turn between. */
const WOKEN_PER_TURN = 64;
const RETRY_AFTER_MS = 1_000;

/** What a look at a stream finds. */
export interface StreamPage {
  readonly page: StreamFrames;
  /** When the lease runs out that keeps the stream open, in milliseconds from now. */
  readonly lapsesInMs: number | undefined;
}

/** All tails of one stream. */
export interface Audience {
  readonly executionId: ExecutionId;
  readonly attempt: number;
  readonly seats: ReadonlySet<Seat>;
}

/** The place of one parked tail, for as long as its call lasts. */
export class Seat {
  readonly visibility: TailVisibility;
  readonly #leave: () => void;
  #rung = false;
  #wake: (() => void) | undefined;

  constructor(visibility: TailVisibility, leave: (seat: Seat) => void) {
    this.visibility = visibility;
    this.#leave = () => leave(this);
  }

  /** Call it before looking: what rings from here on ends the next {@link wait}. */
  listen(): void {
    this.#rung = false;
  }

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Ends at a ring, after `timeoutMs`, or on abort. */
  async wait(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#rung || signal?.aborted === true) return;
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        unlink();
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(wake, timeoutMs);
      const unlink = onAbort(signal, wake);
      this.#wake = wake;
    });
  }

  leave(): void {
    this.#leave();
  }
}

/** All tails of a process, by execution and attempt. Who rings from outside is the store's to see to. */
export class Seats {
  readonly #max: number;
  readonly #audiences = new Map<ExecutionId, Map<number, OwnAudience>>();
  #count = 0;
  /** How many more this turn of the event loop may wake; those beyond wait in line. */
  #wakesLeft = WOKEN_PER_TURN;
  readonly #inLine = new Set<Seat>();
  #turnScheduled = false;
  readonly #watch: SeatsWatch;

  constructor(max: number, watch: SeatsWatch = {}) {
    this.#max = max;
    this.#watch = watch;
  }

  /** @throws EngineError `resource_exhausted` where too many are parked */
  take(
    executionId: ExecutionId,
    attempt: number,
    visibility: TailVisibility,
  ): Seat {
    if (this.#count >= this.#max)
      throw engineError("resource_exhausted", {
        pool: "stream_ops",
        max: this.#max,
        retryAfterMs: RETRY_AFTER_MS,
      });
    const audience = this.#audienceOf(executionId, attempt);
    const seat = new Seat(visibility, (left) => this.#leave(audience, left));
    audience.seats.add(seat);
    if (++this.#count === 1) this.#watch.onFirst?.();
    return seat;
  }

  get areEmpty(): boolean {
    return this.#count === 0;
  }

  /** Frames were appended; `seen` tells whose eyes can see them. */
  ringAppended(
    executionId: ExecutionId,
    attempt: number,
    seen: (visibility: TailVisibility) => boolean,
  ): void {
    const audience = this.#audiences.get(executionId)?.get(attempt);
    for (const seat of audience?.seats ?? [])
      if (seen(seat.visibility)) this.#wake(seat);
  }

  /** Something of this execution's streams may have changed. */
  ringExecution(
    executionId: ExecutionId,
    seen: (visibility: TailVisibility) => boolean = () => true,
  ): void {
    for (const { seats } of this.#audiences.get(executionId)?.values() ?? [])
      for (const seat of seats) if (seen(seat.visibility)) this.#wake(seat);
  }

  /** A tail has looked, and found its stream like that: whatever changes what a tail would be answered changes this. */
  noteSeen(executionId: ExecutionId, attempt: number, standing: string): void {
    const audience = this.#audiences.get(executionId)?.get(attempt);
    if (audience !== undefined) audience.seen ??= standing;
  }

  /** A stream stands like this now: where that is not what was seen, it is news. */
  compare(
    { executionId, attempt }: Pick<Audience, "executionId" | "attempt">,
    standing: string,
  ): void {
    const audience = this.#audiences.get(executionId)?.get(attempt);
    if (audience === undefined || audience.seen === standing) return;
    audience.seen = standing;
    this.#ringStream(audience);
  }

  has(executionId: ExecutionId): boolean {
    return this.#audiences.has(executionId);
  }

  audiences(): Audience[] {
    return [...this.#audiences.values()].flatMap((attempts) => [
      ...attempts.values(),
    ]);
  }

  /** Each then finds the store closed. */
  ringAll(): void {
    for (const audience of this.audiences()) this.#ringStream(audience);
  }

  #ringStream({ seats }: Audience): void {
    for (const seat of seats) this.#wake(seat);
  }

  #audienceOf(executionId: ExecutionId, attempt: number): OwnAudience {
    let attempts = this.#audiences.get(executionId);
    if (attempts === undefined) {
      attempts = new Map();
      this.#audiences.set(executionId, attempts);
    }
    let audience = attempts.get(attempt);
    if (audience === undefined) {
      audience = { executionId, attempt, seats: new Set(), seen: undefined };
      attempts.set(attempt, audience);
    }
    return audience;
  }

  #leave({ executionId, attempt, seats }: OwnAudience, seat: Seat): void {
    seats.delete(seat);
    this.#inLine.delete(seat);
    if (--this.#count === 0) this.#watch.onNone?.();
    if (seats.size > 0) return;
    const attempts = this.#audiences.get(executionId)!;
    attempts.delete(attempt);
    if (attempts.size === 0) this.#audiences.delete(executionId);
  }

  #wake(seat: Seat): void {
    this.#inLine.add(seat);
    this.#wakeInLine();
  }

  #wakeInLine(): void {
    for (const seat of this.#inLine) {
      if (this.#wakesLeft === 0) break;
      this.#inLine.delete(seat);
      this.#wakesLeft--;
      seat.ring();
    }
    if (this.#turnScheduled) return;
    this.#turnScheduled = true;
    setImmediate(() => {
      this.#turnScheduled = false;
      this.#wakesLeft = WOKEN_PER_TURN;
      if (this.#inLine.size > 0) this.#wakeInLine();
    });
  }
}

/** Told when the first seat is taken, and when the last one is left. */
export interface SeatsWatch {
  readonly onFirst?: () => void;
  readonly onNone?: () => void;
}

interface OwnAudience extends Audience {
  readonly seats: Set<Seat>;
  /** How the stream stood at the first look of those here, or when it last had news for them. */
  seen: string | undefined;
}

/** What a store gives to {@link tailFrames}. */
export interface TailedStore {
  readonly look: () => Promise<StreamPage>;
  readonly takeSeat: () => Seat;
  /** Lets other processes know that somebody waits. @returns whether another look is needed before waiting */
  readonly announce?: () => boolean | Promise<boolean>;
  readonly isClosed: () => boolean;
}

/** Looks, and where there is nothing yet waits for rings between looks. The seat is taken first: no ring is missed. */
export async function tailFrames(
  { blockMs, signal }: Args<"tailStream">,
  store: TailedStore,
): Promise<StreamFrames> {
  if (blockMs === 0) return (await store.look()).page;
  const endsAtMs = performance.now() + blockMs;
  const seat = store.takeSeat();
  try {
    for (;;) {
      seat.listen();
      const { page, lapsesInMs } = await store.look();
      if (page.frames.length > 0 || page.closedAtMs !== undefined) return page;
      if (await store.announce?.()) continue;
      const leftMs = endsAtMs - performance.now();
      if (leftMs <= 0 || signal?.aborted === true) return page;
      await seat.wait(Math.min(leftMs, lapsesInMs ?? leftMs), signal);
      if (store.isClosed()) return page;
    }
  } finally {
    seat.leave();
  }
}
