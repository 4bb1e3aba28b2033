/** Submissions of one process that are under way at the same time leave together: one call costs hardly more than one of them. */
import { Grouped, inGroups } from "@flowfabric/core";

import type { Cell } from "../cells.js";
import type { Reply } from "../connection.js";
import { submissionValues, type Submission } from "./submit.js";

/** Of one call; the server does nothing else meanwhile. */
const LIMITS = { itemsMax: 50, bytesMax: 1_048_576 };

export class GroupedSubmissions {
  readonly #cell: Cell;
  readonly #grouped: Grouped<Submission, Reply>;

  constructor(cell: Cell) {
    this.#cell = cell;
    this.#grouped = new Grouped(
      (submissions) =>
        cell.call("submit_many", 0, ...submissionValues(submissions)),
      { ...LIMITS, isDealtOut: true },
    );
  }

  /** @returns as submit_many in lua/functions/executions.lua answers for each */
  submit(submission: Submission): Promise<Reply> {
    return this.#cell.during(() =>
      this.#grouped.call(submission, bytesOf(submission)),
    );
  }
}

/** As many as one call takes, by number and by bytes. */
export function inCalls<Item>(
  items: readonly Item[],
  submissionOf: (item: Item) => Submission,
): Item[][] {
  return [...inGroups(items, (item) => bytesOf(submissionOf(item)), LIMITS)];
}

function bytesOf({ args }: Submission): number {
  return args.inputPayload?.length ?? 0;
}
