/** A suspension whose time is up: the end, going on without what was waited for, or somebody who looks at it. */
import { HOME, timeoutEffect, type TimeoutBehavior } from "@flowfabric/core";
import {
  changeDetails,
  effectiveNow,
  reasonCode,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution } from "./executions.js";
import { enterTerminal, ringAfterCommit } from "./lifecycle.js";
import { appendEvent } from "./log.js";
import { resumeSuspended } from "./resuming.js";
import { clearTimeoutOf, readOpenSuspension } from "./suspensions.js";
import { unlimitActiveWaitpoints } from "./waitpoints.js";

export type TimeoutAnswer =
  | { readonly kind: "applied"; readonly behavior: TimeoutBehavior }
  | {
      readonly kind:
        "notYetDue" | "notSuspendedCleaned" | "noActiveSuspensionCleaned";
    };

/** Re-checks everything inside the step: a stale look has no effect. Saves the row where it acts. */
export async function timeOutSuspension(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
): Promise<TimeoutAnswer> {
  const now = effectiveNow(row, nowMs);
  if (row.home !== HOME.suspended) return { kind: "notSuspendedCleaned" };
  const suspension = await readOpenSuspension(tx, row);
  if (suspension === undefined) return { kind: "noActiveSuspensionCleaned" };
  const { timeout_at: timeoutAt, timeout_behavior: behavior } = suspension;
  if (timeoutAt === null || timeoutAt > now) return { kind: "notYetDue" };

  const effect = timeoutEffect(behavior);
  switch (effect.kind) {
    case "end":
      end(tx, row, effect, now);
      break;
    case "resume":
      resumeSuspended(
        tx,
        row,
        { closeReason: effect.closeReason, trigger: "timeout" },
        0,
        now,
      );
      appendEvent(tx, row, "unblocked", now, "engine", { reason: "timeout" });
      break;
    case "escalate":
      escalate(tx, row, timeoutAt, now);
      break;
  }
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  return { kind: "applied", behavior };
}

function end(
  tx: Session,
  row: ExecutionRow,
  effect: Extract<ReturnType<typeof timeoutEffect>, { kind: "end" }>,
  nowMs: number,
): void {
  const { outcome, failureReason, closeReason } = effect;
  changeDetails(row, {
    failureReason,
    failureCategory: "timeout",
    ...(outcome === "cancelled"
      ? { cancellationReason: failureReason, cancelledBy: "system_timeout" }
      : {}),
  });
  enterTerminal(tx, row, outcome, nowMs, {
    actor: "engine",
    reason: failureReason,
    closeReason,
    closes: "suspension_timeout",
  });
}

/** Stays suspended, for signals and operators, without a timeout from now on. */
function escalate(
  tx: Session,
  row: ExecutionRow,
  timeoutAtMs: number,
  nowMs: number,
): void {
  clearTimeoutOf(tx, row);
  unlimitActiveWaitpoints(tx, row.seq);
  row.timeout_at = null;
  row.reason = reasonCode("paused_by_operator");
  row.transitioned_at = nowMs;
  row.mutated_at = nowMs;
  changeDetails(row, {
    blockingDetail: `suspension timed out at ${timeoutAtMs}`,
  });
  appendEvent(tx, row, "blocked", nowMs, "engine", {
    reason: "paused_by_operator",
    data: { timeoutAtMs },
  });
}
