/** Suspending the running attempt, once the fence was checked: reads what it goes by, and writes what was decided. */
import {
  isRefusal,
  type Keystore,
  type LaneId,
  type Refusal,
  type SuspendOutcome,
} from "@flowfabric/core";
import {
  bytesToUuid,
  decideSuspend,
  executionIdOf,
  leavesTimeout,
  park,
  suspendedEvent,
  toOutcome,
  uuidToBytes,
  type ExecutionRow,
  type SuspendArgs,
  type SuspendGrounds,
  type SuspendReceipt,
  type Suspending,
  type WaitpointRow,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution } from "./executions.js";
import { readKeystore } from "./keystore.js";
import { ringAfterCommit } from "./lifecycle.js";
import { appendEvent } from "./log.js";
import { readPolicy } from "./policy.js";
import {
  readBufferedSignals,
  recordSources,
  saveEvaluation,
  type BufferedRow,
} from "./signals.js";
import { rememberReceipt, writeSuspension } from "./suspensions.js";
import {
  activateWaitpoint,
  closeWaitpoint,
  findWaitpoints,
  insertWaitpoint,
} from "./waitpoints.js";

/** All of it in one trip: the execution's row is locked, so that nothing of it changes any more. */
export async function readGrounds(
  tx: Session,
  row: ExecutionRow,
  args: SuspendArgs,
): Promise<SuspendGrounds<BufferedRow>> {
  const ids = args.waitpoints.map(({ waitpointId }) => waitpointId);
  const isPending = args.waitpoints[0]!.kind === "usePending";
  const [policy, keystore, waitpoints, buffered] = await Promise.all([
    leavesTimeout(args) ? readPolicy(tx, row) : undefined,
    readKeystore(tx),
    findWaitpoints(tx, row, ids),
    isPending ? readBufferedSignals(tx, row, ids[0]!) : [],
  ]);
  return { policy: policy?.suspensionPolicy, keystore, waitpoints, buffered };
}

export function suspendAttempt(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  args: SuspendArgs,
  grounds: SuspendGrounds<BufferedRow>,
  nowMs: number,
): SuspendOutcome | Refusal {
  const suspending = decideSuspend(row, args, grounds, nowMs);
  if (isRefusal(suspending)) return suspending;

  const { receipt } = suspending;
  const waitpoints = writeWaitpoints(tx, row, suspending);
  writeSuspension(tx, row, suspending);
  rememberReceipt(tx, row, suspending);
  if (!suspending.satisfied) enterSuspended(store, tx, row, suspending);
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  return outcomeOf(store, row, receipt, waitpoints, grounds.keystore, nowMs);
}

/** What the receipt of an earlier or of this call stands for. */
export function outcomeOf(
  store: Store,
  row: ExecutionRow,
  receipt: SuspendReceipt,
  waitpoints: readonly WaitpointRow[],
  keystore: Keystore,
  nowMs: number,
): SuspendOutcome | Refusal {
  return toOutcome(receipt, {
    backend: "postgres",
    executionId: executionIdOf(row),
    laneId: store.routes.require(row.route).lane as LaneId,
    workerInstanceId: store.holders.require(receipt.holder).workerInstanceId,
    waitpoints: receipt.waitpoints.map((id) =>
      waitpoints.find((one) => bytesToUuid(one.id) === id)!,
    ),
    keystore,
    nowMs,
  });
}

/** @returns all of the suspension, as far as its tokens need them */
function writeWaitpoints(
  tx: Session,
  row: ExecutionRow,
  { args, timeout, bound, nowMs }: Suspending<BufferedRow>,
): WaitpointRow[] {
  const suspension = uuidToBytes(args.suspensionId);
  const expiresAtMs = timeout.atMs ?? null;
  if ("pending" in bound) {
    const { pending, evaluation, signals } = bound;
    const matched = saveEvaluation(tx, row, evaluation, signals);
    activateWaitpoint(tx, pending, suspension, expiresAtMs, matched, nowMs);
    if (evaluation.satisfied) closeWaitpoint(tx, pending, "resumed", nowMs);
    else recordSources(tx, row, evaluation.sources);
    return [pending];
  }
  return args.waitpoints.flatMap((binding) =>
    binding.kind === "fresh"
      ? insertWaitpoint(
          tx,
          row,
          { ...binding, kid: bound.kid, expiresAtMs, suspension },
          nowMs,
        )
      : [],
  );
}

/** Nobody works on it until it is resumed. */
function enterSuspended(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  suspending: Suspending<BufferedRow>,
): void {
  const { nowMs, timeout } = suspending;
  park(row, suspending);
  appendEvent(
    tx,
    row,
    "suspended",
    nowMs,
    "worker",
    suspendedEvent(suspending),
  );
  const { atMs } = timeout;
  if (atMs !== undefined)
    tx.afterCommit(() => store.wakeups.ringTimer(atMs - nowMs));
}
