/** A signal reaches a parked claim by push: here at once, elsewhere by a notification that leaves with the commit. */
import { expect, test } from "vitest";

import { claim, newSchema, open, pause } from "./stores.js";

/** Whoever hears nothing looks again after five seconds, and once in the first tenth of one. */
const PARKED_MS = 500;
const WOKEN_MS = 2_000;

test.each(["this", "another"] as const)(
  "a claim that is parked in %s process takes what a signal resumes, as soon as it is delivered",
  async (where) => {
    const schema = newSchema();
    const backend = await open({ schema });
    const worker = where === "this" ? backend : await open({ schema });
    await backend.seedWaitpointHmacSecret({
      kid: "k1",
      secretHex: "0f".repeat(32),
    });
    await backend.createExecution({ executionKind: "k" });
    const first = await worker.claimMany(claim);
    const { handle, executionId } = first.claimed[0]!;
    const { details } = await worker.suspend({
      handle,
      suspensionId: crypto.randomUUID(),
      waitpoints: [
        { kind: "fresh", waitpointId: crypto.randomUUID(), waitpointKey: "a" },
      ],
      resumeCondition: {
        kind: "single",
        waitpointKey: "a",
        matcher: { kind: "wildcard" },
      },
      reasonCode: "waiting_for_signal",
    });
    const parked = worker.claimMany({ ...claim, maxWaitMs: 20_000 });
    await pause(PARKED_MS);

    const beganAtMs = performance.now();
    await backend.deliverSignal({
      executionId,
      waitpointId: details.waitpointId,
      waitpointToken: details.waitpointToken,
      signalId: crypto.randomUUID(),
      signalName: "go",
    });
    const { claimed } = await parked;

    expect(claimed).toMatchObject([{ kind: "resumed", executionId }]);
    expect(performance.now() - beganAtMs).toBeLessThan(WOKEN_MS);
  },
  30_000,
);
