/**
 * The engine drives itself: beside claims, a process runs at most one bounded portion of due maintenance every
 * 250 ms. No other process is needed for progress, and any number of them changes nothing (00 §2, D36).
 */
import { PORTION_INTERVAL_MS } from "@flowfabric/core";
import type { Presence } from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { fireTimers, PORTIONS } from "./portions.js";
import { Heartbeats } from "./registry.js";

const EFFECTS_PER_STEP = 100;
/** A promotion is cheap, and order is exact only among what has been promoted: ten times as many. */
const PROMOTIONS_PER_STEP = 1_000;
/** Stores with more routes than this are gone through in turns. */
const ROUTES_PER_PORTION = 64;

export class Driver {
  readonly heartbeats = new Heartbeats();
  /** Where the reconciler's next page begins. */
  readonly reconcileCursor = { seq: 0 };
  #lastPortionMs = -PORTION_INTERVAL_MS;
  #routeCursor = 0;

  /**
   * Runs a portion where one is allowed now.
   * @returns in how many milliseconds another look is worth while, where sooner than something falls due
   */
  async drive(store: Store, presence: Presence): Promise<number | undefined> {
    const sinceMs = performance.now() - this.#lastPortionMs;
    if (sinceMs < PORTION_INTERVAL_MS) return PORTION_INTERVAL_MS - sinceMs;
    this.#lastPortionMs = performance.now();
    try {
      const more = await store.db.write(
        async (tx) => await this.#portion(store, tx, presence),
      );
      return more ? PORTION_INTERVAL_MS : undefined;
    } catch {
      // The claim beside it has been committed, and its answer must not get lost. The next portion tries again; a
      // sweep says what is wrong.
      return PORTION_INTERVAL_MS;
    }
  }

  async #portion(
    store: Store,
    tx: Session,
    presence: Presence,
  ): Promise<boolean> {
    const nowMs = tx.now();
    const portion = {
      store,
      tx,
      routes: this.#nextRoutes(store),
      nowMs,
      limit: EFFECTS_PER_STEP,
    };
    if (this.heartbeats.isDue(presence, nowMs))
      await this.heartbeats.write(store, tx, presence, nowMs);
    const effects = [
      await fireTimers(portion),
      await PORTIONS.lease_expiry(portion),
      await PORTIONS.reclaim_driver(portion),
      await PORTIONS.delayed_promoter({
        ...portion,
        limit: PROMOTIONS_PER_STEP,
      }),
      await PORTIONS.unblock(portion),
      await PORTIONS.pending_wp_expiry(portion),
    ];
    return effects.some((count) => count >= EFFECTS_PER_STEP);
  }

  #nextRoutes(store: Store) {
    const all = store.routes.all();
    if (all.length <= ROUTES_PER_PORTION) return all;
    const from = this.#routeCursor % all.length;
    this.#routeCursor = from + ROUTES_PER_PORTION;
    return [...all.slice(from), ...all.slice(0, from)].slice(
      0,
      ROUTES_PER_PORTION,
    );
  }
}
