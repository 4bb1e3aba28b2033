import {
  clampPriority,
  engineError,
  HOMES,
  invalidInput,
  isEngineError,
  type Args,
  type CreateExecutionResult,
  type ExecutionOperations,
  type Home,
  type Implementation,
  type Refusal,
  type SubmitManyResult,
} from "@flowfabric/core";

import type { Cell } from "../cells.js";
import { jsonOf, optionalValues, textOf } from "../connection.js";
import { settle, translateError } from "../errors.js";
import { fenceValues } from "../procedures/fences.js";
import { patiently, settleEach } from "../procedures/outages.js";
import { inCalls } from "../procedures/grouped-submissions.js";
import { amongCells, keyCell, submitOne } from "../procedures/keyed.js";
import {
  kindOf,
  restoreWhereNew,
  submissionValues,
  toSubmission,
  toSubmitted,
  type Submission,
} from "../procedures/submit.js";
import type { Store } from "../store.js";
import { targetValues } from "./leases.js";

export function executionOperations(
  store: Store,
): Implementation<ExecutionOperations> {
  const { cells } = store;
  return {
    async createExecution(args) {
      return settle(await submitOne(store, toSubmission(args)));
    },

    async submitMany(args) {
      return await submitBatch(store, args);
    },

    createExecutionInTransaction() {
      throw engineError("unavailable", { op: "transaction" });
    },

    async cancelExecution(args) {
      await cells
        .of(args.executionId)
        .call(
          "cancel",
          ...targetValues(args),
          args.reason,
          args.source,
          ...fenceValues(args.fence),
        );
      return {
        kind: "cancelled",
        executionId: args.executionId,
        publicState: "cancelled",
      };
    },

    async replayExecution(args) {
      const { reason, requestedBy, executionDeadlineAtMs: deadline } = args;
      const [home] = await cells
        .of(args.executionId)
        .call(
          "replay",
          ...targetValues(args),
          jsonOf({ reason, requestedBy, deadline }),
        );
      return { kind: "replayed", publicState: HOMES[home as Home].publicState };
    },

    async changePriority(args) {
      const newPriority = clampPriority(args.newPriority);
      const [oldPriority] = await cells
        .of(args.executionId)
        .call("change_priority", ...targetValues(args), newPriority);
      return {
        kind: "changed",
        executionId: args.executionId,
        oldPriority: oldPriority as number,
        newPriority,
      };
    },

    async holdExecution(args) {
      const [kind] = await cells
        .of(args.executionId)
        .call("hold", ...targetValues(args), ...optionalValues(args.reason));
      return { kind: textOf(kind!) as "held" | "alreadySatisfied" };
    },

    async unholdExecution(args) {
      const [kind] = await cells
        .of(args.executionId)
        .call("unhold", ...targetValues(args));
      return { kind: textOf(kind!) as "released" | "alreadySatisfied" };
    },
  };
}

/**
 * One call for each cell that any of them lies in. Where one cannot be reached, that is what its items are told.
 * @throws what a cell failed with, where none was reached, or where all items stand together
 */
async function submitBatch(
  store: Store,
  { items, atomicity }: Args<"submitMany">,
): Promise<SubmitManyResult[]> {
  const submissions = items.map((item) =>
    isEngineError(item) ? item : toSubmission(item),
  );
  const byCell = new Map<Cell, { place: number; submission: Submission }[]>();
  const alone: { place: number; submission: Submission }[] = [];
  for (const [place, submission] of submissions.entries()) {
    if (isEngineError(submission)) continue;
    const cell = store.cells.of(submission.args.executionId);
    if ((keyCell(store, submission) ?? cell) !== cell) {
      alone.push({ place, submission });
      continue;
    }
    const ofCell = byCell.get(cell) ?? [];
    byCell.set(cell, ofCell);
    ofCell.push({ place, submission });
  }
  const results: SubmitManyResult[] = [];
  const isRejected = submissions.some((one) => isEngineError(one));
  const mode = atomicity === "perItem" ? 0 : isRejected ? 2 : 1;
  // Items that stand for themselves go in several calls: the server begins with the first while the next is written.
  const calls = [...byCell].flatMap(([cell, ofCell]) => {
    const groups =
      atomicity === "perItem"
        ? inCalls(ofCell, ({ submission }) => submission)
        : [ofCell];
    return groups.map((group) => ({ cell, group }));
  });
  const { answers: reached, failure } = await settleEach(
    calls,
    async ({ cell, group }) => {
      const call = () =>
        cell.call(
          "submit_many",
          mode,
          ...submissionValues(
            group.map(({ submission }) => amongCells(store, submission)),
          ),
        );
      const answers = await patiently(cell, call, byCell.size > 1);
      await restoreWhereNew(cell, answers);
      for (const [index, one] of group.entries()) {
        const answer = answers[index]!;
        if (kindOf(answer) === "elsewhere") alone.push(one);
        else
          results[one.place] = toOutcome(toSubmitted(one.submission, answer));
      }
    },
  );
  if (
    failure !== undefined &&
    (atomicity === "allOrNothing" || reached.length + alone.length === 0)
  )
    throw failure;
  const isRefused = results.some((result) => result?.kind === "rejected");
  for (const { place, submission } of alone)
    results[place] =
      atomicity === "allOrNothing" && (isRejected || isRefused)
        ? rejected(BATCH_REJECTED)
        : toOutcome(
            await submitOne(store, submission).catch((error: unknown) => {
              if (atomicity === "allOrNothing") throw error;
              return { refused: translateError(error, "submitMany") };
            }),
          );
  for (const [place, submission] of submissions.entries())
    if (isEngineError(submission)) results[place] = rejected(submission);
    else
      results[place] ??= rejected(
        // Only of a cell that failed is nothing known.
        translateError(failure, "submitMany"),
      );
  return results;
}

function toOutcome(
  result: CreateExecutionResult | Partial<Refusal>,
): SubmitManyResult {
  return "kind" in result ? result : rejected(result.refused ?? BATCH_REJECTED);
}

const BATCH_REJECTED = invalidInput(
  "items",
  "batch_rejected: another item of this batch was rejected; nothing was written",
);

function rejected({ code, detail }: { code: string; detail: object }) {
  return { kind: "rejected", code, detail } as SubmitManyResult;
}
