import {
  checkFence,
  checkTriple,
  clampPriority,
  HOME,
  HOMES,
  isRefusal,
  isRunnableHome,
  isTerminalHome,
  notActiveDetail,
  refuse,
  type Args,
  type ExecutionOperations,
  type Implementation,
  type Refusal,
} from "@flowfabric/core";
import {
  attemptStateCode,
  changeDetails,
  effectiveNow,
  eligibleScore,
  type ExecutionRow,
  fencedRecord,
  HOLD,
  placeRunnable,
  publicStateAt,
  readDetails,
} from "@flowfabric/core/sql";

import { submitInTransaction } from "../caller-transaction.js";
import { settle } from "../errors.js";
import { lockExecution, saveExecution } from "../procedures/executions.js";
import {
  archiveAttempt,
  dropGrant,
  enterTerminal,
  markLapsedIfDue,
  promoteIfDue,
  ringAfterCommit,
} from "../procedures/lifecycle.js";
import { appendEvent } from "../procedures/log.js";
import { readPolicy } from "../procedures/policy.js";
import { submitBatch, Submissions } from "../procedures/submit.js";
import type { Session, Store } from "../store.js";

export function executionOperations(
  store: Store,
): Implementation<ExecutionOperations> {
  const { db } = store;
  const submissions = new Submissions(store);
  return {
    async createExecution(args) {
      return settle(await submissions.submit(args));
    },

    async submitMany(args) {
      return await submitBatch(store, args);
    },

    async createExecutionInTransaction(args) {
      return settle(await submitInTransaction(store, args));
    },

    async cancelExecution(args) {
      return settle(
        await db.write(async (tx) => await cancel(store, tx, args)),
      );
    },

    async replayExecution(args) {
      return settle(
        await db.write(async (tx) => await replay(store, tx, args)),
      );
    },

    async changePriority(args) {
      return settle(
        await db.write(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const now = effectiveNow(row, tx.now());
          const due = row.home === HOME.delayed && row.score <= now;

          if (row.home !== HOME.eligible && !due)
            return refuse("execution_not_eligible", {});

          promoteIfDue(tx, row, now);
          const oldPriority = row.priority;
          const newPriority = clampPriority(args.newPriority);
          if (newPriority !== oldPriority) {
            row.priority = newPriority;
            row.score = eligibleScore(row);
            row.mutated_at = now;
            appendEvent(tx, row, "priority_changed", now, "operator", {
              transition: false,
              data: { oldPriority, newPriority },
            });
          }
          saveExecution(tx, row);
          ringAfterCommit(store, tx, row);

          return {
            kind: "changed" as const,
            executionId: args.executionId,
            oldPriority,
            newPriority,
          };
        }),
      );
    },

    async holdExecution(args) {
      return settle(await db.write(async (tx) => await hold(store, tx, args)));
    },

    async unholdExecution(args) {
      return settle(
        await db.write(async (tx) => await unhold(store, tx, args)),
      );
    },
  };
}

/** Also the form with a handle, whose source is the lease holder. */
export async function cancel(
  store: Store,
  tx: Session,
  args: Args<"cancelExecution">,
) {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (isTerminalHome(row.home))
    return refuse("execution_not_active", notActiveDetail(fencedRecord(row)));
  const byHolder = args.source === "lease_holder";
  if (byHolder) {
    const refusal =
      checkTriple(args.fence, false) ??
      checkFence(fencedRecord(row), args.fence, now);
    if (refusal !== undefined)
      return refuseMarking(store, tx, row, refusal, now);
  }

  promoteIfDue(tx, row, now);
  markLapsedIfDue(tx, row, now);
  changeDetails(row, {
    cancellationReason: args.reason,
    cancelledBy: args.source,
  });
  enterTerminal(tx, row, "cancelled", now, {
    actor: byHolder ? "worker" : "operator",
    reason: args.reason,
    tellHolder: !byHolder,
    data: { source: args.source },
  });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  return {
    kind: "cancelled" as const,
    executionId: args.executionId,
    publicState: "cancelled" as const,
  };
}

