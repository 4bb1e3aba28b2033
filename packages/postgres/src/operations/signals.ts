import {
  isRefusal,
  refuse,
  TOKEN_FAILURE_NOTE_INTERVAL_MS,
  type Args,
  type DeliverSignalResult,
  type ExecutionId,
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
import { deliverQuickly } from "../procedures/quick-signals.js";
import { readGrounds } from "../procedures/signal-grounds.js";
import { deliver } from "../procedures/signals.js";
import type { Session, Store } from "../store.js";

export function signalOperations(
  store: Store,
): Implementation<SignalOperations> {
  const { db } = store;
  const underWay = new UnderWay();
  return {
    async deliverSignal(args) {
      return await underWay.note(args.executionId, async (isAlone) =>
        settle(
          (isAlone ? await deliverQuickly(store, args) : undefined) ??
            (await db.writeReadingFirst(
              async (tx) => await deliverByToken(store, tx, args),
            )),
        ),
      );
    },

    async deliverApprovalSignal(args) {
      return settle(
        await db.writeReadingFirst(
          async (tx) => await deliverApproval(store, tx, args),
        ),
      );
    },
  };
}

/**
 * Deliveries that have not ended. Of several to one execution that are under way at once, those that change it as they have
 * read it would read in vain; in line for its lock each has its turn.
 */
class UnderWay {
  readonly #counts = new Map<ExecutionId, number>();

  /** @param call is told whether no other is under way to this execution */
  async note<Answer>(
    executionId: ExecutionId,
    call: (isAlone: boolean) => Promise<Answer>,
  ): Promise<Answer> {
    const before = this.#counts.get(executionId) ?? 0;
    this.#counts.set(executionId, before + 1);
    try {
      return await call(before === 0);
    } finally {
      const left = this.#counts.get(executionId)! - 1;
      if (left === 0) this.#counts.delete(executionId);
      else this.#counts.set(executionId, left);
    }
  }
}

/** Nothing is told of execution and waitpoint before the token was found right. */
async function deliverByToken(
  store: Store,
  tx: Session,
  args: Args<"deliverSignal">,
): Promise<DeliverSignalResult | Refusal> {
  const signal = { ...args, actor: "client" as const };
  // One trip, whether there is such an execution or not.
  const [row, grounds] = await Promise.all([
    findExecution(store, tx, args),
    readGrounds(
      (sql, ...values) => tx.all(sql, ...values),
      args.executionId,
      args.waitpointId,
      signal,
    ),
  ]);
  const waitpoint = row && grounds.waitpoint;
  const now = row === undefined ? tx.now() : effectiveNow(row, tx.now());

  const refusal = refuseToken(grounds.keystore, args, waitpoint, now);
  if (refusal !== undefined) {
    if (row !== undefined) noteRefusedToken(tx, row, now);
    return refusal;
  }

  const found = { ...grounds, waitpoint: waitpoint! };
  return deliver(store, tx, row!, found, signal, now);
}

function noteRefusedToken(tx: Session, row: ExecutionRow, nowMs: number): void {
  const { tokenRefusedAtMs = -Infinity } = readDetails(row.details);
  if (nowMs - tokenRefusedAtMs < TOKEN_FAILURE_NOTE_INTERVAL_MS) return;
  changeDetails(row, { tokenRefusedAtMs: nowMs });
  saveExecution(tx, row);
}

async function deliverApproval(
  store: Store,
  tx: Session,
  args: Args<"deliverApprovalSignal">,
): Promise<DeliverSignalResult | Refusal> {
  const { executionId, waitpointId, signalName } = args;
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
  const [row, { waitpoint, ...grounds }] = await Promise.all([
    lockExecution(store, tx, args),
    readGrounds(
      (sql, ...values) => tx.all(sql, ...values),
      executionId,
      waitpointId,
      signal,
    ),
  ]);
  if (isRefusal(row)) return row;
  if (waitpoint === undefined)
    return refuse("waitpoint_not_found", { entity: "waitpoint", waitpointId });

  const now = effectiveNow(row, tx.now());
  return deliver(store, tx, row, { ...grounds, waitpoint }, signal, now);
}
