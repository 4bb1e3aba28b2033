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
import {
  outcomeOf,
  readGrounds,
  suspendAttempt,
} from "../procedures/suspending.js";
import {
  findReceipt,
  readOpenSuspension,
  readOpenSuspensions,
  readSuspension,
} from "../procedures/suspensions.js";
import {
  closeWaitpoint,
  countOpenWaitpoints,
  findWaitpoint,
  findWaitpoints,
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
      const own = decodeHandle(handle, "postgres");
      return settle(
        await db.write(
          async (tx) => await suspend(store, tx, args, own, own.attemptIndex),
        ),
      );
    },

    async suspendByTriple(args) {
      return settle(
        await db.write(
          async (tx) =>
            await suspend(store, tx, args, { ...args, ...args.fence }),
        ),
      );
    },

    async createWaitpoint(args) {
      const own =
        args.handle.kind === "suspended"
          ? refuse("already_suspended", {})
          : decodeHandle(args.handle, "postgres");
      return settle(
        await db.write(async (tx) => {
          if (isRefusal(own)) return own;
          const row = await lockFenced(store, tx, own, { marks: false });
          return isRefusal(row) ? row : await createWaitpoint(tx, row, args);
        }),
      );
    },

    async closeWaitpoint(args) {
      return settle(await db.write(async (tx) => await close(store, tx, args)));
    },

    async observeSignals({ handle }) {
      const own = decodeHandle(handle, "postgres");
      return settle(
        await db.read(async (tx) => {
          const row = await lockExecution(store, tx, {
            executionId: own.executionId,
          });
          if (isRefusal(row)) return row;
          const suspended = handle.kind === "suspended";
          return await observe(tx, row, {
            attemptIndex: own.attemptIndex,
            suspended,
          });
        }),
      );
    },

    async resumeExecution(args) {
      return settle(
        await db.write(async (tx) => await resume(store, tx, args)),
      );
    },

    async readWaitpointToken(args) {
      return settle(
        await db.read(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const waitpoint = await findWaitpoint(tx, row, args.waitpointId);
          const now = effectiveNow(row, tx.now());
          if (waitpoint === undefined || !isOpen(waitpoint, now))
            return undefined;
          const keystore = await readKeystore(tx);
          return tokenOf(waitpoint, args.executionId, keystore, now);
        }),
      );
    },

    async listPendingWaitpoints(args) {
      return settle(
        await db.read(async (tx) => await listWaitpoints(store, tx, args)),
      );
    },

    listSuspended: (args) =>
      db.read(async (tx) => await listSuspended(tx, args)),
  };
}

interface Claimed extends LeaseFence {
  readonly executionId: ExecutionId;
  readonly namespace?: Namespace | undefined;
}

async function suspend(
  store: Store,
  tx: Session,
  args: SuspendArgs,
  claimed: Claimed,
  attemptIndex?: number,
): Promise<SuspendOutcome | Refusal> {
  const { timeoutAtMs } = args;
  if (
    timeoutAtMs !== undefined &&
    timeoutAtMs + SUSPEND_TIMEOUT_TOLERANCE_MS < tx.now()
  )
    return refuse("invalid_input", {
      reason: "timeout_at_in_past",
      field: "timeoutAtMs",
    });
  const row = await lockExecution(store, tx, {
    executionId: claimed.executionId,
    namespace: claimed.namespace,
  });
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const [receipt, grounds] = await Promise.all([
    findReceipt(tx, row, args, claimed, now),
    readGrounds(tx, row, args),
  ]);
  if (receipt !== undefined) {
    const waitpoints = await findWaitpoints(tx, row, receipt.waitpoints);
    return outcomeOf(store, row, receipt, waitpoints, grounds.keystore, now);
  }

  const refusal =
    checkTriple(claimed, false) ?? checkFence(fencedRecord(row), claimed, now);
  if (refusal !== undefined) return refuseMarking(store, tx, row, refusal, now);
  if (attemptIndex !== undefined && attemptIndex !== row.attempt)
    return refuse("invalid_lease_for_suspend", {});

  return suspendAttempt(store, tx, row, args, grounds, now);
}

