import {
  checkFence,
  checkTriple,
  decodeHandle,
  HOME,
  HOMES,
  isRefusal,
  notActiveDetail,
  reclaimBackoffMs,
  refuse,
  RENEWED_EVENT_INTERVAL_MS,
  type Handle,
  type HandlePayload,
  type Implementation,
  type LeaseId,
  type LeaseOperations,
  type Refusal,
} from "@flowfabric/core";
import {
  attemptStateCode,
  bytesToUuid,
  changeDetails,
  effectiveNow,
  fencedRecord,
  HOLD,
  reasonCode,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import { settle } from "../errors.js";
import { grouped } from "../grouped.js";
import { lockExecution, saveExecution } from "../procedures/executions.js";
import { ringAfterCommit } from "../procedures/lifecycle.js";
import { appendEvent, appendFeedEvent } from "../procedures/log.js";
import { renewQuickly } from "../procedures/quick-holding.js";
import type { Session, Store } from "../store.js";
import { refuseMarking } from "./executions.js";

export function leaseOperations(store: Store): Implementation<LeaseOperations> {
  const { db } = store;
  const renewals = grouped((owns: readonly HandlePayload[]) =>
    renewQuickly(store, owns),
  );
  return {
    async renew({ handle }) {
      const own = settle(readHandle(handle));
      const renewed = await renewals.call(own);
      if (renewed !== undefined) return renewed;
      return settle(
        await db.write(async (tx) => {
          const row = await lockFenced(store, tx, own);
          if (isRefusal(row)) return row;

          extend(tx, row, own.leaseTtlMs, effectiveNow(row, tx.now()));

          return { expiresAtMs: row.lease_expires_at!, leaseEpoch: row.epoch };
        }),
      );
    },

    async renewLease(args) {
      return settle(
        await db.write(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const now = effectiveNow(row, tx.now());

          const refusal =
            checkTriple(args.fence, false) ??
            checkFence(fencedRecord(row), args.fence, now, args.attemptIndex);
          if (refusal !== undefined)
            return refuseMarking(store, tx, row, refusal, now);

          extend(tx, row, args.leaseTtlMs, now);

          return {
            kind: "renewed" as const,
            expiresAtMs: row.lease_expires_at!,
          };
        }),
      );
    },

    async revokeLease(args) {
      return settle(
        await db.write(async (tx) => {
          const row = await lockExecution(store, tx, args);
          if (isRefusal(row)) return row;
          const now = effectiveNow(row, tx.now());

          if (HOMES[row.home].phase !== "active")
            return refuse(
              "execution_not_active",
              notActiveDetail(fencedRecord(row)),
            );
          if (row.home === HOME.revoked)
            return {
              kind: "alreadySatisfied" as const,
              reason: "already_revoked" as const,
            };
          if (row.home === HOME.lapsed)
            return {
              kind: "alreadySatisfied" as const,
              reason: "already_expired" as const,
            };
          const leaseId = bytesToUuid(row.lease!) as LeaseId;
          if (
            args.expectedLeaseId !== undefined &&
            args.expectedLeaseId !== leaseId
          )
            return refuse("stale_lease", {});

          row.home = HOME.revoked;
          row.score = now + reclaimBackoffMs(row.reclaims);
          row.reason = reasonCode("waiting_for_worker");
          row.attempt_state = attemptStateCode("attempt_interrupted");
          row.lost_at = now;
          row.transitioned_at = now;
          row.mutated_at = now;
          if (args.hold) row.holds |= HOLD.operator;
          changeDetails(row, { revokeReason: args.reason });
          appendEvent(tx, row, "lease_revoked", now, "operator", {
            lease: row.lease,
            holder: row.holder,
            reason: args.reason,
          });
          saveExecution(tx, row);
          ringAfterCommit(store, tx, row);

          return { kind: "revoked" as const, leaseId, leaseEpoch: row.epoch };
        }),
      );
    },
  };
}

/** What a handle says, checked as far as it can be without the store. */
export function readHandle(handle: Handle): HandlePayload | Refusal {
  const own = decodeHandle(handle, "postgres");
  return handle.kind === "suspended" ? refuse("stale_lease", {}) : own;
}

/** The record of a live lease that this handle holds, or the refusal, with a lapse written down. */
export async function lockFenced(
  store: Store,
  tx: Session,
  own: HandlePayload,
  { marks = true } = {},
): Promise<ExecutionRow | Refusal> {
  const row = await lockExecution(store, tx, { executionId: own.executionId });
  if (isRefusal(row)) return row;
  const now = effectiveNow(row, tx.now());
  const refusal = checkFence(fencedRecord(row), own, now, own.attemptIndex);
  if (refusal === undefined) return row;
  return marks ? refuseMarking(store, tx, row, refusal, now) : refusal;
}

/** Feeds hear of it at most every ten seconds of a lease. */
function extend(
  tx: Session,
  row: ExecutionRow,
  leaseTtlMs: number,
  nowMs: number,
): void {
  const spanOf = (atMs: number) =>
    Math.floor((atMs - row.leased_at!) / RENEWED_EVENT_INTERVAL_MS);
  const isNews = spanOf(nowMs) > spanOf(row.renewed_at!);
  row.lease_expires_at = nowMs + leaseTtlMs;
  row.score = row.lease_expires_at;
  row.renewed_at = nowMs;
  row.renew_by = nowMs + Math.floor((leaseTtlMs * 2) / 3);
  row.mutated_at = nowMs;
  if (isNews) {
    appendFeedEvent(tx, row, "renewed", nowMs, "worker", {
      transition: false,
      lease: row.lease,
      holder: row.holder,
      data: { expiresAtMs: row.lease_expires_at },
    });
  }
  saveExecution(tx, row);
}
