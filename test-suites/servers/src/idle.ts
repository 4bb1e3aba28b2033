/** What a claim costs that waits and finds nothing: beside an empty store, and beside many executions that are suspended. */
import { setTimeout as pause } from "node:timers/promises";

import type { EngineBackend } from "@flowfabric/core";

const CLAIM = {
  workerId: "idle",
  workerInstanceId: "idle",
  lanes: ["default"],
  max: 100,
  leaseTtlMs: 600_000,
};
/** So that each wait begins with a portion that it may run. */
const REST_MS = 1_000;
const SETTLING_MS = 500;
const WAIT_MS = 3_000;
const TIMEOUT_MS = 3_600_000;

export interface IdleCost {
  /** Of one wait, by what the caller counts. */
  readonly none: number;
  readonly many: number;
  readonly suspended: number;
}

/**
 * Suspends executions of an empty store, each second one with a timeout.
 * @param count at `FLOWFABRIC_TEST_SCALE` 1; in proportion, and at least 1 000
 * @param counted so far: statements, commands, whatever a wait may cost the store
 */
export async function compareIdle(
  backend: EngineBackend,
  count: number,
  counted: () => number | Promise<number>,
): Promise<IdleCost> {
  await backend.seedWaitpointHmacSecret({
    kid: "k1",
    secretHex: "0f".repeat(32),
  });
  // There is a lane to look at, and a process that has told the store of itself.
  await backend.createExecution({ executionKind: "done" });
  const { claimed } = await backend.claimMany(CLAIM);
  await backend.complete({ handle: claimed[0]!.handle });
  await idle(SETTLING_MS);
  const none = await idle(WAIT_MS);

  const scale = Number(process.env["FLOWFABRIC_TEST_SCALE"] ?? "0.2");
  const suspended = Math.max(1_000, count * scale);
  for (let made = 0; made < suspended; made += CLAIM.max)
    await suspendMany(backend);
  await idle(SETTLING_MS);
  return { none, many: await idle(WAIT_MS), suspended };

  async function idle(maxWaitMs: number): Promise<number> {
    await pause(REST_MS);
    const before = await counted();
    const { claimed } = await backend.claimMany({ ...CLAIM, maxWaitMs });
    if (claimed.length > 0) throw new Error("there was something to claim");
    return (await counted()) - before;
  }
}

async function suspendMany(backend: EngineBackend): Promise<void> {
  await backend.submitMany({
    items: Array.from({ length: CLAIM.max }, () => ({
      executionKind: "waits",
    })),
  });
  const { claimed } = await backend.claimMany(CLAIM);
  const outcomes = await Promise.all(
    claimed.map(({ handle }, n) =>
      backend.suspend({
        handle,
        suspensionId: crypto.randomUUID(),
        waitpoints: [
          {
            kind: "fresh",
            waitpointId: crypto.randomUUID(),
            waitpointKey: "go",
          },
        ],
        resumeCondition: {
          kind: "single",
          waitpointKey: "go",
          matcher: { kind: "wildcard" },
        },
        reasonCode: "waiting_for_signal",
        ...(n % 2 === 0
          ? {}
          : {
              timeoutAtMs: Date.now() + TIMEOUT_MS,
              timeoutBehavior: "expire" as const,
            }),
      }),
    ),
  );
  const suspended = outcomes.filter(({ kind }) => kind === "suspended");
  if (suspended.length < CLAIM.max) throw new Error("not all are suspended");
}
