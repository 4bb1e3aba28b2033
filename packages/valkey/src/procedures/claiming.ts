/** One try of a claim over all cells that serve its lanes, and what a lost reply costs: nothing. */
import {
  type Args,
  type ClaimedExecution,
  type ClaimManyResult,
} from "@flowfabric/core";
import { newUuidBytes } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import { listOf, optionalNumber, type Argument } from "../connection.js";
import { isConnectionLost } from "../errors.js";
import { refOf } from "../rows.js";
import type { Store } from "../store.js";
import { askEach, settleEach } from "./outages.js";
import type { Attempt } from "./parking.js";
import { knownServingCells, requireSome, servingCells } from "./serving.js";
import { servedRoutes, shareOut, type Share } from "./shares.js";
import { toClaimedExecutions } from "./take.js";

type ClaimArgs = Args<"claimMany">;

/**
 * Once from the cells that this process knows to serve these lanes; where that was too little, from all that do.
 * @throws what a cell failed with, where none could be asked
 */
export async function claimNow(
  store: Store,
  args: ClaimArgs,
): Promise<Attempt<ClaimManyResult>> {
  const known = await knownServingCells(store, args);
  const first = await claimFromAll(known.cells, args);
  const { claimed } = first.answer;
  if (claimed.length === args.max) return first;
  const serving = await servingCells(store, args, {
    // What comes to be while it waits is told.
    mayRelyOnRings: (args.maxWaitMs ?? 0) > 0,
  });
  const failure = first.failure ?? serving.failure;
  if (claimed.length === 0 && failure !== undefined)
    requireSome(first.reached + serving.reached, failure);
  if (serving.cells.length === known.cells.length)
    return { answer: first.answer, failure };
  const second = await claimFromAll(serving.cells, args, claimed);
  return { ...second, failure: second.failure ?? failure };
}

/** What was claimed anywhere is answered, whatever other cells failed with. */
async function claimFromAll(
  cells: readonly Cell[],
  args: ClaimArgs,
  earlier: readonly ClaimedExecution[] = [],
): Promise<Attempt<ClaimManyResult> & { readonly reached: number }> {
  if (cells.length > 1 && isRepeat(args)) {
    const again = await claimedAgain(cells, args);
    if (again.length > 0)
      return { answer: { claimed: again }, reached: cells.length };
  }
  const wanted = { ...args, max: args.max - earlier.length };
  const plan = await shareOut(cells, wanted);
  const { answers, failure } = await settleEach(plan.shares, (share) =>
    plan.shares.length + earlier.length > 1
      ? claimShareOfSeveral(share, wanted)
      : claimShare(share, wanted),
  );
  const claimed = [
    ...earlier,
    ...plan.inOrder(
      answers.flatMap((answer) => answer.claimed),
      ({ executionId }) => refOf(executionId),
    ),
  ];
  const dueInMs = Math.min(
    plan.nextDueInMs,
    ...answers.map((answer) => answer.nextDueInMs ?? Infinity),
  );
  return {
    answer:
      claimed.length === args.max || dueInMs === Infinity
        ? { claimed }
        : { claimed, nextDueInMs: dueInMs },
    failure: plan.failure ?? failure,
    reached: plan.reached + answers.length,
  };
}

/**
 * What others brought is delivered, and so nobody repeats the call as a whole: where the reply to this one got lost and the
 * request has a name, its leases are asked for by that.
 */
async function claimShareOfSeveral(
  share: Share,
  args: ClaimArgs,
): Promise<ClaimManyResult> {
  try {
    return await claimShare(share, args);
  } catch (error) {
    if (!isConnectionLost(error)) throw error;
    const claimed = await claimedOnce(share.cell, args);
    if (claimed.length === 0) throw error;
    return { claimed };
  }
}

/** Two tries at most: the second with the routes that another process has made since. */
async function claimShare(
  share: Share,
  args: ClaimArgs,
): Promise<ClaimManyResult> {
  const { cell } = share;
  for (let tries = 1; ; tries++) {
    const known = cell.routes.newest;
    const answer = await cell.numbered(async () =>
      cell.call("claim", ...(await claimValues(share, args))),
    );
    const [, dueIn, claims] = answer;
    const isNews = await cell.routes.caughtUp(known, answer[0]);
    const claimed = await toClaimedExecutions(cell, listOf(claims), args);
    if (claimed.length === 0 && isNews && tries === 1) continue;
    const nextDueInMs = optionalNumber(dueIn);
    return nextDueInMs === undefined ? { claimed } : { claimed, nextDueInMs };
  }
}

/** Of several cells: the leases that an earlier call of this request took and that still run. Nothing new is claimed. */
export async function claimedAgain(
  cells: readonly Cell[],
  args: ClaimArgs,
): Promise<ClaimedExecution[]> {
  const { answers } = await askEach(cells, (cell) => askAgain(cell, args));
  return answers.flatMap(({ claimed }) => claimed);
}

/** The same of one cell, whose reply to this very call was lost. */
export async function claimedOnce(
  cell: Cell,
  args: ClaimArgs,
): Promise<ClaimedExecution[]> {
  return await claimedAgain([cell], { ...args, repeat: true });
}

async function askAgain(cell: Cell, args: ClaimArgs): Promise<ClaimManyResult> {
  if (!isRepeat(args)) return { claimed: [] };
  const quotas = args.lanes.map(() => 0);
  return await claimShare({ cell, max: 0, quotas }, args);
}

/** As operation.read_claim in lua/functions/claims.lua reads them. */
export async function claimValues(
  { cell, max, quotas }: Share,
  args: ClaimArgs,
): Promise<Argument[]> {
  const holder = await cell.holders.ensure(args);
  return [
    servedRoutes(cell, args),
    max,
    args.leaseTtlMs,
    Math.floor((args.leaseTtlMs * 2) / 3),
    holder.id,
    args.requestId ?? "",
    // A lease and an attempt for each that may be claimed.
    newUuidBytes(2 * max),
    isRepeat(args)
      ? JSON.stringify(
          args.lanes.map((lane) =>
            cell.routes.ofLane(lane).map(({ id }) => id),
          ),
        )
      : "",
    quotas === undefined ? "" : JSON.stringify(quotas),
    `${cell.routes.mark} ${holder.mark}`,
  ];
}

export function isRepeat({ repeat, requestId }: ClaimArgs): boolean {
  return repeat && requestId !== undefined;
}
