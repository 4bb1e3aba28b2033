/**
 * Notices a blocked event loop. While it is blocked no lease is renewed and no abort is heard, and what follows
 * looks like a fault of the store; so it is named for what it is.
 */
import type { Logger } from "./logger.js";

/** Watches until the returned function is called. Logs each time the loop stood still for a third of the lease. */
export function watchEventLoop(leaseTtlMs: number, logger: Logger): () => void {
  const periodMs = Math.max(10, Math.min(1_000, Math.floor(leaseTtlMs / 12)));
  let expectedAt = performance.now() + periodMs;
  const timer = setInterval(() => {
    const lagMs = performance.now() - expectedAt;
    expectedAt = performance.now() + periodMs;
    if (lagMs > leaseTtlMs / 3)
      logger.warn(
        "the event loop was blocked: leases were not renewed meanwhile; move long computations into a worker thread or break them up",
        { blockedMs: Math.round(lagMs), leaseTtlMs },
      );
  }, periodMs);
  timer.unref();
  return () => clearInterval(timer);
}
