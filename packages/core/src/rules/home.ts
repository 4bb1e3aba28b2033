/** Where an execution belongs. Source: specification 04 P7, 00 D34. */
import { HOME, type BlockingReason, type Home } from "../state.js";
import { sortKey } from "./order.js";

export interface RunnableFacts {
  readonly createdAtMs: number;
  readonly priority: number;
  readonly operatorHold: boolean;
  readonly laneHold: boolean;
  readonly dependenciesOpen: boolean;
  readonly delayUntilMs: number | undefined;
}

export interface Placement {
  readonly home: Home;
  readonly score: number;
  /** What blocks, where the home leaves a choice: `delayReason` for delayed, else fixed by the home. */
  readonly reason: BlockingReason;
}

/**
 * The one way into every runnable home; first match wins: operator hold, lane hold, open dependencies, future
 * delay, ready. The attempt state plays no part.
 */
export function enterRunnable(
  facts: RunnableFacts,
  delayReason: BlockingReason,
  nowMs: number,
): Placement {
  if (facts.operatorHold)
    return {
      home: HOME.blockedOperator,
      score: nowMs,
      reason: "paused_by_operator",
    };
  if (facts.laneHold)
    return { home: HOME.blockedLane, score: nowMs, reason: "paused_by_policy" };
  if (facts.dependenciesOpen)
    return {
      home: HOME.blockedDependencies,
      score: facts.createdAtMs,
      reason: "waiting_for_children",
    };
  if (facts.delayUntilMs !== undefined && facts.delayUntilMs > nowMs) {
    return {
      home: HOME.delayed,
      score: facts.delayUntilMs,
      reason: delayReason,
    };
  }
  return {
    home: HOME.eligible,
    score: sortKey(facts.createdAtMs, facts.priority),
    reason: "waiting_for_worker",
  };
}

/**
 * The home as every answer must show it: what only time has changed counts as changed. `dueAtMs` is the score
 * of a delayed or active home.
 */
export function effectiveHome(
  home: Home,
  dueAtMs: number,
  nowMs: number,
): Home {
  if (dueAtMs > nowMs) return home;
  if (home === HOME.delayed) return HOME.eligible;
  if (home === HOME.active) return HOME.lapsed;
  return home;
}