/** A refusal that found the lease lapsed writes that down before it is answered (04 §0.3). */
export function refuseMarking(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  refusal: Refusal & { markLapsed?: true },
  nowMs: number,
): Refusal {
  if (refusal.markLapsed === true) {
    markLapsedIfDue(tx, row, nowMs);
    saveExecution(tx, row);
    ringAfterCommit(store, tx, row);
  }
  return refusal;
}

async function replay(
  store: Store,
  tx: Session,
  args: Args<"replayExecution">,
) {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (!isTerminalHome(row.home)) return refuse("execution_not_terminal", {});
  const limit = (await readPolicy(tx, row)).maxReplayCount;
  if (row.replays >= limit) return refuse("max_replays_exhausted", { limit });

  const result =
    (await tx.get<{ payload: Uint8Array }>(READ_RESULT, row.seq))?.payload ??
    null;
  const { cancellationReason = "" } = readDetails(row.details);
  archiveAttempt(
    tx,
    row,
    now,
    row.home === HOME.cancelled
      ? { failureReason: `cancelled: ${cancellationReason}` }
      : {},
    result,
  );
  if (result !== null) tx.run(DELETE_RESULT, row.seq);
  if (row.progress_at !== null) {
    tx.run(DELETE_PROGRESS, row.seq);
    row.progress_at = null;
  }
  row.details = null;
  changeDetails(row, {
    nextReason: args.reason,
    nextRequestedBy: args.requestedBy,
    nextPrevious: row.attempts > 0 ? row.attempt : undefined,
  });
  row.attempt_id = null;
  row.attempt_state = attemptStateCode("pending_replay_attempt");
  row.replays++;
  row.retries = 0;
  row.reclaims = 0;
  row.completed_at = null;
  row.deadline_at =
    args.executionDeadlineAtMs ??
    (row.deadline_at !== null && row.deadline_at > now
      ? row.deadline_at
      : null);
  placeRunnable(row, now);
  appendEvent(tx, row, "replayed", now, "operator", {
    reason: args.reason,
    data: { replayCount: row.replays },
  });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);
  const { deadline_at: deadlineAt } = row;
  if (deadlineAt !== null)
    tx.afterCommit(() => store.wakeups.ringTimer(deadlineAt - now));

  return { kind: "replayed" as const, publicState: publicStateAt(row, now) };
}

async function hold(store: Store, tx: Session, args: Args<"holdExecution">) {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (isTerminalHome(row.home))
    return refuse("execution_not_active", notActiveDetail(fencedRecord(row)));
  if ((row.holds & HOLD.operator) !== 0)
    return { kind: "alreadySatisfied" as const };
  if (!isRunnableHome(row.home)) return refuse("execution_not_eligible", {});

  placeHold(tx, row, HOLD.operator, args.reason, now);
  appendEvent(tx, row, "held", now, "operator", { reason: args.reason });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  return { kind: "held" as const };
}

/** A hold on a runnable execution, beside whatever stands below it. */
export function placeHold(
  tx: Session,
  row: ExecutionRow,
  bit: number,
  detail: string | undefined,
  nowMs: number,
): void {
  promoteIfDue(tx, row, nowMs);
  dropGrant(tx, row);
  row.holds |= bit;
  changeDetails(row, { blockingDetail: detail, blockedAtMs: nowMs });
  placeRunnable(row, nowMs);
}

async function unhold(
  store: Store,
  tx: Session,
  args: Args<"unholdExecution">,
) {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (isTerminalHome(row.home))
    return refuse("execution_not_active", notActiveDetail(fencedRecord(row)));
  const held = (row.holds & HOLD.operator) !== 0;
  if (!held) {
    return HOMES[row.home].phase === "runnable"
      ? { kind: "alreadySatisfied" as const }
      : refuse("execution_not_eligible", {});
  }

  row.holds &= ~HOLD.operator;
  row.mutated_at = now;
  changeDetails(row, { blockingDetail: undefined, blockedAtMs: undefined });
  const transition = isRunnableHome(row.home);
  if (transition) placeRunnable(row, now);
  appendEvent(tx, row, "released_hold", now, "operator", { transition });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  return { kind: "released" as const };
}

const READ_RESULT = `
  SELECT payload
  FROM results
  WHERE seq = ?`;

const DELETE_RESULT = `
  DELETE FROM results
  WHERE seq = ?`;

const DELETE_PROGRESS = `
  DELETE FROM progress
  WHERE seq = ?`;
