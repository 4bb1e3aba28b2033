/**
 * Calls to several cells, of which some may be out of reach: a node of a cluster that is gone, or silent, keeps nobody from
 * what the others have.
 */
import type { Cell } from "../cells.js";
import { silence } from "../errors.js";

/** So long the others wait for a cell that says nothing. From then on it is left out, until that call has ended. */
const PATIENCE_MS = 2_000;

export interface Asked<Answer> {
  readonly answers: readonly Answer[];
  /** Why some cell did not answer; absent where all did. */
  readonly failure?: Error | undefined;
}

/**
 * Asks all of them at once, and never rejects. For calls whose late answer nobody needs: what may take leases is
 * waited for, see {@link settleEach}.
 */
export async function askEach<Answer>(
  cells: readonly Cell[],
  ask: (cell: Cell) => Promise<Answer>,
): Promise<Asked<Answer>> {
  return await settleEach(cells, (cell) =>
    patiently(cell, () => ask(cell), cells.length > 1),
  );
}

/** The same for anything that is done in several cells, however long each of them takes. */
export async function settleEach<Item, Answer>(
  items: readonly Item[],
  act: (item: Item) => Promise<Answer>,
): Promise<Asked<Answer>> {
  const settled = await Promise.allSettled(items.map(act));
  const answers = settled.flatMap((one) =>
    one.status === "fulfilled" ? [one.value] : [],
  );
  const failed = settled.find((one) => one.status === "rejected");
  return failed === undefined
    ? { answers }
    : { answers, failure: failed.reason as Error };
}

/** @param hasOthers that would wait as well; alone it has the time that any call has */
export async function patiently<Answer>(
  cell: Cell,
  ask: () => Promise<Answer>,
  hasOthers: boolean,
): Promise<Answer> {
  if (silent.has(cell)) throw silence(cell.base);
  const asked = ask();
  if (!hasOthers) return await asked;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      // After a stall of this process the answer may be there and not read yet.
      setImmediate(() => {
        silent.add(cell);
        const heard = () => void silent.delete(cell);
        asked.then(heard, heard);
        reject(silence(cell.base));
      });
    }, PATIENCE_MS);
  });
  // Where the answer comes between the two.
  late.catch(() => {});
  try {
    return await Promise.race([asked, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Those with a call under way that took too long. */
const silent = new WeakSet<Cell>();
