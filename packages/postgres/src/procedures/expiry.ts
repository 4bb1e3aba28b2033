/** Timers: the deadline of an execution, and the time one attempt may take. */
import { HOMES, isTerminalHome } from "@flowfabric/core";
import {
  changeDetails,
  effectiveNow,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution } from "./executions.js";
import { retryTime, scheduleRetry, type Failure } from "./failure.js";
import {
  enterTerminal,
  markLapsedIfDue,
  promoteIfDue,
  ringAfterCommit,
} from "./lifecycle.js";
import { readPolicy } from "./policy.js";

export type ExpiryReason = "attempt_timeout" | "execution_deadline";
export type ExpiryAnswer =
  | "expired"
  | "retryScheduled"
  | "notYetDue"
  | "notApplicable"
  | "alreadyTerminal";

/** Re-checks everything inside the step: a stale look has no effect. Saves the row where it acts. */
export async function expire(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  reason: ExpiryReason,
  nowMs: number,
  only: {
    readonly attemptIndex?: number | undefined;
    readonly dueAtMs?: number | undefined;
  } = {},
): Promise<ExpiryAnswer> {
  const now = effectiveNow(row, nowMs);
  if (isTerminalHome(row.home)) return "alreadyTerminal";
  const dueAtMs =
    reason === "execution_deadline" ? row.deadline_at : row.timeout_at;
  if (reason === "attempt_timeout" && HOMES[row.home].phase !== "active")
    return "notApplicable";
  if (dueAtMs === null) return "notApplicable";
  if (only.attemptIndex !== undefined && only.attemptIndex !== row.attempt)
    return "notApplicable";
  if (only.dueAtMs !== undefined && only.dueAtMs !== dueAtMs)
    return "notApplicable";
  if (dueAtMs > now) return "notYetDue";

  // What only time had changed is written first, so that every store tells the same story.
  promoteIfDue(tx, row, now);
  markLapsedIfDue(tx, row, now);
  if (reason === "attempt_timeout") {
    const failure: Failure = {
      message: "attempt_timeout",
      category: "timeout",
      classification: "timeout",
      actor: "engine",
      closes: "expired",
    };
    const policy = await readPolicy(tx, row);
    const retryAt =
      policy.timeoutPolicy?.retryOnTimeout === true
        ? await retryTime(tx, row, failure, now)
        : undefined;
    if (retryAt !== undefined) {
      scheduleRetry(store, tx, row, failure, retryAt, now, true);
      return "retryScheduled";
    }
  }
  changeDetails(row, { failureReason: reason, failureCategory: "timeout" });
  enterTerminal(tx, row, "expired", now, {
    actor: "engine",
    reason,
    tellHolder: true,
    closeReason: `expired:${reason}`,
  });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);
  return "expired";
}
