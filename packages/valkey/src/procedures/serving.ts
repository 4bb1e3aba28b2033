/** Which cells serve lanes: those that have a route of one of them, as far as this process knows or can find out. */
import type { Cell } from "../cells.js";
import type { Store } from "../store.js";
import { askEach } from "./outages.js";

interface Wanted {
  readonly lanes: readonly string[];
}

export interface Serving {
  readonly cells: readonly Cell[];
  /** How many could be asked, and why some could not be: they may serve these lanes. */
  readonly reached: number;
  readonly failure?: Error | undefined;
}

/** Cells that have a route of these lanes; standalone always the one there is. */
export async function servingCells(
  store: Store,
  wanted: Wanted,
  { mayRelyOnRings }: { readonly mayRelyOnRings: boolean },
): Promise<Serving> {
  const { all } = store.cells;
  if (all.length === 1) return { cells: all, reached: 0 };
  if (mayRelyOnRings && store.wakeups.hearsOfRoutes) {
    const serving = await knownServingCells(store, wanted);
    return { ...serving, reached: all.length - serving.cells.length };
  }
  const others = all.filter((cell) => !serves(cell, wanted));
  const { answers, failure } = await askEach(others, (cell) =>
    cell.routes.refresh(),
  );
  const { cells } = await knownServingCells(store, wanted);
  return { cells, reached: answers.length, failure };
}

function serves(cell: Cell, { lanes }: Wanted): boolean {
  return lanes.some((lane) => cell.routes.ofLane(lane).length > 0);
}

/** Of these, those of which this process has heard. */
export async function knownServingCells(
  store: Store,
  wanted: Wanted,
): Promise<Serving> {
  const { all } = store.cells;
  if (all.length === 1) return { cells: all, reached: 0 };
  const { answers, failure } = await askEach(
    all.filter(({ routes }) => !routes.areKnown),
    (cell) => cell.routes.refresh(),
  );
  const serving = all.filter((cell) => serves(cell, wanted));
  const from = turn++ % Math.max(1, serving.length);
  return {
    cells: [...serving.slice(from), ...serving.slice(0, from)],
    reached: answers.length,
    failure,
  };
}
let turn = 0;

/** @throws the failure where nothing was reached */
export function requireSome(reached: number, failure: Error): void {
  if (reached === 0) throw failure;
}
