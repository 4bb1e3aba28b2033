import {
  failureClassOf,
  isEngineError,
  isRefusal,
  storableText,
  type Args,
  type FailResult,
  type FailureClass,
  type HandlePayload,
  type Implementation,
  type OutcomeOperations,
  type OutcomeResult,
  type Refusal,
} from "@flowfabric/core";

import type { Cell } from "../cells.js";
import {
  listOf,
  optionalNumber,
  optionalValues,
  textOf,
  type Argument,
  type Reply,
} from "../connection.js";
import { isConnectionLost, settle, translateError } from "../errors.js";
import {
  claimedAgain,
  claimedOnce,
  claimValues,
  isRepeat,
} from "../procedures/claiming.js";
import { fenceValues } from "../procedures/fences.js";
import { patiently } from "../procedures/outages.js";
import { knownServingCells } from "../procedures/serving.js";
import { shareOut, type Share, type Shares } from "../procedures/shares.js";
import { toClaimedExecutions } from "../procedures/take.js";
import { refOf } from "../rows.js";
import type { Store } from "../store.js";
import { readHandle, targetValues } from "./leases.js";

export function outcomeOperations(
  store: Store,
): Implementation<OutcomeOperations> {
  const { cells } = store;
  return {
    async complete({ handle, payload }) {
      const own = settle(readHandle(handle));
      await cells
        .of(own.executionId)
        .call("end", ...itemValues({ own, payload }));
    },

    async fail({ handle, reason, classification }) {
      const own = settle(readHandle(handle));
      const failure = { reason, classification };
      const answer = await cells
        .of(own.executionId)
        .call("end", ...itemValues({ own, failure }));
      return toResult(answer) as FailResult;
    },

    async cancel({ handle, reason }) {
      const own = settle(readHandle(handle));
      await cells
        .of(own.executionId)
        .call(
          "cancel_own",
          refOf(own.executionId),
          ...fenceValues(own),
          reason,
        );
    },

    async delay({ handle, delayUntilMs }) {
      const own = settle(readHandle(handle));
      const [stands] = await cells
        .of(own.executionId)
        .call(
          "delay",
          refOf(own.executionId),
          ...fenceValues(own),
          delayUntilMs,
        );
      return { delayUntilMs: stands as number };
    },

    async progress({ handle, percent, message }) {
      const own = settle(readHandle(handle));
      await cells
        .of(own.executionId)
        .call(
          "progress",
          refOf(own.executionId),
          ...fenceValues(own),
          percent ?? "",
          ...optionalValues(message),
        );
    },

    async completeMany({ items }) {
      const { results } = await endMany(store, items, undefined);
      return results;
    },

    async completeAndClaim({ items, claim }) {
      const answer = await endMany(store, items, claim);
      // Under way, before whatever this process calls next; nobody waits for it.
      if (claim !== undefined) void store.driver.drive(store, claim);
      return answer;
    },

    async completeExecution(args) {
      await cells
        .of(args.executionId)
        .call(
          "complete_execution",
          ...targetValues(args),
          ...fenceValues(args.fence),
          args.source ?? "",
          ...optionalValues(args.resultPayload),
        );
      return {
        kind: "completed",
        executionId: args.executionId,
        publicState: "completed",
      };
    },

    async failExecution(args) {
      const [outcome, delayUntilMs, nextAttemptIndex] = await cells
        .of(args.executionId)
        .call(
          "fail_execution",
          ...targetValues(args),
          ...fenceValues(args.fence),
          args.source ?? "",
          args.failureReason,
          args.failureCategory,
          failureClassOf(args.failureCategory),
          Math.random(),
        );
      return textOf(outcome!) === "terminalFailed"
        ? { kind: "terminalFailed" }
        : {
            kind: "retryScheduled",
            delayUntilMs: delayUntilMs as number,
            nextAttemptIndex: nextAttemptIndex as number,
          };
    },
  };
}

type Item = Args<"completeAndClaim">["items"][number];

interface OwnedItem {
  readonly own: HandlePayload;
  readonly payload?: Uint8Array | undefined;
  readonly failure?:
    | {
        readonly reason: Args<"fail">["reason"];
        readonly classification: FailureClass;
      }
    | undefined;
}

interface EndedMany {
  results: OutcomeResult[];
  claimed: Awaited<ReturnType<typeof toClaimedExecutions>>;
  nextDueInMs?: number;
}

/**
 * One call for each cell that has one of these or may have the next; standalone that is one call. The claim rides with
 * the items of its own cell. Where a cell cannot be reached that is what its items are told.
 * @throws what a cell failed with, where none was reached
 */
