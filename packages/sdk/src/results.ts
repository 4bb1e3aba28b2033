/** Waiting for an execution to end, and reading how it did. */
import {
  engineError,
  onAbort,
  type EngineBackend,
  type ExecutionInfo,
  type PublicState,
} from "@flowfabric/core";

import type { CompletionFeed } from "./completion-feed.js";
import { isRetryable } from "./errors.js";
import { abortable, type CallOptions } from "./waiting.js";

/** How an execution ended, or that it has not yet. */
export type ExecutionResult<Output> =
  | {
      readonly kind: "completed";
      readonly output: Output;
      readonly completedAtMs: number;
    }
  | {
      readonly kind: "failed";
      readonly reason: string;
      readonly category?: string;
    }
  | { readonly kind: "cancelled"; readonly reason?: string }
  | { readonly kind: "expired"; readonly reason: string }
  | { readonly kind: "skipped"; readonly reason?: string }
  /** The time is up. */
  | { readonly kind: "pending"; readonly publicState: PublicState };

export interface ResultQuery {
  readonly executionId: string;
  /** Milliseconds to wait. Absent: until it ends or `signal` aborts. 0: read once. */
  readonly timeoutMs?: number | undefined;
  /** Default: the client's. */
  readonly namespace?: string | undefined;
}

/** A waiter looks for itself this often, in case a wake-up was lost. */
const REREAD_MS = 1_000;

type Bytes = Uint8Array | undefined;

/**
 * The end of an execution, with the bytes of its output.
 * @throws EngineError `execution_not_found`; also after retention has removed it
 */
export async function awaitResult(
  backend: EngineBackend,
  feed: CompletionFeed,
  query: ResultQuery & { readonly namespace: string },
  options: CallOptions,
): Promise<ExecutionResult<Bytes>> {
  const first = await abortable(read(backend, query), options.signal);
  if (first.kind !== "pending" || query.timeoutMs === 0) return first;

  const untilMs = performance.now() + (query.timeoutMs ?? Infinity);
  const bell = new Bell();
  const joined = feed.join(query.executionId, () => bell.ring());
  try {
    for (;;) {
      const leftMs = untilMs - performance.now();
      await bell.wait(Math.min(REREAD_MS, Math.max(leftMs, 0)), options.signal);
      options.signal?.throwIfAborted();
      // A ring during the read leads to another read; one before it is answered by it.
      bell.silence();
      feed.reopen();
      const result = await readPatiently(backend, query, untilMs, options);
      if (result === undefined) continue;
      if (result.kind !== "pending" || performance.now() >= untilMs)
        return result;
    }
  } finally {
    joined.leave();
  }
}

/** While there is time left, a store that cannot be reached is asked again. */
async function readPatiently(
  backend: EngineBackend,
  query: ResultQuery,
  untilMs: number,
  options: CallOptions,
): Promise<ExecutionResult<Bytes> | undefined> {
  try {
    return await abortable(read(backend, query), options.signal);
  } catch (error) {
    if (options.signal?.aborted !== true && isRetryable(error))
      if (performance.now() < untilMs) return undefined;
    throw error;
  }
}

async function read(
  backend: EngineBackend,
  { executionId, namespace }: ResultQuery,
): Promise<ExecutionResult<Bytes>> {
  const ref = { executionId, namespace };
  for (;;) {
    const info = await backend.readExecutionInfo(ref);
    if (info === undefined)
      throw engineError("execution_not_found", {
        entity: "execution",
        executionId,
      });
    if (info.publicState !== "completed") return fromInfo(info);
    const output = await backend.getExecutionResult(ref);
    // No bytes: none were stored, or a replay began between the two reads.
    const unchanged =
      output !== undefined ||
      (await backend.readExecutionInfo(ref))?.completedAtMs ===
        info.completedAtMs;
    if (unchanged)
      return {
        kind: "completed",
        output,
        completedAtMs: info.completedAtMs ?? 0,
      };
  }
}

function fromInfo(info: ExecutionInfo): ExecutionResult<Bytes> {
  const { failureReason, failureCategory, cancellationReason } = info;
  switch (info.publicState) {
    case "failed":
      return {
        kind: "failed",
        reason: failureReason ?? "",
        ...(failureCategory === undefined ? {} : { category: failureCategory }),
      };
    case "cancelled":
      return {
        kind: "cancelled",
        ...(cancellationReason === undefined
          ? {}
          : { reason: cancellationReason }),
      };
    case "expired":
      return { kind: "expired", reason: failureReason ?? "" };
    case "skipped":
      return {
        kind: "skipped",
        ...(failureReason === undefined ? {} : { reason: failureReason }),
      };
    default:
      return { kind: "pending", publicState: info.publicState };
  }
}

/** Remembers a ring that comes while nobody listens. */
class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  silence(): void {
    this.#rung = false;
  }

  wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#rung || signal?.aborted === true) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        unlink();
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, ms);
      const unlink = onAbort(signal, done);
      this.#wake = done;
    });
  }
}
