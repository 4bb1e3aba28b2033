/** Claims that wait: they try, park until something may have changed, and drive the engine meanwhile. */
import { PORTION_INTERVAL_MS, SAFETY_POLL_MS } from "@flowfabric/core";
import type { Presence } from "@flowfabric/core/records";

import { optionalNumber } from "../connection.js";
import type { Store } from "../store.js";
import type { Ticket } from "../wakeups.js";
import { askEach } from "./outages.js";
import { routesJson } from "./routes.js";
import { requireSome, servingCells } from "./serving.js";

/** What one try brought from the cells that could be asked. */
export interface Attempt<Answer> {
  readonly answer: Answer;
  /** Why a cell could not be asked; absent where all could. */
  readonly failure?: Error | undefined;
}

interface Parking<Answer> {
  readonly attempt: () => Promise<Attempt<Answer>>;
  readonly isEmpty: (answer: Answer) => boolean;
  /** When something falls due, where an empty answer tells. */
  readonly dueInMs?: (answer: Answer) => number;
}

/**
 * Tries, and while there is nothing waits for a ring, for the next instant at which something falls due, or for the end
 * of the wait; beside that it drives the engine. A ring leads to a look, or where work is ready to a try. Nothing is answered only where all cells
 * were asked: what could not be is tried again until the end of the wait, and then its failure is the answer.
 */
export async function parked<Answer>(
  store: Store,
  presence: Presence,
  maxWaitMs: number,
  signal: AbortSignal | undefined,
  { attempt, isEmpty, dueInMs }: Parking<Answer>,
): Promise<Answer> {
  if (maxWaitMs > 0) store.wakeups.requireOpen();
  const endsAtMs = performance.now() + maxWaitMs;
  for (;;) {
    const ticket = store.wakeups.ticket({ lanes: presence.lanes });
    const { answer, failure } = await attempt();
    const driving = store.driver.drive(store, presence);
    // It is under way, before whatever this process calls next; what was claimed need not wait for it.
    if (!isEmpty(answer)) return answer;
    const hasDriven = await driving;
    // An attempt and a portion have just seen all that a look would see.
    const known =
      hasDriven && dueInMs !== undefined && failure === undefined
        ? { found: false, dueInMs: dueInMs(answer), timerInMs: Infinity }
        : undefined;
    if (
      !(await somethingFound(store, presence, {
        ticket,
        known,
        endsAtMs,
        signal,
      }))
    ) {
      if (failure !== undefined && signal?.aborted !== true) throw failure;
      return answer;
    }
  }
}

interface Look {
  readonly found: boolean;
  readonly dueInMs: number;
  readonly timerInMs: number;
}

interface Wait {
  readonly ticket: Ticket;
  /** What the first look would find. */
  readonly known: Look | undefined;
  readonly endsAtMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Waits until a claim may find something; false when the wait is over. */
async function somethingFound(
  store: Store,
  presence: Presence,
  { ticket, known, endsAtMs, signal }: Wait,
): Promise<boolean> {
  for (let seen = ticket; ; seen = store.wakeups.ticket(seen.interest)) {
    const leftMs = endsAtMs - performance.now();
    // A timer may end a little early; no look is worth that little.
    if (leftMs < 1 || signal?.aborted === true || store.wakeups.closed)
      return false;
    const { found, dueInMs, timerInMs } =
      known !== undefined && seen === ticket
        ? known
        : await look(store, presence);
    if (found) return true;
    // Rings may lead to looks until it is over, and those name what is still to come; not all that is due is a claim's to end.
    store.driver.dueIn(dueInMs);
    if (store.driver.nextInMs === 0) return true;
    const dueMs = Math.min(
      dueInMs,
      // One that is due already is the driver's, as soon as it surely may run.
      timerInMs === 0 ? PORTION_INTERVAL_MS : timerInMs,
      store.driver.nextInMs,
    );
    await store.wakeups.wait(
      seen,
      Math.max(1, Math.min(leftMs, dueMs)),
      signal,
    );
    // Told of work that is ready: a claim is the look, and seldom in vain.
    if (store.wakeups.hasReadyWork(seen)) return true;
    // Not rung: something fell due, or the wait is over. A claim and a portion see to the one, the loop to the other.
    if (dueMs < leftMs && store.wakeups.isCurrent(seen)) return true;
  }
}

/**
 * Over all cells of these lanes: is there something, and when will there be?
 * @throws what a cell failed with, where none could be asked
 */
async function look(store: Store, presence: Presence): Promise<Look> {
  const offered = new Set(presence.capabilities);
  const serving = await servingCells(store, presence, {
    mayRelyOnRings: true,
  });
  const { answers: looks, failure = serving.failure } = await askEach(
    serving.cells,
    async (cell) => {
      const known = cell.routes.newest;
      const [count, found, dueIn, timerIn] = await cell.numbered(() => {
        const routes = presence.lanes.flatMap((lane) =>
          cell.routes.serveable(lane, offered, presence.namespace),
        );
        return cell.call("look", routesJson(routes), cell.routes.mark);
      });
      const isNews = await cell.routes.caughtUp(known, count);
      return {
        found: found === 1 || isNews,
        dueInMs: optionalNumber(dueIn) ?? Infinity,
        timerInMs: optionalNumber(timerIn) ?? Infinity,
      };
    },
  );
  if (failure !== undefined)
    requireSome(looks.length + serving.reached, failure);
  return {
    found: looks.some(({ found }) => found),
    dueInMs: Math.min(
      failure === undefined ? Infinity : SAFETY_POLL_MS,
      ...looks.map(({ dueInMs }) => dueInMs),
    ),
    timerInMs: Math.min(Infinity, ...looks.map(({ timerInMs }) => timerInMs)),
  };
}
