import {
  isRefusal,
  refuse,
  TOKEN_FAILURE_NOTE_INTERVAL_MS,
  type Args,
  type DeliverSignalResult,
  type Implementation,
  type Refusal,
  type SignalOperations,
} from "@flowfabric/core";
import {
  changeDetails,
  effectiveNow,
  readDetails,
  refuseToken,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import {
  findExecution,
  lockExecution,
  saveExecution,
} from "../procedures/executions.js";
import { readKeystore } from "../procedures/keystore.js";
import { deliver } from "../procedures/signals.js";
import { findWaitpoint } from "../procedures/waitpoints.js";
import type { Session, Store } from "../store.js";

export function signalOperations(
  store: Store,
): Implementation<SignalOperations> {
  const { db } = store;
  return {
    async deliverSignal(args) {
      return settle(await db.write((tx) => deliverByToken(store, tx, args)));
    },

    async deliverApprovalSignal(args) {
      return settle(await db.write((tx) => deliverApproval(store, tx, args)));
    },
  };
}

/** Nothing is told of execution and waitpoint before the token was found right. */
function deliverByToken(
  store: Store,
  tx: Session,
  args: Args<"deliverSignal">,
): DeliverSignalResult | Refusal {
  const keystore = readKeystore(tx);
  const row = findExecution(store, tx, args);
  const waitpoint = row && findWaitpoint(tx, row, args.waitpointId);
  const now = row === undefined ? tx.now() : effectiveNow(row, tx.now());

  const refusal = refuseToken(keystore, args, waitpoint, now);
  if (refusal !== undefined) {
    if (row !== undefined) noteRefusedToken(tx, row, now);
    return refusal;
  }

  const signal = { ...args, actor: "client" as const };
  return deliver(store, tx, row!, waitpoint!, signal, now);
}

function noteRefusedToken(tx: Session, row: ExecutionRow, nowMs: number): void {
  const { tokenRefusedAtMs = -Infinity } = readDetails(row.details);
  if (nowMs - tokenRefusedAtMs < TOKEN_FAILURE_NOTE_INTERVAL_MS) return;
  changeDetails(row, { tokenRefusedAtMs: nowMs });
  saveExecution(tx, row);
}

function deliverApproval(
  store: Store,
  tx: Session,
  args: Args<"deliverApprovalSignal">,
): DeliverSignalResult | Refusal {
  const row = lockExecution(store, tx, args);
  if (isRefusal(row)) return row;
  const { waitpointId, signalName } = args;
  const waitpoint = findWaitpoint(tx, row, waitpointId);
  if (waitpoint === undefined)
    return refuse("waitpoint_not_found", { entity: "waitpoint", waitpointId });

  const signal = {
    signalId: args.signalId,
    signalName,
    signalCategory: "approval",
    sourceType: "operator",
    sourceIdentity: "",
    correlationId: "",
    payloadEncoding: "json",
    targetScope: "execution",
    idempotencyKey: `approval:${signalName}:${args.idempotencySuffix}`,
    dedupTtlMs: args.signalDedupTtlMs,
    maxSignalsPerExecution: args.maxSignalsPerExecution,
    actor: "operator" as const,
  };
  const now = effectiveNow(row, tx.now());
  return deliver(store, tx, row, waitpoint, signal, now);
}
