/** Workers of the SDK, with the handlers that are measured. */
import type { EngineBackend } from "@flowfabric/core";
import { when, Worker } from "@flowfabric/sdk";

import { hostClockMs } from "../other-process.js";

const KIND = "bench";
const LANE = "default";

export const job = { laneId: LANE, executionKind: KIND };

/** Runs a worker beside `use`. */
export async function withWorker<Answer>(
  worker: Worker,
  use: () => Promise<Answer>,
): Promise<Answer> {
  const run = worker.run({ stopOn: [] });
  // That it never came to run would leave what waits for its handlers waiting.
  const failed = run.then(() => new Promise<never>(() => {}));
  try {
    return await Promise.race([use(), failed]);
  } finally {
    await worker.stop();
  }
}

export function workerOn(
  backend: EngineBackend,
  handler: Parameters<Worker["handle"]>[1],
): Worker {
  const worker = new Worker({
    backend,
    lanes: [LANE],
    maxConcurrentTasks: 16,
    leaseTtlMs: 60_000,
  });
  return worker.handle(KIND, handler);
}

/** What a handler that waits for a signal tells. */
export type WaitingNews =
  | { readonly kind: "suspended"; readonly token: string }
  | { readonly kind: "resumed"; readonly atMs: number };

export function waitingWorker(
  backend: EngineBackend,
  tell: (news: WaitingNews) => void,
): Worker {
  return workerOn(backend, async (_input, task) => {
    if (task.handleKind === "resumed") {
      tell({ kind: "resumed", atMs: hostClockMs() });
      return undefined;
    }
    const suspended = await task.suspend({
      resumeCondition: when.signal("go"),
    });
    tell({ kind: "suspended", token: suspended.details.signalToken.reveal() });
    return suspended;
  });
}
