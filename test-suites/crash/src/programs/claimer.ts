/** Claims and completes in batches as fast as it can, a few of them left alone, until it is killed. */
import type { ClaimedExecution } from "@flowfabric/core";
import { z } from "zod";

import { report, runProgram } from "../program.js";

const Options = z.object({ leaseTtlMs: z.number(), max: z.number() });

await runProgram(Options, async (backend, { leaseTtlMs, max }) => {
  report({ kind: "ready" });
  const claim = {
    workerId: "claimer",
    workerInstanceId: `claimer-${process.pid}`,
    lanes: ["default"],
    leaseTtlMs,
    max,
  };
  let held: ClaimedExecution[] = [];
  for (;;) {
    // The last of each batch stays behind, so that there is always something to take over.
    const done = held.slice(0, -1);
    if (done.length === 0) {
      const { claimed } = await backend.claimMany({ ...claim, maxWaitMs: 100 });
      held = claimed;
      continue;
    }
    const { results, claimed } = await backend.completeAndClaim({
      items: done.map(({ handle, attemptIndex }) => ({
        handle,
        payload: Buffer.from(String(attemptIndex)),
      })),
      claim,
    });
    results.forEach(({ kind }, index) => {
      if (kind === "completed")
        report({ kind, executionId: done[index]!.executionId });
    });
    held = claimed;
  }
});
