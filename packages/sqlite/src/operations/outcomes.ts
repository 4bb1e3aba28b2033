import {
  ATTEMPT_STATES,
  checkFence,
  checkTriple,
  endedByUs,
  failureClassOf,
  isEngineError,
  isRefusal,
  parkedByUs,
  PROGRESS_EVENT_INTERVAL_MS,
  retryScheduledByUs,
  storableText,
  type Args,
  type ExecutionNotActiveDetail,
  type FailResult,
  type FailureClass,
  type HandlePayload,
  type Implementation,
  type OutcomeOperations,
  type OutcomeResult,
  type Refusal,
} from "@flowfabric/core";
import {
  attemptStateCode,
  changeDetails,
  effectiveNow,
  type ExecutionRow,
  fencedRecord,
  isInterrupted,
  optional,
  pauseTimeout,
  placeRunnable,
  releaseLease,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import {
  findExecution,
  lockExecution,
  saveExecution,
} from "../procedures/executions.js";
import { failAttempt } from "../procedures/failure.js";
import { enterTerminal, ringAfterCommit } from "../procedures/lifecycle.js";
import { appendEvent } from "../procedures/log.js";
import { suspendedUnder } from "../procedures/suspensions.js";
import type { Session, Store } from "../store.js";
import { claimNow } from "./claims.js";
import { cancel, refuseMarking } from "./executions.js";
import { lockFenced, readHandle } from "./leases.js";

export function outcomeOperations(
  store: Store,
): Implementation<OutcomeOperations> {
  const { db } = store;
  return {
    async complete({ handle, payload }) {
      const own = readHandle(handle);
      settle(await db.write((tx) => completeOwn(store, tx, own, payload)));
    },

    async fail({ handle, reason, classification }) {
      const own = readHandle(handle);
      return settle(
        await db.write((tx) => failOwn(store, tx, own, reason, classification)),
      );
    },

    async cancel({ handle, reason }) {
      const own = readHandle(handle);
      settle(
        await db.write((tx) => {
          if (isRefusal(own)) return own;
          const answer = cancel(store, tx, {
            executionId: own.executionId,
            reason,
            source: "lease_holder",
            fence: own,
          });
          return reconciled(answer, (detail) =>
            endedByUs(detail, own, "cancelled")
              ? {
                  kind: "cancelled",
                  executionId: own.executionId,
                  publicState: "cancelled",
                }
              : undefined,
          );
        }),
      );
    },

    async delay({ handle, delayUntilMs }) {
      const own = readHandle(handle);
      return settle(
        await db.write((tx) => delayOwn(store, tx, own, delayUntilMs)),
      );
    },

    async progress({ handle, percent, message }) {
      const own = readHandle(handle);
      settle(
        await db.write((tx) => {
          if (isRefusal(own)) return own;
          const row = lockFenced(store, tx, own, { marks: false });
          if (isRefusal(row)) return row;
          const now = effectiveNow(row, tx.now());

          const loggedAt =
            row.progress_at === null
              ? null
              : (tx.get<{ logged_at: number | null }>(READ_LOGGED_AT, row.seq)
                  ?.logged_at ?? null);
          const isNews =
            loggedAt === null || now - loggedAt >= PROGRESS_EVENT_INTERVAL_MS;
          tx.run(
            WRITE_PROGRESS,
            row.seq,
            percent ?? null,
            message ?? null,
            isNews ? now : loggedAt,
          );
          row.progress_at = now;
          row.mutated_at = now;
          if (isNews) {
            appendEvent(tx, row, "progress", now, "worker", {
              transition: false,
              data: {
                ...optional("percent", percent),
                ...optional("message", message),
              },
            });
          }
          saveExecution(tx, row);
          ringAfterCommit(store, tx, row);

          return undefined;
        }),
      );
    },

    async completeMany({ items }) {
      const owned = items.map(({ handle, payload }) => ({
        own: tryReadHandle(handle),
        payload,
      }));
      return await db.write((tx) =>
        owned.map(({ own, payload }) =>
          outcomeOf(completeOwn(store, tx, own, payload)),
        ),
      );
    },

    async completeAndClaim({ items, claim }) {
      const owned = items.map(({ handle, payload, failure }) => ({
        own: tryReadHandle(handle),
        payload,
        failure,
      }));
      const answer = await db.write((tx) => {
        const results = owned.map(({ own, payload, failure }) =>
          outcomeOf(
            failure === undefined
              ? completeOwn(store, tx, own, payload)
              : failOwn(store, tx, own, failure.reason, failure.classification),
          ),
        );
        if (claim === undefined) return { results, claimed: [] };
        const retried = owned.flatMap(({ own }, index) =>
          results[index]!.kind === "retryScheduled" && !isRefusal(own)
            ? [own.executionId]
            : [],
        );
        return {
          results,
          ...claimNow(store, tx, claim, new Set<string>(retried)),
        };
      });
      if (claim !== undefined) await store.driver.drive(store, claim);
      return answer;
    },

    async completeExecution(args) {
      return settle(
        await db.write((tx) => {
          const row = lockByTriple(store, tx, args);
          if (isRefusal(row)) return row;

          complete(
            store,
            tx,
            row,
            args.resultPayload,
            effectiveNow(row, tx.now()),
          );

          return {
            kind: "completed" as const,
            executionId: args.executionId,
            publicState: "completed" as const,
          };
        }),
      );
    },

    async failExecution(args) {
      return settle(
        await db.write((tx) => {
          const row = lockByTriple(store, tx, args);
          if (isRefusal(row)) return row;

          const failure = {
            message: args.failureReason,
            category: args.failureCategory,
            classification: failureClassOf(args.failureCategory),
            actor: "worker" as const,
          };
          const answer = failAttempt(
            store,
            tx,
            row,
            failure,
            effectiveNow(row, tx.now()),
          );

          return answer.kind === "terminalFailed"
            ? answer
            : { ...answer, nextAttemptIndex: row.attempts };
        }),
      );
    },
  };
}

type Failure = Args<"fail">["reason"];

function completeOwn(
  store: Store,
  tx: Session,
  own: HandlePayload | Refusal,
  payload: Uint8Array | undefined,
): { kind: "completed" } | Refusal {
  if (isRefusal(own)) return own;
  const row = lockFenced(store, tx, own);
  if (isRefusal(row))
    return reconciled(row, (detail) =>
      endedByUs(detail, own, "success") ? { kind: "completed" } : undefined,
    );

  complete(store, tx, row, payload, effectiveNow(row, tx.now()));

  return { kind: "completed" };
}

/** The result goes in first: a reader may look as soon as the state says completed. */
function complete(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  payload: Uint8Array | undefined,
  nowMs: number,
): void {
  if (payload !== undefined) tx.run(WRITE_RESULT, row.seq, payload);
  changeDetails(row, { failureReason: undefined, failureCategory: undefined });
  enterTerminal(tx, row, "success", nowMs, { actor: "worker" });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);
}

