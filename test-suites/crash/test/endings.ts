/** Waiting until work has ended, and what is told of it where it does not. */
import type { EngineBackend } from "@flowfabric/core";

import { until } from "./fleet.js";

const ENDED_MS_MAX = 120_000;
/** So many of those that are left are named. */
const NAMED = 5;

/** Nothing waits and nothing runs any more. @throws with what is left */
export async function allEnded(
  backend: EngineBackend,
  patienceMs: number = ENDED_MS_MAX,
): Promise<void> {
  const left = async () => {
    const { executions } = await backend.listExecutions({
      publicStates: ["waiting", "delayed", "active", "suspended"],
      limit: NAMED,
    });
    return executions;
  };
  await untilNone("the end of every execution", backend, left, patienceMs);
}

/**
 * Waits until `left` finds no execution.
 * @throws with the states of those that are left
 */
export async function untilNone(
  what: string,
  backend: EngineBackend,
  left: () => Promise<readonly string[]>,
  patienceMs: number,
): Promise<void> {
  try {
    await until(what, async () => (await left()).length === 0, patienceMs);
  } catch (cause) {
    const states = await Promise.all(
      (await left()).slice(0, NAMED).map(async (executionId) => {
        const snapshot = await backend.describeExecution({ executionId });
        return `${executionId} ${JSON.stringify(snapshot?.stateVector ?? "gone")}`;
      }),
    );
    throw new Error(`${String(cause)}: ${states.join(", ")}`, { cause });
  }
}
