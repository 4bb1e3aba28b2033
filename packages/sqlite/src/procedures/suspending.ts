/** Suspending the running attempt, once the fence was checked: reads what it goes by, and writes what was decided. */
import {
  isRefusal,
  type Keystore,
  type LaneId,
  type Refusal,
  type SuspendOutcome,
} from "@flowfabric/core";
import {
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
  findWaitpoint,
  insertWaitpoint,
} from "./waitpoints.js";

function readGrounds(
  tx: Session,
  row: ExecutionRow,
  args: SuspendArgs,
): SuspendGrounds<BufferedRow> {
  const waitpoints = args.waitpoints.flatMap(
    ({ waitpointId }) => findWaitpoint(tx, row, waitpointId) ?? [],
  );
  const [first] = waitpoints;
  const isPending = args.waitpoints[0]!.kind === "usePending";
  return {
    policy: leavesTimeout(args)
      ? readPolicy(tx, row).suspensionPolicy
      : undefined,
    keystore: readKeystore(tx),
    waitpoints,
    buffered: isPending && first ? readBufferedSignals(tx, first) : [],
  };
}

export function suspendAttempt(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  args: SuspendArgs,
  nowMs: number,
): SuspendOutcome | Refusal {
  const grounds = readGrounds(tx, row, args);

  const suspending = decideSuspend(row, args, grounds, nowMs);
  if (isRefusal(suspending)) return suspending;

  writeWaitpoints(tx, row, suspending);
  writeSuspension(tx, row, suspending);
  rememberReceipt(tx, row, suspending);
  if (!suspending.satisfied) enterSuspended(store, tx, row, suspending);
  saveExecution(tx, row);
  ringAfterCommit(store, tx, row);

  const { receipt } = suspending;
  return outcomeOf(store, tx, row, receipt, grounds.keystore, nowMs);
}

/** What the receipt of an earlier or of this call stands for. */
export function outcomeOf(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  receipt: SuspendReceipt,
  keystore: Keystore,
  nowMs: number,
): SuspendOutcome | Refusal {
  return toOutcome(receipt, {
    backend: "sqlite",
    executionId: executionIdOf(row),
    laneId: store.routes.require(tx, row.route).lane as LaneId,
    workerInstanceId: store.holders.require(tx, receipt.holder)
      .workerInstanceId,
    waitpoints: receipt.waitpoints.map((id) => findWaitpoint(tx, row, id)!),
    keystore,
    nowMs,
  });
}

function writeWaitpoints(
  tx: Session,
  row: ExecutionRow,
  { args, timeout, bound, nowMs }: Suspending<BufferedRow>,
): void {
  const suspension = uuidToBytes(args.suspensionId);
  const expiresAtMs = timeout.atMs ?? null;
  if ("pending" in bound) {
    const { pending, evaluation, signals } = bound;
    const matched = saveEvaluation(tx, evaluation, signals);
    activateWaitpoint(tx, pending, suspension, expiresAtMs, matched, nowMs);
    if (evaluation.satisfied) closeWaitpoint(tx, pending, "resumed", nowMs);
    else recordSources(tx, row, evaluation.sources);
    return;
  }
  for (const binding of args.waitpoints)
    if (binding.kind === "fresh")
      insertWaitpoint(
        tx,
        row,
        { ...binding, kid: bound.kid, expiresAtMs, suspension },
        nowMs,
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