async function createWaitpoint(
  tx: Session,
  row: ExecutionRow,
  { waitpointId, waitpointKey, expiresInMs }: Args<"createWaitpoint">,
): Promise<PendingWaitpoint | Refusal> {
  const now = effectiveNow(row, tx.now());
  const [found, open, keystore] = await Promise.all([
    findWaitpoint(tx, row, waitpointId),
    countOpenWaitpoints(tx, row, now),
    readKeystore(tx),
  ]);

  if (found !== undefined) return refuse("waitpoint_already_exists", {});
  if (open >= OPEN_WAITPOINTS_MAX)
    return refuse("waitpoint_limit_exceeded", { limit: OPEN_WAITPOINTS_MAX });
  const minted = mintToken(keystore, {
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

async function close(
  store: Store,
  tx: Session,
  args: Args<"closeWaitpoint">,
): Promise<{ readonly kind: "closed" | "alreadyClosed" } | Refusal> {
  const byWorker = "handle" in args ? readHandle(args.handle) : undefined;
  if (isRefusal(byWorker)) return byWorker;
  const row = await lockExecution(
    store,
    tx,
    byWorker ?? (args as CloseByOperator),
  );
  if (isRefusal(row)) return row;
  const { waitpointId } = args;
  const waitpoint = await findWaitpoint(tx, row, waitpointId);
  const now = effectiveNow(row, tx.now());

  if (waitpoint === undefined)
    return refuse("waitpoint_not_found", { entity: "waitpoint", waitpointId });
  if (!isOpen(waitpoint, now)) return { kind: "alreadyClosed" };
  if (byWorker !== undefined) {
    const fenced = await lockFenced(store, tx, byWorker, { marks: false });
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

async function observe(
  tx: Session,
  row: ExecutionRow,
  handle: { readonly attemptIndex: number; readonly suspended: boolean },
): Promise<ResumeSignal[]> {
  const suspension = await readSuspension(tx, row);
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
    ? (await readContributors(tx, row, waitpoints)).map(toResumeSignal)
    : [];
  return seen.timeoutSignal
    ? [...contributors, timeoutSignal(suspension)]
    : contributors;
}

async function resume(
  store: Store,
  tx: Session,
  args: Args<"resumeExecution">,
) {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());

  if ((await readOpenSuspension(tx, row)) === undefined)
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

async function listWaitpoints(
  store: Store,
  tx: Session,
  args: Args<"listPendingWaitpoints">,
) {
  const row = await lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const [rows, suspension, keystore] = await Promise.all([
    listOpenWaitpoints(tx, row, args.after, now, args.limit + 1),
    readOpenSuspension(tx, row),
    readKeystore(tx),
  ]);
  const condition = suspension && readCondition(suspension);
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

async function listSuspended(
  tx: Session,
  { cursor, limit, partition }: Args<"listSuspended">,
): Promise<{ entries: SuspendedExecutionEntry[]; nextCursor?: string }> {
  const after = parseSuspendedCursor(cursor) ?? BEFORE_ALL;
  if (limit === 0) return { entries: [] };
  const rows = await selectExecutions(
    tx,
    LIST_SUSPENDED,
    after.score,
    after.id,
    after.partition,
    partition ?? null,
    limit + 1,
  );
  const page = rows.slice(0, limit);
  const suspensions = await readOpenSuspensions(tx, page);
  return {
    entries: page.map((row) => ({
      executionId: executionIdOf(row),
      suspendedAtMs: row.score,
      ...optional("timeoutAtMs", row.timeout_at),
      reason: suspensions.get(row.seq)!.reason,
    })),
    ...(rows.length > limit
      ? { nextCursor: formatSuspendedCursor(page.at(-1)!) }
      : {}),
  };
}

const BEFORE_ALL = { score: -1, id: new Uint8Array(16), partition: 0 };

const LIST_SUSPENDED = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE home = ${HOME.suspended} AND (score, id, partition) > (?, ?, ?) AND partition = coalesce(?, partition)
  ORDER BY score, id, partition
  LIMIT ?`;
