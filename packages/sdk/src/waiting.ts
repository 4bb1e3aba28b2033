/** Waiting and repeating: every sleep, back-off and caller's abort of the SDK goes through here. */
import { onAbort } from "@flowfabric/core";

import { findEngineError } from "./errors.js";

/** The last argument of every async call. */
export interface CallOptions {
  /** Aborting rejects with the signal's reason. What was already sent may still take effect. */
  readonly signal?: AbortSignal | undefined;
}

/** Resolves after `ms`, or at once when `signal` aborts; never rejects. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted === true) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      unlink();
      resolve();
    };
    const timer = setTimeout(done, ms);
    const unlink = onAbort(signal, done);
  });
}

/** The promise's answer, or the signal's reason if that comes first. The call itself goes on unobserved. */
export function abortable<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) {
      // Nobody listens to the call any more; its own failure must not surface as unhandled.
      promise.catch(() => {});
      abort();
      return;
    }
    promise.then(resolve, reject).finally(onAbort(signal, abort));
  });
}

/**
 * Runs under a signal that aborts with the first of several, and lets go of them afterwards: `AbortSignal.any` on
 * one that lives as long as its client or worker would gather dependents for all that time.
 */
export async function underAnyOf<T>(
  signals: readonly (AbortSignal | undefined)[],
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const either = new AbortController();
  const unlink = abortWithFirstOf(signals, either);
  try {
    return await run(either.signal);
  } finally {
    unlink();
  }
}

/** Aborts `either` with the first of several signals, until it is unlinked from them. */
export function abortWithFirstOf(
  signals: readonly (AbortSignal | undefined)[],
  either: AbortController,
): () => void {
  const links = signals.flatMap((signal) => {
    if (signal === undefined) return [];
    const abort = () => either.abort(signal.reason);
    if (signal.aborted) abort();
    return [onAbort(signal, abort)];
  });
  return () => {
    for (const unlink of links) unlink();
  };
}

/** Between half and all of the delay, so that many who fail together do not return together. */
export function jittered(ms: number): number {
  return ms / 2 + (ms / 2) * Math.random();
}

/** Whether the reply was lost rather than the call refused, and a repeat has a chance. */
function isLostReply(error: unknown): boolean {
  const engine = findEngineError(error);
  return (
    engine !== undefined &&
    engine.retryable &&
    (engine.kind === "Transport" || engine.kind === "Timeout")
  );
}

const TRIES = 3;
const BACKOFF_MS = 100;

/**
 * Calls up to three times while replies are lost, 100 and 200 ms apart with jitter. Only for calls that are safe to
 * repeat; `call` learns which try it is, counted from 1.
 */
export async function repeatLostReplies<T>(
  call: (attempt: number) => Promise<T>,
  options: CallOptions = {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    options.signal?.throwIfAborted();
    try {
      return await abortable(call(attempt), options.signal);
    } catch (error) {
      if (attempt === TRIES || !isLostReply(error)) throw error;
      await sleep(jittered(BACKOFF_MS * 2 ** (attempt - 1)), options.signal);
    }
  }
}