function failOwn(
  store: Store,
  tx: Session,
  own: HandlePayload | Refusal,
  reason: Failure,
  classification: FailureClass,
): FailResult | Refusal {
  if (isRefusal(own)) return own;
  const row = lockFenced(store, tx, own);
  if (isRefusal(row)) {
    return reconciled(row, (detail) => {
      if (endedByUs(detail, own, "failed")) return { kind: "terminalFailed" };
      const stored = findExecution(store, tx, {
        executionId: own.executionId,
      })!;
      if (
        !retryScheduledByUs(detail, own, ATTEMPT_STATES[stored.attempt_state]!)
      )
        return undefined;
      return { kind: "retryScheduled", delayUntilMs: stored.delay_until ?? 0 };
    });
  }

  const category =
    reason.detail === undefined || reason.detail.length === 0
      ? classification
      : storableText(Buffer.from(reason.detail).toString("utf8"));
  const failure = {
    message: reason.message,
    category,
    classification,
    actor: "worker" as const,
  };
  return failAttempt(store, tx, row, failure, effectiveNow(row, tx.now()));
}

function delayOwn(
  store: Store,
  tx: Session,
  own: HandlePayload | Refusal,
  delayUntilMs: number,
): { delayUntilMs: number } | Refusal {
  if (isRefusal(own)) return own;
  const row = lockFenced(store, tx, own);
  if (isRefusal(row)) {
    return reconciled(row, (detail) => {
      const stored = findExecution(store, tx, {
        executionId: own.executionId,
      })!;
      // A lease may also have ended by suspending, which leaves the same traces once it is resumed.
      return parkedByUs(detail, own) &&
        isInterrupted(stored) &&
        !suspendedUnder(tx, stored, own.leaseEpoch)
        ? { delayUntilMs: stored.delay_until ?? delayUntilMs }
        : undefined;
    });
  }
  const now = effectiveNow(row, tx.now());

  pauseTimeout(row, now);
  releaseLease(row);
  row.attempt_state = attemptStateCode("attempt_interrupted");
  row.delay_until = delayUntilMs;
  placeRunnable(row, now, "waiting_for_delay");
  appendEvent(tx, row, "delayed", now, "worker", { data: { delayUntilMs } });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  return { delayUntilMs };
}

/** By fence triple; an operator may waive it, but not the state of the lease. */
function lockByTriple(
  store: Store,
  tx: Session,
  args: Args<"completeExecution"> | Args<"failExecution">,
): ExecutionRow | Refusal {
  const row = lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const refusal =
    checkTriple(args.fence, args.source === "operator_override") ??
    checkFence(fencedRecord(row), args.fence, now);
  return refusal === undefined
    ? row
    : refuseMarking(store, tx, row, refusal, now);
}

/** A refusal that turns out to be our own earlier success is answered as that. */
function reconciled<Answer>(
  answer: Answer | Refusal,
  recognise: (detail: ExecutionNotActiveDetail) => Answer | undefined,
): Answer | Refusal {
  if (
    !isRefusal(answer) ||
    !isEngineError(answer.refused, "execution_not_active")
  )
    return answer;
  return recognise(answer.refused.detail) ?? answer;
}

/** A bad handle is its item's own matter. */
function tryReadHandle(
  handle: Args<"complete">["handle"],
): HandlePayload | Refusal {
  try {
    return readHandle(handle);
  } catch (error) {
    if (isEngineError(error)) return { refused: error };
    throw error;
  }
}

function outcomeOf(
  answer: { kind: "completed" } | FailResult | Refusal,
): OutcomeResult {
  return isRefusal(answer)
    ? {
        kind: "rejected",
        code: answer.refused.code,
        detail: answer.refused.detail,
      }
    : answer;
}

export const WRITE_RESULT = `
  INSERT INTO results (seq, payload)
  VALUES (?, ?)
  ON CONFLICT (seq) DO UPDATE
  SET payload = excluded.payload`;

const READ_LOGGED_AT = `
  SELECT logged_at
  FROM progress
  WHERE seq = ?`;

const WRITE_PROGRESS = `
  INSERT INTO progress (seq, percent, message, logged_at)
  VALUES (?, ?, ?, ?)
  ON CONFLICT (seq) DO UPDATE
  SET percent = coalesce(excluded.percent, percent), message = coalesce(excluded.message, message),
    logged_at = excluded.logged_at`;
