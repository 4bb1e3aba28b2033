/** Calls that leave as one statement: a commit, and a trip, for many of them. */
import { Grouped } from "@flowfabric/core";

import { isConnectionLost } from "./errors.js";

const OPTIONS = {
  itemsMax: 128,
  bytesMax: 4 * 1024 * 1024,
  /** One that takes longer waits for a lock, as a key's that another transaction has yet to commit. */
  quickMs: 100,
  /** One item that the server cannot take must not fail the others. */
  mayBeOfOne: (error: unknown) => !isConnectionLost(error),
};

/** @param run answers each item at its place; it is called again, item by item, where it fails for several */
export function grouped<Item, Answer>(
  run: (items: readonly Item[]) => Promise<readonly Answer[]>,
): Grouped<Item, Answer> {
  return new Grouped(run, OPTIONS);
}
