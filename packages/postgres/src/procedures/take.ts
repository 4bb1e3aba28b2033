/** Turning one candidate into a lease: fresh, resumed or taken over, whatever its state asks for. */
import {
  encodeHandle,
  HOME,
  newAttemptId,
  newLeaseId,
  type AcquireReason,
  type AttemptId,
  type ClaimedExecution,
  type LaneId,
  type LeaseId,
} from "@flowfabric/core";
import {
  acquireLease,
  attemptTypeOf,
  bytesToUuid,
  changeDetails,
  effectiveNow,
  executionIdOf,
  type ExecutionRow,
  type Holder,
  isInterrupted,
  nextAttemptType,
  readTags,
  resumeAttempt,
  uuidToBytes,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { saveExecution } from "./executions.js";
import {
  archiveAttempt,
  beginAttempt,
  dropGrant,
  markLapsedIfDue,
  promoteIfDue,
} from "./lifecycle.js";
import { appendEvent } from "./log.js";

export interface Taker extends Holder {
  readonly leaseTtlMs: number;
  /** Minted where absent. */
  readonly leaseId?: string | undefined;
  readonly attemptId?: string | undefined;
  readonly renewBeforeMs?: number | undefined;
  readonly requestId?: string | undefined;
  /** What feeds tell about a fresh or resumed claim; plain claims need no reason. */
  readonly reason?: AcquireReason | undefined;
}

/**
 * Takes the execution for this worker and saves it.
 * @returns nothing where a lost one must wait for its back-off; what was found out is then saved all the same
 */
export async function takeExecution(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  taker: Taker,
  nowMs: number,
): Promise<ClaimedExecution | undefined> {
  const kind = take(store, tx, row, taker, nowMs);
  return kind && (await claimedExecution(store, tx, row, kind));
}

/** As {@link takeExecution}; its input is left to be read. */
export function take(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  taker: Taker,
  nowMs: number,
): ClaimedExecution["kind"] | undefined {
  const now = effectiveNow(row, nowMs);
  promoteIfDue(tx, row, now);
  if (markLapsedIfDue(tx, row, now) && row.score > now) {
    saveExecution(tx, row);
    return undefined;
  }

  const holder = store.holders.ensure(taker);
  const lost = row.home === HOME.lapsed || row.home === HOME.revoked;
  const kind = lost ? "reclaimed" : isInterrupted(row) ? "resumed" : "fresh";
  dropGrant(tx, row);

  if (kind === "reclaimed") {
    const lossReason =
      row.home === HOME.revoked ? "lease_revoked" : "lease_expired";
    archiveAttempt(tx, row, now, {
      state: "interrupted_reclaimed",
      failureReason: lossReason,
      closes: "reclaimed",
    });
    changeDetails(row, {
      nextReason: lossReason,
      nextRequestedBy: undefined,
      nextPrevious: row.attempt,
      revokeReason: undefined,
    });
    row.reclaims++;
    row.reclaims_total++;
  }
  if (kind === "resumed") resumeAttempt(row, now);
  else
    beginAttempt(
      tx,
      row,
      uuidToBytes(taker.attemptId ?? newAttemptId()),
      kind === "reclaimed" ? "reclaim" : nextAttemptType(row),
      now,
    );

  const renewByMs =
    now + (taker.renewBeforeMs ?? Math.floor((taker.leaseTtlMs * 2) / 3));
  const leaseId = uuidToBytes(taker.leaseId ?? newLeaseId());
  acquireLease(
    row,
    {
      leaseId,
      leaseTtlMs: taker.leaseTtlMs,
      renewByMs,
      holder,
      request: taker.requestId ?? null,
    },
    now,
  );
  appendEvent(tx, row, kind === "fresh" ? "claimed" : kind, now, "worker", {
    lease: leaseId,
    holder,
    attemptId: row.attempt_id,
    reason: taker.reason,
  });
  saveExecution(tx, row);
  const { timeout_at: timeoutAt } = row;
  if (timeoutAt !== null)
    tx.afterCommit(() => store.wakeups.ringTimer(timeoutAt - now));
  return kind;
}

/** What a claim answers, from the stored lease: also the answer to a repeat. */
export async function claimedExecution(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  kind?: ClaimedExecution["kind"],
): Promise<ClaimedExecution> {
  const known = tx.payload(row.seq);
  const payload =
    known === undefined
      ? (await tx.get<{ payload: Uint8Array | null }>(READ_PAYLOAD, row.seq))
          ?.payload
      : known;
  return toClaimed(store, row, payload ?? null, kind ?? kindOfLease(row));
}

/** A row under a lease, as far as a claim's answer needs it. */
export type LeasedRow = Readonly<
  Pick<
    ExecutionRow,
    | "id"
    | "partition"
    | "route"
    | "kind"
    | "attempt"
    | "attempt_id"
    | "attempt_type"
    | "lease"
    | "epoch"
    | "holder"
    | "lease_expires_at"
    | "renewed_at"
    | "tags"
  >
>;

export function toClaimed(
  store: Store,
  row: LeasedRow,
  payload: Uint8Array | null,
  kind: ClaimedExecution["kind"],
): ClaimedExecution {
  const route = store.routes.require(row.route);
  const executionId = executionIdOf(row);
  const leaseId = bytesToUuid(row.lease!) as LeaseId;
  const attemptId = bytesToUuid(row.attempt_id!) as AttemptId;
  const laneId = route.lane as LaneId;
  const handle = encodeHandle("postgres", kind, {
    executionId,
    attemptIndex: row.attempt,
    attemptId,
    leaseId,
    leaseEpoch: row.epoch,
    leaseTtlMs: row.lease_expires_at! - row.renewed_at!,
    laneId,
    workerInstanceId: store.holders.require(row.holder!).workerInstanceId,
  });
  return {
    kind,
    executionId,
    laneId,
    leaseId,
    leaseEpoch: row.epoch,
    attemptIndex: row.attempt,
    attemptId,
    attemptType: attemptTypeOf(row),
    leaseExpiresAtMs: row.lease_expires_at!,
    handle,
    context: {
      inputPayload: payload ?? EMPTY,
      executionKind: row.kind,
      tags: readTags(row.tags),
    },
  };
}

/** For a repeat: how the running lease began. It was resumed where its attempt is older than itself. */
function kindOfLease(row: ExecutionRow): ClaimedExecution["kind"] {
  if (row.attempt_at !== row.leased_at) return "resumed";
  return attemptTypeOf(row) === "reclaim" ? "reclaimed" : "fresh";
}

/** The inputs of all of these by one statement. */
export async function readPayloadsAhead(
  tx: Session,
  rows: readonly ExecutionRow[],
): Promise<void> {
  if (rows.length === 0) return;
  const found = await tx.all<{ seq: number; payload: Uint8Array | null }>(
    READ_PAYLOADS,
    rows.map(({ seq }) => seq),
  );
  for (const { seq } of rows) tx.keepPayload(seq, null);
  for (const { seq, payload } of found) tx.keepPayload(seq, payload);
}

const EMPTY = new Uint8Array();

export const READ_PAYLOAD = `
  SELECT payload
  FROM inputs
  WHERE seq = ?`;

const READ_PAYLOADS = `
  SELECT seq, payload
  FROM inputs
  WHERE seq = ANY(?::BIGINT[]) AND payload IS NOT NULL`;
