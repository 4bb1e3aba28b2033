/** Who is claimed first, and when lost work is offered again. Source: specification 09 §2, §10.2. */
import {
  PRIORITY_MAX,
  PRIORITY_MIN,
  PRIORITY_STEP_MS,
  RECLAIM_BACKOFF_MS_BASE,
  RECLAIM_BACKOFF_MS_MAX,
} from "../limits.js";

export function clampPriority(priority: number): number {
  return Math.min(PRIORITY_MAX, Math.max(PRIORITY_MIN, priority));
}

/** Smallest first: higher priority, then older. Exact in 53 bits. */
export function sortKey(createdAtMs: number, priority: number): number {
  return createdAtMs - priority * PRIORITY_STEP_MS;
}

/** How long after its loss an execution that was already taken over `reclaims` times is offered again. */
export function reclaimBackoffMs(reclaims: number): number {
  if (reclaims === 0) return 0;
  // Beyond 2^6 seconds the cap holds anyway; the exponent is bounded so that it cannot overflow.
  return Math.min(
    RECLAIM_BACKOFF_MS_BASE * 2 ** Math.min(reclaims - 1, 6),
    RECLAIM_BACKOFF_MS_MAX,
  );
}

/** One of each list, then the next of each: how several lanes are served. */
export function inTurn<Item>(lists: readonly (readonly Item[])[]): Item[] {
  if (lists.length === 1) return [...lists[0]!];
  const longest = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_unused, index) =>
    lists.flatMap((list) => list[index] ?? []),
  ).flat();
}
