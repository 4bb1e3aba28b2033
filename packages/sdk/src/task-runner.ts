/** One task from its start to its outcome: handler, failure mapping, and the patience to get it through. */
import { isEngineError } from "@flowfabric/core";

import {
  isRetryable,
  isTransport,
  PayloadDecodeError,
  TaskConsumedError,
} from "./errors.js";
import {
  invalidOutput,
  type HandlerOutcome,
  type Handlers,
} from "./handlers.js";
import { hasLanded } from "./landing.js";
import { describeError, type Logger } from "./logger.js";
import type { Ownership } from "./ownership.js";
import type { Session } from "./session.js";
import type { ClaimedTask } from "./task.js";
import { jittered, sleep } from "./waiting.js";

/**
 * `handed_back`: to the next worker, after the drain time. `lost`: cancelled, taken over, or out of reach for a
 * whole lease; nothing was written. `released`: the handler itself ended it otherwise.
 */
export type RunEnd =
  "completed" | "failed" | "handed_back" | "lost" | "released";

const PAUSE_MS = 100;
const PAUSE_MS_MAX = 5_000;

export class TaskRunner {
  readonly #session: Session;
  readonly #handlers: Handlers;
  readonly #logger: Logger;

  constructor(session: Session, handlers: Handlers) {
    this.#session = session;
    this.#handlers = handlers;
    this.#logger = session.config.logger;
  }

  /**
   * Never rejects; the task is disposed when this resolves.
   * @param handlerEnded the outcome is on its way from here on
   */
  async run(ownership: Ownership, handlerEnded: () => void): Promise<RunEnd> {
    const task = this.#session.task(
      ownership,
      this.#handlers.definitionOf(ownership.claimed.context.executionKind),
    );
    try {
      const outcome = await this.#handlers.run(task);
      handlerEnded();
      if (ownership.consumedBy !== undefined)
        return this.#consumed(ownership, outcome);
      return await this.#deliver(ownership, task, outcome);
    } catch (error) {
      // Whatever throws where it must not: one task is lost by it, not the process.
      this.#logger.error("task abandoned by an unexpected error", {
        ...fieldsOf(ownership),
        error: describeError(error),
      });
      return "lost";
    } finally {
      ownership.dispose(undefined, true);
    }
  }

  /** The handler ended the task itself, and what it returned or threw afterwards changes nothing any more. */
  #consumed(ownership: Ownership, outcome: HandlerOutcome): RunEnd {
    if (
      outcome.kind === "failed" &&
      !(outcome.error instanceof TaskConsumedError)
    )
      this.#logger.warn("handler failed after it had ended its task", {
        ...fieldsOf(ownership),
        error: outcome.reason,
      });
    if (ownership.loss !== undefined) return "lost";
    return endOf(ownership);
  }

  async #deliver(
    ownership: Ownership,
    task: ClaimedTask,
    outcome: HandlerOutcome,
  ): Promise<RunEnd> {
    if (ownership.loss !== undefined) return this.#discard(ownership, outcome);
    // Interrupted by the shutdown and not finished: the next worker goes on with the same attempt.
    if (ownership.aborted && outcome.kind === "failed") {
      const handedBack = await this.#session.handBack(ownership);
      return handedBack ? "handed_back" : "lost";
    }
    for (
      let pauseMs = PAUSE_MS;
      ;
      pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)
    ) {
      try {
        if (outcome.kind === "returned") await task.complete(outcome.output);
        else await task.fail(outcome);
        return endOf(ownership);
      } catch (error) {
        if (outcome.kind === "returned" && isBadOutput(error)) {
          outcome = invalidOutput(error);
          pauseMs = PAUSE_MS;
          continue;
        }
        if (hasLanded(error) || error instanceof TaskConsumedError) {
          this.#logger.warn("outcome refused, another owner decides", {
            ...fieldsOf(ownership),
            error: describeError(error),
          });
          return "lost";
        }
        if (isLeaseGone(ownership)) return this.#discard(ownership, outcome);
        if (!isRetryable(error) && !isTransport(error)) {
          this.#logger.error(
            "outcome refused for good; the lease runs out and another owner takes over",
            { ...fieldsOf(ownership), error: describeError(error) },
          );
          return "lost";
        }
        this.#logger.warn("outcome did not get through, trying again", {
          ...fieldsOf(ownership),
          error: describeError(error),
        });
        await sleep(jittered(pauseMs), leaseSignal(ownership));
      }
    }
  }

  #discard(ownership: Ownership, outcome: HandlerOutcome): RunEnd {
    this.#logger.warn("outcome discarded: the lease is lost", {
      ...fieldsOf(ownership),
      outcome: outcome.kind,
      error: describeError(ownership.signal.reason),
    });
    return "lost";
  }
}

function endOf({ consumedBy }: Ownership): RunEnd {
  if (consumedBy === "complete") return "completed";
  if (consumedBy === "fail") return "failed";
  return "released";
}

function isBadOutput(error: unknown): boolean {
  return (
    error instanceof PayloadDecodeError ||
    isEngineError(error, "payload_too_large") ||
    isEngineError(error, "invalid_input")
  );
}

/** Lost, or lapsed as far as this process can tell. A shutdown in progress does not take the lease away. */
function isLeaseGone(ownership: Ownership): boolean {
  return ownership.loss !== undefined || ownership.expiredLocally;
}

function leaseSignal(ownership: Ownership): AbortSignal | undefined {
  return ownership.aborted ? undefined : ownership.signal;
}

function fieldsOf({ claimed }: Ownership) {
  const { executionId, attemptIndex, leaseEpoch, context } = claimed;
  return { executionId, attemptIndex, leaseEpoch, kind: context.executionKind };
}
