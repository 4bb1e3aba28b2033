import {
  BEYOND_FRAMES,
  checkAppend,
  decodeHandle,
  engineError,
  isRefusal,
  justBefore,
  parseDocument,
  STREAM_OPS_MAX,
  tailFrames,
  type AppendedFrame,
  type Args,
  type FrameRange,
  type Implementation,
  type Refusal,
  type StreamOperations,
} from "@flowfabric/core";
import {
  effectiveNow,
  fencedRecord,
  toSummaryDocument,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import { grouped } from "../grouped.js";
import { lockExecution } from "../procedures/executions.js";
import { InTurn } from "../procedures/in-turn.js";
import {
  appendQuickly,
  namesToTell,
  ringAppendedHere,
  type Append,
} from "../procedures/quick-streams.js";
import {
  appendFrames,
  readPages,
  readSummaryOf,
  type Appended,
  type PageWanted,
} from "../procedures/streams.js";
import { UnwrittenLapses } from "../procedures/unwritten-lapses.js";
import type { Session, Store } from "../store.js";

const RETRY_AFTER_MS = 100;
/** A guess, for how many tails may share a statement. */
const BYTES_OF_FRAME = 1_024;

export function streamOperations(
  store: Store,
): Implementation<StreamOperations> {
  const { db } = store;
  const appends = grouped((items: readonly Append[]) =>
    appendQuickly(store, items),
  );
  const inTurn = new InTurn({
    quickly: (append) => appends.call(append, bytesOf(store, append)),
    slowly: async (append) =>
      settle(await db.write((tx) => appendOwn(store, tx, append))),
  });
  // Those that were woken together look together; plain reads do not wait for them.
  const looks = grouped((wanted: readonly PageWanted[]) =>
    readPages(db, wanted),
  );
  const lapses = new UnwrittenLapses(db);
  let reading = 0;

  return {
    async appendFrame({ handle, frame }) {
      const own = decodeHandle(handle, "postgres");
      return (await inTurn.append({ own, frames: [frame] }))[0]!;
    },

    async appendFrames({ handle, frames }) {
      const own = decodeHandle(handle, "postgres");
      return await inTurn.append({ own, frames });
    },

    async readStream(args) {
      if (reading >= STREAM_OPS_MAX)
        throw engineError("resource_exhausted", {
          pool: "stream_ops",
          max: STREAM_OPS_MAX,
          retryAfterMs: RETRY_AFTER_MS,
        });
      const { from, to, visibility, withRetainedCount } = args;
      const wanted = wantedBy(args, {
        after: justBefore(from),
        to,
        visibility,
        withRetainedCount,
      });
      reading++;
      try {
        const { page } = await lapses.surely(
          args.executionId,
          async () => (await readPages(db, [wanted]))[0]!,
        );
        return page;
      } finally {
        reading--;
      }
    },

    async tailStream(args) {
      const { executionId, attemptIndex, after, visibility } = args;
      const wanted = wantedBy(args, { after, to: BEYOND_FRAMES, visibility });
      const bytes = args.countLimit * BYTES_OF_FRAME;
      return await tailFrames(args, {
        look: () =>
          lapses.surely(executionId, async () => {
            const read = await looks.call(wanted, bytes);
            store.tails.noteSeen(executionId, attemptIndex, read.standing);
            return read;
          }),
        takeSeat: () => store.tails.seat(executionId, attemptIndex, visibility),
        announce: () => store.tails.announce(executionId, visibility),
        isClosed: () => store.wakeups.closed,
      });
    },

    async readSummary(args) {
      const [summary] = await readSummaryOf(store, args);
      if (summary === undefined) return undefined;
      parseDocument(summary.document);
      return toSummaryDocument(summary);
    },
  };
}

/** Of the frames, and of the summary that goes with patches. */
function bytesOf(store: Store, { own, frames }: Append): number {
  const document = store.heldStreams.find(own)?.summary?.document ?? "";
  return frames.reduce((sum, { bytes }) => sum + bytes.length, document.length);
}

/** The slow way: under the record's lock, by the rules of core. */
async function appendOwn(
  store: Store,
  tx: Session,
  append: Append,
): Promise<AppendedFrame[] | Refusal> {
  const { own, frames } = append;
  const row = await lockExecution(store, tx, { executionId: own.executionId });
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const refusal = checkAppend(fencedRecord(row), own, now);
  if (refusal !== undefined) return refusal;

  const appended = await appendFrames(tx, row, frames, now);
  if (isRefusal(appended)) return appended;

  const { after, outcomes }: Appended = appended;
  if (after !== undefined) {
    for (const name of namesToTell(append)) tx.tell(name, 0);
    tx.afterCommit(() => {
      store.heldStreams.remember(own, after);
      ringAppendedHere(store, append);
    });
  }
  return outcomes;
}

function wantedBy(
  args: Args<"readStream"> | Args<"tailStream">,
  range: FrameRange,
): PageWanted {
  return {
    executionId: args.executionId,
    namespace: args.namespace,
    attempt: args.attemptIndex,
    range,
    countLimit: args.countLimit,
  };
}
