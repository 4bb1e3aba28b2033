import {
  BEYOND_FRAMES,
  decodeHandle,
  justBefore,
  parseDocument,
  tailFrames,
  type Implementation,
  type StreamOperations,
} from "@flowfabric/core";

import { textOf } from "../connection.js";
import { appendFrames, readPage } from "../procedures/streams.js";
import { refOf } from "../rows.js";
import type { Store } from "../store.js";

export function streamOperations(
  store: Store,
): Implementation<StreamOperations> {
  return {
    async appendFrame({ handle, frame }) {
      const own = decodeHandle(handle, "valkey");
      const [appended] = await appendFrames(store, own, [frame]);
      return appended!;
    },

    // Whatever the handle's kind: a parked attempt is refused by its state.
    appendFrames: async ({ handle, frames }) =>
      await appendFrames(store, decodeHandle(handle, "valkey"), frames),

    async readStream(args) {
      const { from, to, visibility, withRetainedCount } = args;
      const after = justBefore(from);
      const range = { after, to, visibility, withRetainedCount };
      const { page } = await store.streamReads.read(() =>
        readPage(store, args, range),
      );
      return page;
    },

    tailStream(args) {
      const { executionId, attemptIndex, after, visibility } = args;
      const { tails } = store;
      return tailFrames(args, {
        async look() {
          const read = await store.streamReads.look(() =>
            readPage(store, args, { after, to: BEYOND_FRAMES, visibility }),
          );
          tails.noteSeen(executionId, attemptIndex, read.standing);
          return read;
        },
        takeSeat: () => tails.seat(executionId, attemptIndex, visibility),
        announce() {
          tails.listen(executionId);
          return false;
        },
        isClosed: () => store.wakeups.closed,
      });
    },

    async readSummary({ executionId, namespace, attemptIndex }) {
      const [document, version, firstAppliedMs, lastUpdatedMs] =
        await store.cells
          .of(executionId)
          .call(
            "read_summary",
            refOf(executionId),
            namespace ?? "",
            attemptIndex,
          );
      if (document === undefined) return undefined;
      parseDocument(textOf(document));
      return {
        documentJson: document as Buffer,
        version: version as number,
        patchKind: "jsonMergePatch",
        lastUpdatedMs: lastUpdatedMs as number,
        firstAppliedMs: firstAppliedMs as number,
      };
    },
  };
}
