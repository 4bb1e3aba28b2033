/**
 * Where a busy process begins to look. Whoever drains a queue leaves dead index entries behind, and while any transaction
 * anywhere stays open nobody can clear them: each claim would pass over all of them again. So a process that claims in
 * quick succession begins where its last claim found something. What comes to stand before that (urgent work, a change
 * that was rolled back) is seen when the floors are dropped, half a second later, or at once where this process made it.
 */
export interface Floor {
  /** Nothing to be had before this score. */
  readonly readyFrom: number;
  /** Nothing fell due before this instant that is not seen to. */
  readonly dueFrom: number;
}

const KEPT_MS = 500;
/** Fewer claims than this in one span pass over few dead entries. */
const CLAIMS_MIN = 16;
const NO_FLOOR: Floor = {
  readyFrom: Number.MIN_SAFE_INTEGER,
  dueFrom: Number.MIN_SAFE_INTEGER,
};

export class Floors {
  readonly #floors = new Map<number, Floor>();
  #claims = 0;
  #dropAtMs = 0;

  of(route: number): Floor {
    if (performance.now() >= this.#dropAtMs) {
      this.drop();
      this.#claims = 0;
      this.#dropAtMs = performance.now() + KEPT_MS;
    }
    return this.#floors.get(route) ?? NO_FLOOR;
  }

  /** Before anything that may put work in front. */
  drop(): void {
    this.#floors.clear();
  }

  /**
   * @param stoodAt by route, the lowest score that this claim took of ready work
   * @param nothingDueAtMs where the claim saw that, its instant
   */
  noteClaim(
    routes: readonly number[],
    stoodAt: ReadonlyMap<number, number>,
    nothingDueAtMs: number | undefined,
  ): void {
    if (++this.#claims < CLAIMS_MIN) return;
    for (const route of routes) {
      const { readyFrom, dueFrom } = this.#floors.get(route) ?? NO_FLOOR;
      this.#floors.set(route, {
        readyFrom: stoodAt.get(route) ?? readyFrom,
        dueFrom: nothingDueAtMs ?? dueFrom,
      });
    }
  }
}
