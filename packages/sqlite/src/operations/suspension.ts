import {
  checkFence,
  checkTriple,
  decodeHandle,
  HOME,
  isRefusal,
  mintToken,
  observableSignals,
  OPEN_WAITPOINTS_MAX,
  refuse,
  SUSPEND_TIMEOUT_TOLERANCE_MS,
  type Args,
  type ExecutionId,
  type Implementation,
  type LeaseFence,
  type Namespace,
  type PendingWaitpoint,
  type Refusal,
  type ResumeSignal,
  type SuspendedExecutionEntry,
  type SuspendOutcome,
  type SuspensionOperations,
  type WaitpointId,
} from "@flowfabric/core";
import {
  bytesToUuid,
  effectiveNow,
  EXECUTION_COLUMNS,
  executionIdOf,
  fencedRecord,
  formatSuspendedCursor,
  optional,
  parseSuspendedCursor,
  publicStateAt,
  readCondition,
  readReceipt,
  timeoutSignal,
  tokenOf,
  toResumeSignal,
  toWaitpointInfo,
  waitpointState,
  type ExecutionRow,
  type SuspendArgs,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import {
  lockExecution,
  saveExecution,
  selectExecutions,
} from "../procedures/executions.js";
import { readKeystore } from "../procedures/keystore.js";
import { ringAfterCommit } from "../procedures/lifecycle.js";
import { appendEvent } from "../procedures/log.js";
import { resumeSuspended } from "../procedures/resuming.js";
import { readContributors } from "../procedures/signals.js";
import { outcomeOf, suspendAttempt } from "../procedures/suspending.js";
import {
  findReceipt,
  readOpenSuspension,
  readSuspension,
} from "../procedures/suspensions.js";
import {
  closeWaitpoint,
  countOpenWaitpoints,
  findWaitpoint,
  insertWaitpoint,
  listOpenWaitpoints,
} from "../procedures/waitpoints.js";
import type { Session, Store } from "../store.js";
import { refuseMarking } from "./executions.js";
import { lockFenced, readHandle } from "./leases.js";

export function suspensionOperations(
  store: Store,
): Implementation<SuspensionOperations> {
  const { db } = store;
  return {
    async suspend({ handle, ...args }) {
      const own = decodeHandle(handle, "sqlite");
      return settle(
        await db.write((tx) => suspend(store, tx, args, own, own.attemptIndex)),
      );
    },

    async suspendByTriple(args) {
      return settle(
        await db.write((tx) =>
          suspend(store, tx, args, { ...args, ...args.fence }),
        ),
      );
    },

    async createWaitpoint(args) {
      const own =
        args.handle.kind === "suspended"
          ? refuse("already_suspended", {})
          : decodeHandle(args.handle, "sqlite");
      return settle(
        await db.write((tx) => {
          if (isRefusal(own)) return own;
          const row = lockFenced(store, tx, own, { marks: false });
          return isRefusal(row) ? row : createWaitpoint(tx, row, args);
        }),
      );
    },

    async closeWaitpoint(args) {
      return settle(await db.write((tx) => close(store, tx, args)));
    },

    async observeSignals({ handle }) {
      const own = decodeHandle(handle, "sqlite");
      return settle(
        await db.read((tx) => {
          const row = lockExecution(store, tx, {
            executionId: own.executionId,
          });
          if (isRefusal(row)) return row;
          const suspended = handle.kind === "suspended";
          return observe(tx, row, {
            attemptIndex: own.attemptIndex,
            suspended,
          });
        }),
      );
    },

    async resumeExecution(args) {
      return settle(await db.write((tx) => resume(store, tx, args)));
    },

    async readWaitpointToken(args) {
      return settle(
        await db.read((tx) => {
          const row = lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const waitpoint = findWaitpoint(tx, row, args.waitpointId);
          const now = effectiveNow(row, tx.now());
          if (waitpoint === undefined || !isOpen(waitpoint, now))
            return undefined;
          return tokenOf(waitpoint, args.executionId, readKeystore(tx), now);
        }),
      );
    },

    async listPendingWaitpoints(args) {
      return settle(await db.read((tx) => listWaitpoints(store, tx, args)));
    },

    listSuspended: (args) => db.read((tx) => listSuspended(tx, args)),
  };
}

interface Claimed extends LeaseFence {
  readonly executionId: ExecutionId;
  readonly namespace?: Namespace | undefined;
}

function suspend(
  store: Store,
  tx: Session,
  args: SuspendArgs,
  claimed: Claimed,
  attemptIndex?: number,
): SuspendOutcome | Refusal {
  const { timeoutAtMs } = args;
  if (
    timeoutAtMs !== undefined &&
    timeoutAtMs + SUSPEND_TIMEOUT_TOLERANCE_MS < tx.now()
  )
    return refuse("invalid_input", {
      reason: "timeout_at_in_past",
      field: "timeoutAtMs",
    });
  const row = lockExecution(store, tx, {
    executionId: claimed.executionId,
    namespace: claimed.namespace,
  });
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const receipt = findReceipt(tx, row, args, claimed, now);
  if (receipt !== undefined)
    return outcomeOf(store, tx, row, receipt, readKeystore(tx), now);

  const refusal =
    checkTriple(claimed, false) ?? checkFence(fencedRecord(row), claimed, now);
  if (refusal !== undefined) return refuseMarking(store, tx, row, refusal, now);
  if (attemptIndex !== undefined && attemptIndex !== row.attempt)
    return refuse("invalid_lease_for_suspend", {});

  return suspendAttempt(store, tx, row, args, now);
}

function createWaitpoint(
  tx: Session,
  row: ExecutionRow,
  { waitpointId, waitpointKey, expiresInMs }: Args<"createWaitpoint">,
): PendingWaitpoint | Refusal {
  const now = effectiveNow(row, tx.now());

  if (findWaitpoint(tx, row, waitpointId) !== undefined)
    return refuse("waitpoint_already_exists", {});
  if (countOpenWaitpoints(tx, row, now) >= OPEN_WAITPOINTS_MAX)
    return refuse("waitpoint_limit_exceeded", { limit: OPEN_WAITPOINTS_MAX });
  const minted = mintToken(readKeystore(tx), {
    executionId: executionIdOf(row),
    waitpointId,
    createdAtMs: now,
    waitpointKey,
  });
  if (isRefusal(minted)) return minted;

  insertWaitpoint(
    tx,
    row,
    {
      waitpointId,
      waitpointKey,
      kid: minted.kid,
      expiresAtMs: now + expiresInMs,
    },
    now,
  );
  row.mutated_at = now;
  saveExecution(tx, row);

  return { waitpointId, hmacToken: minted.token };
}

function close(
  store: Store,
  tx: Session,
  args: Args<"closeWaitpoint">,
): { readonly kind: "closed" | "alreadyClosed" } | Refusal {
  const byWorker = "handle" in args ? readHandle(args.handle) : undefined;
  if (isRefusal(byWorker)) return byWorker;
  const row = lockExecution(store, tx, byWorker ?? (args as CloseByOperator));
  if (isRefusal(row)) return row;
  const { waitpointId } = args;
  const waitpoint = findWaitpoint(tx, row, waitpointId);
  const now = effectiveNow(row, tx.now());

  if (waitpoint === undefined)
    return refuse("waitpoint_not_found", { entity: "waitpoint", waitpointId });
  if (!isOpen(waitpoint, now)) return { kind: "alreadyClosed" };
  if (byWorker !== undefined) {
    const fenced = lockFenced(store, tx, byWorker, { marks: false });
    if (isRefusal(fenced)) return fenced;
    if (waitpointState(waitpoint, now) !== "pending")
      return refuse("waitpoint_not_pending", {});
  }

  closeWaitpoint(tx, waitpoint, args.reason, now);

  return { kind: "closed" };
}

type CloseByOperator = Extract<
  Args<"closeWaitpoint">,
  { readonly operator: true }
>;

function isOpen(
  waitpoint: Parameters<typeof waitpointState>[0],
  nowMs: number,
): boolean {
  return ["pending", "active"].includes(waitpointState(waitpoint, nowMs));
}

function observe(
  tx: Session,
  row: ExecutionRow,
  handle: { readonly attemptIndex: number; readonly suspended: boolean },
): ResumeSignal[] {
  const suspension = readSuspension(tx, row);
  if (suspension === undefined) return [];
  const seen = observableSignals(
    {
      attemptIndex: suspension.attempt,
      open: suspension.closed_at === null,
      trigger: suspension.resume_trigger ?? undefined,
      timeoutBehavior: suspension.timeout_behavior,
    },
    handle,
  );
  const { waitpoints } = readReceipt(suspension.receipt);
  const contributors = seen.contributors
    ? readContributors(tx, row, waitpoints).map(toResumeSignal)
    : [];
  return seen.timeoutSignal
    ? [...contributors, timeoutSignal(suspension)]
    : contributors;
}

function resume(store: Store, tx: Session, args: Args<"resumeExecution">) {
  const row = lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if (row.home !== HOME.suspended || readOpenSuspension(tx, row) === undefined)
    return refuse("execution_not_suspended", {});

  const { triggerType: trigger, resumeDelayMs } = args;
  resumeSuspended(
    tx,
    row,
    { closeReason: "resumed", trigger },
    resumeDelayMs,
    now,
  );
  const actor = trigger === "operator" ? "operator" : "engine";
  appendEvent(tx, row, "unblocked", now, actor, { reason: trigger });
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  return { kind: "resumed" as const, publicState: publicStateAt(row, now) };
}

function listWaitpoints(
  store: Store,
  tx: Session,
  args: Args<"listPendingWaitpoints">,
) {
  const row = lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const rows = listOpenWaitpoints(tx, row, args.after, now, args.limit + 1);
  const suspension = readOpenSuspension(tx, row);
  const condition = suspension && readCondition(suspension);
  const keystore = readKeystore(tx);
  const page = rows.slice(0, args.limit);
  return {
    entries: page.map((waitpoint) =>
      toWaitpointInfo(waitpoint, executionIdOf(row), condition, keystore, now),
    ),
    ...(rows.length > args.limit
      ? { nextCursor: bytesToUuid(page.at(-1)!.id) as WaitpointId }
      : {}),
  };
}

function listSuspended(
  tx: Session,
  { cursor, limit, partition }: Args<"listSuspended">,
): { entries: SuspendedExecutionEntry[]; nextCursor?: string } {
  const after = parseSuspendedCursor(cursor) ?? BEFORE_ALL;
  if (limit === 0) return { entries: [] };
  const rows = selectExecutions(
    tx,
    LIST_SUSPENDED,
    after.score,
    after.id,
    after.partition,
    partition ?? null,
    limit + 1,
  );
  const page = rows.slice(0, limit);
  return {
    entries: page.map((row) => ({
      executionId: executionIdOf(row),
      suspendedAtMs: row.score,
      ...optional("timeoutAtMs", row.timeout_at),
      reason: readOpenSuspension(tx, row)!.reason,
    })),
    ...(rows.length > limit
      ? { nextCursor: formatSuspendedCursor(page.at(-1)!) }
      : {}),
  };
}

const BEFORE_ALL = { score: -1, id: new Uint8Array(), partition: 0 };

export const LIST_SUSPENDED = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE home = ${HOME.suspended} AND (score, id, partition) > (?, ?, ?) AND partition = coalesce(?, partition)
  ORDER BY score, id, partition
  LIMIT ?`;
