/** The record of a real grant. One per execution; absent once its time is up. */
import {
  partitionKey,
  type Grant,
  type GrantKind,
  type LaneId,
} from "@flowfabric/core";
import {
  executionIdOf,
  type ExecutionRow,
  type Holder,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import { appendEvent } from "./log.js";

export interface StoredGrant {
  readonly kind: GrantKind;
  readonly worker_id: string;
  readonly expires_at: number;
}

export interface GrantRequest extends Holder {
  readonly grantTtlMs: number;
  readonly capabilityHash?: string | undefined;
  readonly routeSnapshotJson?: string | undefined;
  readonly admissionSummary?: string | undefined;
}

export function hasLiveGrant(row: ExecutionRow, nowMs: number): boolean {
  return row.grant_until !== null && row.grant_until > nowMs;
}

/** The caller saves the row. */
export function writeGrant(
  tx: Session,
  row: ExecutionRow,
  kind: GrantKind,
  request: GrantRequest,
  laneId: string,
  nowMs: number,
): Grant {
  const expiresAtMs = nowMs + request.grantTtlMs;
  const notes = JSON.stringify({
    capabilityHash: request.capabilityHash,
    routeSnapshotJson: request.routeSnapshotJson,
    admissionSummary: request.admissionSummary,
  });
  tx.run(
    WRITE_GRANT,
    row.seq,
    kind,
    request.workerId,
    request.workerInstanceId,
    nowMs,
    expiresAtMs,
    notes === "{}" ? null : notes,
  );
  row.grant_until = expiresAtMs;
  row.mutated_at = nowMs;
  appendEvent(tx, row, "granted", nowMs, "engine", {
    transition: false,
    data: {
      kind,
      workerId: request.workerId,
      workerInstanceId: request.workerInstanceId,
      expiresAtMs,
    },
  });
  return {
    kind,
    executionId: executionIdOf(row),
    partitionKey: partitionKey({ family: "flow", index: row.partition }),
    grantKey: `grant:${row.seq}`,
    expiresAtMs,
    laneId: laneId as LaneId,
  };
}

export async function readGrant(
  tx: Session,
  row: ExecutionRow,
): Promise<StoredGrant | undefined> {
  return row.grant_until === null
    ? undefined
    : await tx.get<StoredGrant>(READ_GRANT, row.seq);
}

const WRITE_GRANT = `
  INSERT INTO grants (seq, kind, worker_id, instance_id, created_at, expires_at, notes)
  VALUES (?, ?, ?, ?, ?, ?, ?)
  ON CONFLICT (seq) DO UPDATE
  SET kind = excluded.kind, worker_id = excluded.worker_id, instance_id = excluded.instance_id,
    created_at = excluded.created_at, expires_at = excluded.expires_at, notes = excluded.notes`;

const READ_GRANT = `
  SELECT kind, worker_id, expires_at
  FROM grants
  WHERE seq = ?`;
