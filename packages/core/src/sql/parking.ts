/** Claims that wait on SQL stores: they try, park until something may have changed, and drive the engine meanwhile. */
import type { Presence } from "../records/workers.js";

/** What a look at the lanes of a claim finds. */
export interface Look {
  /** There is something that a claim could take now. */
  readonly found: boolean;
  /** Until something in these lanes falls due. */
  readonly dueInMs: number;
  /** Until the next timer anywhere in the store; 0: one is due already. */
  readonly timerInMs: number;
}

/** The parts of a store that waiting takes. */
export interface ParkingStore<Ticket> {
  readonly wakeups: {
    readonly closed: boolean;
    /** @throws EngineError `unavailable` */
    requireOpen(): void;
    ticket(interest: { readonly lanes: readonly string[] }): Ticket;
    isCurrent(ticket: Ticket): boolean;
  };
  /**
   * Until a ring after the ticket, or the end of the time.
   * @returns whether this very wait was rung for work that is there now, where a look costs so much that it is told
   */
  wait(
    ticket: Ticket,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<boolean | void>;
  /** Runs a portion where one is allowed now; never rejects. @returns in how many milliseconds another is worth while, if sooner than a timer */
  drive(): Promise<number | undefined>;
  /** Takes no lock. */
  look(): Promise<Look>;
}

export interface Parking<Answer> {
  readonly attempt: () => Promise<Answer>;
  readonly isEmpty: (answer: Answer) => boolean;
  /** When something falls due, where an empty answer tells. */
  readonly dueInMs?: (answer: Answer) => number;
}

/**
 * Tries, and while there is nothing waits for a ring, for the next instant at which something falls due, or for the end
 * of the wait; beside that it drives the engine. A ring only leads to a look, unless it says that there is work. Whoever
 * may wait has its answer before the portion beside it; others count on what has been driven by then.
 */
export async function parked<Answer, Ticket>(
  store: ParkingStore<Ticket>,
  { lanes }: Pick<Presence, "lanes">,
  maxWaitMs: number,
  signal: AbortSignal | undefined,
  { attempt, isEmpty, dueInMs }: Parking<Answer>,
): Promise<Answer> {
  if (maxWaitMs > 0) store.wakeups.requireOpen();
  const endsAtMs = performance.now() + maxWaitMs;
  for (;;) {
    const ticket = store.wakeups.ticket({ lanes });
    const askedAtMs = performance.now();
    const answer = await attempt();
    const driven = store.drive();
    if (maxWaitMs > 0 && !isEmpty(answer)) return answer;
    const driveAgainMs = (await driven) ?? Infinity;
    if (!isEmpty(answer)) return answer;
    const dueAtMs = askedAtMs + (dueInMs?.(answer) ?? Infinity);
    const wait = { lanes, ticket, dueAtMs, driveAgainMs, endsAtMs, signal };
    if (!(await somethingFound(store, wait))) return answer;
  }
}

/** By the process's own clock. */
interface Wait<Ticket> {
  readonly lanes: readonly string[];
  readonly ticket: Ticket;
  /** When something falls due, by the attempt before. */
  readonly dueAtMs: number;
  readonly driveAgainMs: number;
  readonly endsAtMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Waits until a claim may find something; false when the wait is over. */
async function somethingFound<Ticket>(
  store: ParkingStore<Ticket>,
  { lanes, ticket, driveAgainMs, endsAtMs, signal, ...wait }: Wait<Ticket>,
): Promise<boolean> {
  const { wakeups } = store;
  const driveAgainAtMs = performance.now() + driveAgainMs;
  /** By the latest look. */
  let { dueAtMs } = wait;
  for (let seen = ticket; ; seen = wakeups.ticket({ lanes })) {
    const lookedAtMs = performance.now();
    const leftMs = endsAtMs - lookedAtMs;
    if (leftMs <= 0 || signal?.aborted === true || wakeups.closed) return false;
    const { found, dueInMs, timerInMs } = await store.look();
    if (found) return true;
    // It fell due since the attempt, or while rings led to looks. They name what is still to come, and not all that is due is
    // a claim's to end.
    if (performance.now() >= dueAtMs) return true;
    // A timer is due already: the driver has to run, as soon as it may.
    if (timerInMs === 0 && driveAgainMs === Infinity) return true;
    const dueMs = Math.min(
      dueInMs,
      timerInMs === 0 ? Infinity : timerInMs,
      driveAgainAtMs - lookedAtMs,
    );
    dueAtMs = lookedAtMs + dueMs;
    const waitMs = Math.max(1, Math.min(leftMs, dueMs));
    if ((await store.wait(seen, waitMs, signal)) === true) return true;
    // Not rung: something fell due, or the wait is over. A claim and a portion see to the one, the loop to the other.
    if (dueMs < leftMs && wakeups.isCurrent(seen)) return true;
  }
}
