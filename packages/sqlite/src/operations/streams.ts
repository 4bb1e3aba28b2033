import {
  checkAppend,
  decodeHandle,
  isRefusal,
  justBefore,
  modesVisibleTo,
  frameModeOf,
  parseDocument,
  tailFrames,
  BEYOND_FRAMES,
  type AppendedFrame,
  type Args,
  type FrameRange,
  type HandlePayload,
  type Implementation,
  type ParsedFrame,
  type Refusal,
  type StreamOperations,
  type StreamPage,
} from "@flowfabric/core";
import {
  effectiveNow,
  fencedRecord,
  toSummaryDocument,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import { findExecution, lockExecution } from "../procedures/executions.js";
import {
  appendFrames,
  readPage,
  readSummaryRow,
} from "../procedures/streams.js";
import type { Session, Store } from "../store.js";

export function streamOperations(
  store: Store,
): Implementation<StreamOperations> {
  const { db } = store;
  return {
    async appendFrame({ handle, frame }) {
      const [appended] = await append(store, handle, [frame]);
      return appended!;
    },

    appendFrames: ({ handle, frames }) => append(store, handle, frames),

    async readStream(args) {
      const { from, to, visibility, withRetainedCount } = args;
      const after = justBefore(from);
      const range = { after, to, visibility, withRetainedCount };
      return (await look(store, args, range)).page;
    },

    tailStream(args) {
      const { after, visibility } = args;
      return tailFrames(args, {
        look: () => look(store, args, { after, to: BEYOND_FRAMES, visibility }),
        takeSeat: () =>
          store.tails.seat(args.executionId, args.attemptIndex, visibility),
        isClosed: () => store.wakeups.closed,
      });
    },

    readSummary: (args) =>
      db.read((tx) => {
        const row = findExecution(store, tx, args);
        const summary =
          row === undefined
            ? undefined
            : readSummaryRow(tx, row.seq, args.attemptIndex);
        if (summary === undefined) return undefined;
        parseDocument(summary.document);
        return toSummaryDocument(summary);
      }),
  };
}

/** Whatever the handle's kind: a parked attempt is refused by its state. */
async function append(
  store: Store,
  handle: Args<"appendFrame">["handle"],
  frames: readonly ParsedFrame[],
): Promise<AppendedFrame[]> {
  const own = decodeHandle(handle, "sqlite");
  return settle(
    await store.db.write((tx) => appendOwn(store, tx, own, frames)),
  );
}

function appendOwn(
  store: Store,
  tx: Session,
  own: HandlePayload,
  frames: readonly ParsedFrame[],
): AppendedFrame[] | Refusal {
  const { executionId, attemptIndex } = own;
  const row = lockExecution(store, tx, { executionId });
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const refusal = checkAppend(fencedRecord(row), own, now);
  if (refusal !== undefined) return refusal;

  const appended = appendFrames(tx, row, frames, now);

  tx.afterCommit(() =>
    store.tails.ringAppended(executionId, attemptIndex, (visibility) => {
      const seen = modesVisibleTo(visibility);
      return frames.some((frame) => seen.includes(frameModeOf(frame)));
    }),
  );
  return appended;
}

/**
 * A lapse that nobody has written down closes a stream only once no append is under way that began before it. Another
 * process's append holds the write lock: whoever had that lock after the lapse knows that all of them are there to be seen.
 */
async function look(
  store: Store,
  args: Args<"readStream"> | Args<"tailStream">,
  range: FrameRange,
): Promise<StreamPage> {
  for (let settledAtMs: number | undefined; ;) {
    const found = await store.db.read((tx) =>
      readPage(
        tx,
        findExecution(store, tx, args),
        args.attemptIndex,
        range,
        args.countLimit,
      ),
    );
    const { page, lapsesInMs } = found;
    const isLapse = lapsesInMs !== undefined && lapsesInMs <= 0;
    if (!isLapse || page.closedAtMs === settledAtMs) return found;
    settledAtMs = page.closedAtMs;
    await store.db.write(() => {});
  }
}
