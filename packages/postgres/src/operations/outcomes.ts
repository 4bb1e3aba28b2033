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
  type Grouped,
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
import { grouped } from "../grouped.js";
import {
  findExecution,
  lockAhead,
  lockExecution,
  saveExecution,
} from "../procedures/executions.js";
import { failAttempt, type Failure } from "../procedures/failure.js";
import { enterTerminal, ringAfterCommit } from "../procedures/lifecycle.js";
import { appendEvent } from "../procedures/log.js";
import { reportQuickly, type Report } from "../procedures/quick-holding.js";
import type { Ending } from "../procedures/quick-outcomes.js";
import {
  endAndClaimQuickly,
  endQuickly,
  type End,
  type EndAndClaim,
  type EndedAndClaimed,
} from "../procedures/quick.js";
import { suspendedUnder } from "../procedures/suspensions.js";
import type { Session, Store } from "../store.js";
import { claimNow } from "./claims.js";
import { cancel, refuseMarking } from "./executions.js";
import { lockFenced, readHandle } from "./leases.js";

export function outcomeOperations(
  store: Store,
): Implementation<OutcomeOperations> {
  const { db } = store;
  const endings = grouped((items: readonly Ending[]) =>
    endQuickly(store, items),
  );
  const endingsAndClaims = grouped((calls: readonly EndAndClaim[]) =>
    endAndClaimQuickly(store, calls),
  );
  const reports = grouped((items: readonly Report[]) =>
    reportQuickly(store, items),
  );
  const endSlowly = (ending: Ending) =>
    db.write(async (tx) => await endOwn(store, tx, ending));
  return {
    async complete({ handle, payload }) {
      const own = settle(readHandle(handle));
      const ending = { own, payload };
      if ((await endings.call(ending, payload?.length)) === undefined)
        settle(await endSlowly(ending));
    },

    async fail({ handle, reason, classification }) {
      const own = settle(readHandle(handle));
      const ending = { own, failure: failureOf(reason, classification) };
      const end = (await endings.call(ending)) as FailResult | undefined;
      return end ?? (settle(await endSlowly(ending)) as FailResult);
    },

    async cancel({ handle, reason }) {
      const own = readHandle(handle);
      settle(
        await db.write(async (tx) => {
          if (isRefusal(own)) return own;
          const answer = await cancel(store, tx, {
            executionId: own.executionId,
            reason,
            source: "lease_holder",
            fence: own,
          });
          return await reconciled(answer, (detail) =>
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
        await db.write(
          async (tx) => await delayOwn(store, tx, own, delayUntilMs),
        ),
      );
    },

    async progress({ handle, percent, message }) {
      const own = settle(readHandle(handle));
      if (await reports.call({ own, percent, message })) return;
      settle(
        await db.write(async (tx) => {
          const row = await lockFenced(store, tx, own, { marks: false });
          if (isRefusal(row)) return row;
          const now = effectiveNow(row, tx.now());

          const loggedAt =
            row.progress_at === null
              ? null
              : ((
                  await tx.get<{ logged_at: number | null }>(
                    READ_LOGGED_AT,
                    row.seq,
                  )
                )?.logged_at ?? null);
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
      return await endEach(
        store,
        endings,
        items.map(({ handle, payload }) => ({
          own: tryReadHandle(handle),
          payload,
        })),
      );
    },

    async completeAndClaim({ items, claim }) {
      const given = items.map(({ handle, payload, failure }) => ({
        own: tryReadHandle(handle),
        payload,
        failure: failure && failureOf(failure.reason, failure.classification),
      }));
      if (claim === undefined)
        return { results: await endEach(store, endings, given), claimed: [] };
      const answer =
        (await endAndClaim(endingsAndClaims, given, claim)) ??
        (await db.write(async (tx) => {
          const results = await inOrder(store, tx, given);
          const retried = given.flatMap(({ own }, index) =>
            results[index]!.kind === "retryScheduled" && !isRefusal(own)
              ? [own.executionId]
              : [],
          );
          return {
            results,
            ...(await claimNow(store, tx, claim, new Set<string>(retried))),
          };
        }));
      await store.driver.drive(store, claim);
      return answer;
    },

    async completeExecution(args) {
      return settle(
        await db.write(async (tx) => {
          const row = await lockByTriple(store, tx, args);
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
        await db.write(async (tx) => {
          const row = await lockByTriple(store, tx, args);
          if (isRefusal(row)) return row;

          const failure = {
            message: args.failureReason,
            category: args.failureCategory,
            classification: failureClassOf(args.failureCategory),
            actor: "worker" as const,
          };
          const answer = await failAttempt(
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

/** A bad handle is its item's own matter. */
type GivenEnding = Omit<Ending, "own"> & {
  readonly own: HandlePayload | Refusal;
};

const isReadable = (given: GivenEnding): given is Ending =>
  !isRefusal(given.own);

function failureOf(
  reason: Args<"fail">["reason"],
  classification: FailureClass,
): Failure {
  return {
    message: reason.message,
    category:
      reason.detail === undefined || reason.detail.length === 0
        ? classification
        : storableText(Buffer.from(reason.detail).toString("utf8")),
    classification,
    actor: "worker",
  };
}

/** Those that a statement has not ended are looked at more closely, in a transaction behind it. */
async function endEach(
  store: Store,
  endings: Grouped<Ending, End>,
  given: readonly GivenEnding[],
): Promise<OutcomeResult[]> {
  const readable = given.filter(isReadable);
  const ends = await Promise.all(
    readable.map((ending) => endings.call(ending, ending.payload?.length)),
  );
  const known = new Map(readable.map((ending, index) => [ending, ends[index]]));
  const rest = given.filter(
    (one) => !isReadable(one) || known.get(one) === undefined,
  );
  const results =
    rest.length === 0
      ? []
      : await store.db.write(async (tx) => await inOrder(store, tx, rest));
  const others = results.values();
  return given.map(
    (one) =>
      (isReadable(one) ? known.get(one) : undefined) ?? others.next().value!,
  );
}

/** By one statement, where nothing is out of the ordinary. */
async function endAndClaim(
  endingsAndClaims: Grouped<EndAndClaim, EndedAndClaimed | undefined>,
  given: readonly GivenEnding[],
  claim: Args<"claimMany">,
) {
  const readable = given.filter(isReadable);
  if (readable.length < given.length) return undefined;
  const bytes = readable.reduce(
    (sum, { payload }) => sum + (payload?.length ?? 0),
    0,
  );
  const answer = await endingsAndClaims.call(
    { endings: readable, claim },
    bytes,
  );
  if (answer === undefined) return undefined;
  const { ends, ...claimed } = answer;
  return { results: ends.map((end) => end!), ...claimed };
}

async function endOwn(
  store: Store,
  tx: Session,
  { own, payload, failure }: GivenEnding,
): Promise<{ kind: "completed" } | FailResult | Refusal> {
  if (isRefusal(own)) return own;
  return failure === undefined
    ? await completeOwn(store, tx, own, payload)
    : await failOwn(store, tx, own, failure);
}

async function completeOwn(
  store: Store,
  tx: Session,
  own: HandlePayload,
  payload: Uint8Array | undefined,
): Promise<{ kind: "completed" } | Refusal> {
  const row = await lockFenced(store, tx, own);
  if (isRefusal(row))
    return await reconciled(row, (detail) =>
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

async function failOwn(
  store: Store,
  tx: Session,
  own: HandlePayload,
  failure: Failure,
): Promise<FailResult | Refusal> {
  const row = await lockFenced(store, tx, own);
  if (isRefusal(row)) {
    return await reconciled(row, async (detail) => {
      if (endedByUs(detail, own, "failed")) return { kind: "terminalFailed" };
      const stored = (await findExecution(store, tx, {
        executionId: own.executionId,
      }))!;
      if (
        !retryScheduledByUs(detail, own, ATTEMPT_STATES[stored.attempt_state]!)
      )
        return undefined;
      return { kind: "retryScheduled", delayUntilMs: stored.delay_until ?? 0 };
    });
  }

  return await failAttempt(
    store,
    tx,
    row,
    failure,
    effectiveNow(row, tx.now()),
  );
}

async function delayOwn(
  store: Store,
  tx: Session,
  own: HandlePayload | Refusal,
  delayUntilMs: number,
): Promise<{ delayUntilMs: number } | Refusal> {
  if (isRefusal(own)) return own;
  const row = await lockFenced(store, tx, own);
  if (isRefusal(row)) {
    return await reconciled(row, async (detail) => {
      const stored = (await findExecution(store, tx, {
        executionId: own.executionId,
      }))!;
      // A lease may also have ended by suspending, which leaves the same traces once it is resumed.
      return parkedByUs(detail, own) &&
        isInterrupted(stored) &&
        !(await suspendedUnder(tx, stored, own.leaseEpoch))
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
async function lockByTriple(
  store: Store,
  tx: Session,
  args: Args<"completeExecution"> | Args<"failExecution">,
): Promise<ExecutionRow | Refusal> {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const refusal =
    checkTriple(args.fence, args.source === "operator_override") ??
    checkFence(fencedRecord(row), args.fence, now);
  return refusal === undefined
    ? row
    : refuseMarking(store, tx, row, refusal, now);
}

/** The outcomes of one batch: all rows are locked ahead, in one order for every process, then each has its turn. */
async function inOrder(
  store: Store,
  tx: Session,
  given: readonly GivenEnding[],
): Promise<OutcomeResult[]> {
  await lockAhead(
    tx,
    given.filter(isReadable).map(({ own }) => own.executionId),
  );
  const results: OutcomeResult[] = [];
  for (const ending of given)
    results.push(outcomeOf(await endOwn(store, tx, ending)));
  return results;
}

/** A refusal that turns out to be our own earlier success is answered as that. */
async function reconciled<Answer>(
  answer: Answer | Refusal,
  recognise: (
    detail: ExecutionNotActiveDetail,
  ) => Answer | undefined | Promise<Answer | undefined>,
): Promise<Answer | Refusal> {
  if (
    !isRefusal(answer) ||
    !isEngineError(answer.refused, "execution_not_active")
  )
    return answer;
  return (await recognise(answer.refused.detail)) ?? answer;
}

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

const WRITE_RESULT = `
  INSERT INTO results (seq, payload)
  VALUES (?, ?)
  ON CONFLICT (seq) DO UPDATE
  SET payload = excluded.payload`;

const READ_LOGGED_AT = `
  SELECT logged_at
  FROM progress
  WHERE seq = ?`;

const WRITE_PROGRESS = `
  INSERT INTO progress AS p (seq, percent, message, logged_at)
  VALUES (?, ?, ?, ?)
  ON CONFLICT (seq) DO UPDATE
  SET percent = coalesce(excluded.percent, p.percent), message = coalesce(excluded.message, p.message),
    logged_at = excluded.logged_at`;
