/**
 * A claim over several cells. Each is asked what it has, and the claim is shared out so that every lane keeps its one
 * order and lanes are served in turn. Where one cell serves all lanes, as standalone always, it has the whole claim and
 * nobody is asked first.
 */
import { inTurn, type Args } from "@flowfabric/core";

import type { Cell } from "../cells.js";
import { listOf, optionalNumber } from "../connection.js";
import { askEach } from "./outages.js";

type ClaimArgs = Args<"claimMany">;

/** What one cell is to claim. */
export interface Share {
  readonly cell: Cell;
  readonly max: number;
  /** How many of each lane; absent where the cell decides. */
  readonly quotas?: readonly number[];
}

export interface Shares {
  readonly shares: readonly Share[];
  /** When something falls due in a cell that has no share. */
  readonly nextDueInMs: number;
  /** How many cells were asked first, and why some could not be. */
  readonly reached: number;
  readonly failure?: Error | undefined;
  /** Puts what the shares brought into the order of the whole. */
  inOrder<Claimed>(
    this: void,
    claimed: readonly Claimed[],
    refOf: (one: Claimed) => Buffer,
  ): Claimed[];
}

interface Candidate {
  readonly cell: Cell;
  readonly lane: number;
  readonly sortKey: number;
  readonly ref: Buffer;
}

export async function shareOut(
  cells: readonly Cell[],
  args: ClaimArgs,
): Promise<Shares> {
  const [only] = cells;
  if (cells.length <= 1)
    return {
      shares: only === undefined ? [] : [{ cell: only, max: args.max }],
      nextDueInMs: Infinity,
      reached: 0,
      inOrder: (claimed) => [...claimed],
    };
  const { answers: peeks, failure } = await askEach(cells, (cell) =>
    peek(cell, args),
  );
  const lanes = args.lanes.map((_lane, lane) =>
    peeks.flatMap(({ found }) => found[lane] ?? []).sort(byClaimOrder),
  );
  const chosen = inTurn(lanes).slice(0, args.max);
  const shares = cells.flatMap((cell): Share[] => {
    const own = chosen.filter((candidate) => candidate.cell === cell);
    if (own.length === 0) return [];
    const quotas = args.lanes.map(
      (_lane, lane) =>
        own.filter((candidate) => candidate.lane === lane).length,
    );
    return [{ cell, max: own.length, quotas }];
  });
  const place = new Map(
    chosen.map(({ ref }, index) => [ref.toString("latin1"), index]),
  );
  return {
    shares,
    nextDueInMs: Math.min(
      Infinity,
      ...peeks.map(({ nextDueInMs }) => nextDueInMs),
    ),
    reached: peeks.length,
    failure,
    inOrder: (claimed, refOf) => {
      const placeOf = (one: (typeof claimed)[number]) =>
        place.get(refOf(one).toString("latin1")) ?? Infinity;
      return [...claimed].sort((a, b) => placeOf(a) - placeOf(b));
    },
  };
}

async function peek(
  cell: Cell,
  args: ClaimArgs,
): Promise<{ found: Candidate[][]; nextDueInMs: number }> {
  const ask = () =>
    cell.numbered(() =>
      cell.call("peek", servedRoutes(cell, args), args.max, cell.routes.mark),
    );
  const known = cell.routes.newest;
  let [count, dueIn, lists] = await ask();
  // Routes that another process has made since.
  if (await cell.routes.caughtUp(known, count))
    [count, dueIn, lists] = await ask();
  const found = listOf(lists).map((list, lane) => {
    const values = listOf(list);
    return Array.from({ length: values.length / 2 }, (_unused, index) => ({
      cell,
      lane,
      sortKey: values[2 * index] as number,
      ref: values[2 * index + 1] as Buffer,
    }));
  });
  return { found, nextDueInMs: optionalNumber(dueIn) ?? Infinity };
}

/** Of each lane the routes that this worker can serve, as JSON. */
export function servedRoutes(
  cell: Cell,
  { lanes, capabilities, namespace }: ClaimArgs,
): string {
  const offered = new Set(capabilities);
  return JSON.stringify(
    lanes.map((lane) =>
      cell.routes.serveable(lane, offered, namespace).map(({ id }) => id),
    ),
  );
}

function byClaimOrder(a: Candidate, b: Candidate): number {
  return a.sortKey - b.sortKey || Buffer.compare(a.ref, b.ref);
}
