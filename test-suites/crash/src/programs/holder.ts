/** Takes leases, waits to be told, and then tries every write there is with each of them. */
import {
  decodeHandle,
  type ClaimedExecution,
  type EngineBackend,
} from "@flowfabric/core";
import { z } from "zod";

import { answerOf, onCommand, report, runProgram } from "../program.js";
import type { WriteAnswer } from "../reports.js";
import { WRITES, type Write } from "../writes.js";

const Options = z.object({
  lanes: z.array(z.string()),
  leaseTtlMs: z.number(),
});

await runProgram(Options, async (backend, { lanes, leaseTtlMs }) => {
  const held: { lane: string; claimed: ClaimedExecution[] }[] = [];
  for (const lane of lanes)
    held.push({ lane, claimed: await take(backend, lane, leaseTtlMs) });

  const wrote = new Promise<void>((resolve) =>
    onCommand("write", async () => {
      const answers: WriteAnswer[] = [];
      for (const { claimed } of held)
        for (const [index, write] of WRITES.entries())
          answers.push(await tryWrite(backend, write, claimed[index]!));
      report({ kind: "wrote", answers });
      resolve();
    }),
  );
  report({
    kind: "claimed",
    executionIds: held.flatMap(({ claimed }) =>
      claimed.map(({ executionId }) => executionId),
    ),
  });
  await wrote;
});

/** One execution of the lane for each write. */
async function take(
  backend: EngineBackend,
  lane: string,
  leaseTtlMs: number,
): Promise<ClaimedExecution[]> {
  const { claimed } = await backend.claimMany({
    workerId: "holder",
    workerInstanceId: `holder-${process.pid}`,
    lanes: [lane],
    max: WRITES.length,
    leaseTtlMs,
  });
  return claimed;
}

async function tryWrite(
  backend: EngineBackend,
  { operation, write }: Write,
  claimed: ClaimedExecution,
): Promise<WriteAnswer> {
  const held = decodeHandle(claimed.handle, backend.backendLabel());
  const answer = await answerOf(write(backend, claimed.handle, held));
  return { operation, executionId: claimed.executionId, answer };
}
