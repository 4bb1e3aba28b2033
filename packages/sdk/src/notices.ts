/**
 * Push to the holder: executions of this process that were cancelled, expired, revoked or taken over. Losing the
 * feed loses nothing, for every renewal asks the same question.
 */
import type { EngineBackend, WorkerInstanceId } from "@flowfabric/core";

import type { HeldTasks } from "./held-tasks.js";
import { describeError, type Logger } from "./logger.js";
import { jittered, sleep } from "./waiting.js";

const REOPEN_MS = 1_000;
const REOPEN_MS_MAX = 30_000;

/** Watches until `stopped` aborts; opens the feed again where it ends early. */
export async function watchNotices(
  backend: EngineBackend,
  workerInstanceId: WorkerInstanceId,
  held: HeldTasks,
  logger: Logger,
  stopped: AbortSignal,
): Promise<void> {
  let pauseMs = REOPEN_MS;
  while (!stopped.aborted) {
    try {
      const feed = backend.watchWorker({ workerInstanceId, signal: stopped });
      for await (const notice of feed) {
        pauseMs = REOPEN_MS;
        for (const ownership of held.of(notice.executionId))
          ownership.noticed(notice);
      }
    } catch (error) {
      if (stopped.aborted) return;
      logger.debug("feed of ended tasks lost, renewal finds out instead", {
        error: describeError(error),
      });
    }
    await sleep(jittered(pauseMs), stopped);
    pauseMs = Math.min(pauseMs * 2, REOPEN_MS_MAX);
  }
}
