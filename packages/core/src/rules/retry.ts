/** Whether a failed attempt is tried again, and when. Source: specification 01 §8.1. */
import type { Backoff, ExecutionPolicy, FailureClass } from "../policies.js";

export interface FailedAttempt {
  readonly classification: FailureClass;
  readonly category: string;
  /** Retries already taken. */
  readonly retryCount: number;
  readonly nowMs: number;
  readonly deadlineAtMs: number | undefined;
}

/**
 * @param random uniform in [0, 1), used only by a policy with jitter
 * @returns when the retry starts, or nothing: the execution has failed
 */
export function retryAtMs(
  policy: ExecutionPolicy,
  failed: FailedAttempt,
  random: () => number = Math.random,
): number | undefined {
  const retry = policy.retryPolicy;
  if (retry === undefined || failed.retryCount >= retry.maxRetries)
    return undefined;
  if (
    failed.classification === "permanent" ||
    failed.classification === "cancelled"
  )
    return undefined;
  if (
    retry.retryableCategories.length > 0 &&
    !retry.retryableCategories.includes(failed.category)
  )
    return undefined;
  if (retry.nonRetryableCategories.includes(failed.category)) return undefined;
  const startAtMs =
    failed.nowMs + backoffMs(retry.backoff, failed.retryCount, random);
  // A retry that could only be expired by the deadline would be work for nothing.
  if (failed.deadlineAtMs !== undefined && startAtMs >= failed.deadlineAtMs)
    return undefined;
  return startAtMs;
}

/** Delay before retry number `retryCount + 1`, whole milliseconds. */
export function backoffMs(
  backoff: Backoff,
  retryCount: number,
  random: () => number = Math.random,
): number {
  if (backoff.type === "fixed") return backoff.delayMs;
  const full = Math.min(
    // Grown past all numbers, a delay of nothing is still nothing.
    backoff.initialDelayMs === 0
      ? 0
      : backoff.initialDelayMs * backoff.multiplier ** retryCount,
    backoff.maxDelayMs,
  );
  return Math.round(backoff.jitter ? full / 2 + (full / 2) * random() : full);
}