async function endMany(
  store: Store,
  items: readonly Item[],
  claim: Args<"completeAndClaim">["claim"],
): Promise<EndedMany> {
  const results: OutcomeResult[] = [];
  const byCell = new Map<Cell, { place: number; item: OwnedItem }[]>();
  for (const [place, { handle, payload, failure }] of items.entries()) {
    const own = tryReadHandle(handle);
    if (isRefusal(own)) {
      results[place] = {
        kind: "rejected",
        code: own.refused.code,
        detail: own.refused.detail,
      };
      continue;
    }
    const cell = store.cells.of(own.executionId);
    const ofCell = byCell.get(cell) ?? [];
    byCell.set(cell, ofCell);
    ofCell.push({ place, item: { own, payload, failure } });
  }
  const { shares, nextDueInMs, inOrder, again } = await planClaim(store, claim);
  const concerned = [
    ...new Set([...byCell.keys(), ...shares.map(({ cell }) => cell)]),
  ];
  const failures: unknown[] = [];
  const answers = await Promise.all(
    concerned.map(async (cell): Promise<Taken> => {
      const ofCell = byCell.get(cell) ?? [];
      const share = shares.find((one) => one.cell === cell);
      const call = () => endInCell(cell, ofCell, share, claim);
      try {
        const { ended, ...taken } =
          share === undefined
            ? await patiently(cell, call, concerned.length > 1)
            : await call();
        for (const [index, { place }] of ofCell.entries())
          results[place] = toResult(listOf(ended[index]));
        return taken;
      } catch (error) {
        failures.push(error);
        const { code, detail } = translateError(error, "completeMany");
        for (const { place } of ofCell)
          results[place] = { kind: "rejected", code, detail };
        // The call will not be repeated as a whole, so that leases of a lost reply are asked for here.
        const isAskedFor =
          share !== undefined &&
          concerned.length > 1 &&
          isConnectionLost(error);
        return {
          claimed: isAskedFor ? await claimedOnce(cell, claim!) : [],
          dueInMs: Infinity,
        };
      }
    }),
  );
  const claimed = [
    ...again,
    ...inOrder(
      answers.flatMap((answer) => answer.claimed),
      ({ executionId }) => refOf(executionId),
    ),
  ];
  const isUnreached =
    failures.length > 0 && failures.length === concerned.length;
  if (isUnreached && claimed.length === 0) throw failures[0];
  const dueInMs = Math.min(
    nextDueInMs,
    ...answers.map((answer) => answer.dueInMs),
  );
  return dueInMs === Infinity ||
    again.length > 0 ||
    claimed.length === claim?.max
    ? { results, claimed }
    : { results, claimed, nextDueInMs: dueInMs };
}

interface Taken {
  readonly claimed: EndedMany["claimed"];
  readonly dueInMs: number;
}

async function endInCell(
  cell: Cell,
  ofCell: readonly { readonly item: OwnedItem }[],
  share: Share | undefined,
  claim: Args<"completeAndClaim">["claim"],
): Promise<Taken & { readonly ended: readonly Reply[] }> {
  const known = cell.routes.newest;
  const [ended, count, dueIn, taken] = await cell.numbered(async () =>
    cell.call(
      "end_and_claim",
      ofCell.length,
      ...ofCell.flatMap(({ item }) => itemValues(item)),
      ...(share === undefined ? [] : await claimValues(share, claim!)),
    ),
  );
  if (share === undefined)
    return { ended: listOf(ended), claimed: [], dueInMs: Infinity };
  await cell.routes.caughtUp(known, count);
  return {
    ended: listOf(ended),
    claimed: await toClaimedExecutions(cell, listOf(taken), claim!),
    dueInMs: optionalNumber(dueIn) ?? Infinity,
  };
}

/** Before the outcomes: what they schedule for a retry is not in it. */
async function planClaim(
  store: Store,
  claim: Args<"completeAndClaim">["claim"],
): Promise<Shares & { readonly again: EndedMany["claimed"] }> {
  if (claim === undefined) return { ...NOTHING, again: [] };
  const { cells } = await knownServingCells(store, claim);
  const again =
    cells.length > 1 && isRepeat(claim) ? await claimedAgain(cells, claim) : [];
  return again.length > 0
    ? { ...NOTHING, again }
    : { ...(await shareOut(cells, claim)), again };
}

const NOTHING: Shares = {
  shares: [],
  nextDueInMs: Infinity,
  reached: 0,
  inOrder: (claimed) => [...claimed],
};

/** As outcome_of in lua/functions/outcomes.lua reads it: ten arguments. */
function itemValues({ own, payload, failure }: OwnedItem): Argument[] {
  const target = [refOf(own.executionId), ...fenceValues(own)];
  if (failure === undefined)
    return ["c", ...target, ...optionalValues(payload), "", ""];
  const { reason, classification } = failure;
  const category =
    reason.detail === undefined || reason.detail.length === 0
      ? classification
      : storableText(Buffer.from(reason.detail).toString("utf8"));
  return [
    "f",
    ...target,
    reason.message,
    category,
    classification,
    Math.random(),
  ];
}

/** "1" and the value, or two empty ones: zero bytes are a value. */
function toResult(answer: readonly Reply[]): OutcomeResult {
  const kind = textOf(answer[0]!) as OutcomeResult["kind"];
  switch (kind) {
    case "retryScheduled":
      return { kind, delayUntilMs: answer[1] as number };
    case "rejected":
      return {
        kind,
        code: textOf(answer[1]!),
        detail: JSON.parse(textOf(answer[2]!)) as object,
      };
    default:
      return { kind };
  }
}

/** A bad handle is its item's own matter. */
function tryReadHandle(
  handle: Args<"complete">["handle"],
): HandlePayload | Refusal {
  try {
    return readHandle(handle);
  } catch (error) {
    if (isEngineError(error)) return { refused: error };
    throw error;
  }
}
