/** Submits batches as fast as it can, each under a tag of its own, until it is killed. */
import { z } from "zod";

import { report, runProgram } from "../program.js";

const Options = z.object({
  firstBatch: z.number(),
  batchSize: z.number(),
  atomicity: z.enum(["perItem", "allOrNothing"]),
});

await runProgram(
  Options,
  async (backend, { firstBatch, batchSize, atomicity }) => {
    report({ kind: "ready" });
    for (let batch = firstBatch; ; batch++) {
      await backend.submitMany({
        items: Array.from({ length: batchSize }, (_unused, index) => ({
          executionKind: "work",
          inputPayload: Buffer.from(JSON.stringify({ batch, index })),
          tags: { batch: String(batch) },
          policy: { retryPolicy: { maxRetries: 1 } },
        })),
        atomicity,
      });
      report({ kind: "submitted", batch });
    }
  },
);
