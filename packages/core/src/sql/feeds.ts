/** What feeds make of rows of the log, whichever SQL store they come from. */
import { engineError } from "../errors.js";
import {
  EARLIEST,
  EVENT_TYPES,
  type AcquireReason,
  type CompletionEvent,
  type EventType,
  type FeedCursor,
  type LeaseHistoryEvent,
} from "../events.js";
import type {
  AttemptId,
  ExecutionId,
  LaneId,
  LeaseId,
  Namespace,
} from "../ids.js";
import type { Args } from "../operations/inputs-by-operation.js";
import { unpackState } from "../state.js";
import { bytesToUuid, parseJson, type RowContext } from "./rows.js";

const codesOf = (...types: EventType[]) =>
  types.map((type) => EVENT_TYPES.indexOf(type));
export const COMPLETION_TYPES = codesOf(
  "completed",
  "failed",
  "cancelled",
  "expired",
  "skipped",
);
export const LEASE_TYPES = codesOf(
  "claimed",
  "resumed",
  "reclaimed",
  "lease_expired",
  "lease_revoked",
  "cancelled",
  "renewed",
);

/** One row of the log with what its execution adds, gone or not. */
export interface FeedRow {
  readonly position: number;
  readonly at: number;
  readonly type: number;
  readonly state: number | null;
  readonly attempt: number | null;
  readonly epoch: number | null;
  readonly holder: number | null;
  readonly lease: Uint8Array | null;
  readonly attempt_id: Uint8Array | null;
  readonly reason: string | null;
  readonly data: string | null;
  readonly tags: string | null;
  readonly id: Uint8Array;
  readonly partition: number;
  readonly route: number;
}

export interface FeedCommon {
  readonly cursor: FeedCursor;
  readonly executionId: ExecutionId;
  readonly atMs: number;
  readonly namespace: Namespace;
  readonly tags: Readonly<Record<string, string>>;
}

export type Convert<Event> = (
  row: FeedRow,
  common: FeedCommon,
  context: { readonly laneId: LaneId; readonly holder: RowContext["holder"] },
) => Event | undefined;

export function matches(
  args: Args<"subscribeCompletion">,
  partition: number,
  namespace: string,
  tags: Record<string, string>,
): boolean {
  const { namespace: wanted, instanceTag } = args.filter;
  if (args.partition !== undefined && args.partition !== partition)
    return false;
  if (wanted !== undefined && wanted !== namespace) return false;
  return instanceTag === undefined || tags[instanceTag[0]] === instanceTag[1];
}

export const toCompletion: Convert<CompletionEvent> = (
  row,
  common,
  { laneId },
) => {
  const outcome =
    row.state === null ? undefined : unpackState(row.state)?.terminalOutcome;
  if (outcome === undefined || outcome === "none")
    throw engineError("corruption", {
      context: "event",
      field: "state",
      message: `position ${row.position}`,
    });
  return {
    ...common,
    kind: "completion",
    outcome: outcome === "failed" ? "failure" : outcome,
    laneId,
    attemptIndex: row.attempt ?? 0,
  };
};

export const toLeaseHistory: Convert<LeaseHistoryEvent> = (
  row,
  common,
  { holder },
) => {
  // A cancellation tells of a lease only where it took one away.
  if (holder === undefined || row.lease === null) return undefined;
  const leaseId = bytesToUuid(row.lease) as LeaseId;
  const { workerId, workerInstanceId } = holder;
  const attemptIndex = row.attempt ?? 0;
  const leaseEpoch = row.epoch ?? 0;
  switch (EVENT_TYPES[row.type]) {
    case "claimed":
    case "resumed": {
      const resumed = EVENT_TYPES[row.type] === "resumed";
      const reason = (row.reason ??
        (resumed ? "claim_resumed" : "claim")) as AcquireReason;
      const attemptId = bytesToUuid(row.attempt_id!) as AttemptId;
      return {
        ...common,
        kind: "acquired",
        leaseId,
        leaseEpoch,
        workerId,
        workerInstanceId,
        attemptIndex,
        attemptId,
        reason,
      };
    }
    case "reclaimed":
      return {
        ...common,
        kind: "reclaimed",
        newLeaseId: leaseId,
        newOwner: workerInstanceId,
        attemptIndex,
      };
    case "lease_expired":
      return {
        ...common,
        kind: "expired",
        leaseId,
        prevOwner: workerInstanceId,
      };
    case "lease_revoked":
      return {
        ...common,
        kind: "revoked",
        leaseId,
        revokedBy: row.reason ?? "operator",
      };
    case "cancelled":
      return { ...common, kind: "revoked", leaseId, revokedBy: "operator" };
    case "renewed": {
      const { expiresAtMs } = parseJson<{ expiresAtMs: number }>(
        row.data ?? "{}",
        "event data",
      );
      return {
        ...common,
        kind: "renewed",
        leaseId,
        leaseEpoch,
        workerInstanceId,
        expiresAtMs,
      };
    }
    default:
      return undefined;
  }
};

/** One byte for the kind of store, eight for the position; text as base64url. */
const PREFIX = 0x03;

export function formatCursor(position: number): FeedCursor {
  const bytes = Buffer.alloc(9);
  bytes[0] = PREFIX;
  bytes.writeBigUInt64BE(BigInt(position), 1);
  return bytes.toString("base64url");
}

/**
 * The position of a cursor that somebody brings back.
 * @throws EngineError `invalid_offset`, `cursor_expired`
 */
export function parseCursor(
  cursor: string,
  { floor, newest }: { readonly floor: number; readonly newest: number },
): number {
  if (cursor === EARLIEST) return floor;
  const bytes = Buffer.from(cursor, "base64url");
  const position =
    bytes.length === 9 && bytes[0] === PREFIX
      ? Number(bytes.readBigUInt64BE(1))
      : Number.NaN;
  if (
    !Number.isSafeInteger(position) ||
    position > newest ||
    formatCursor(position) !== cursor
  )
    throw engineError("invalid_offset", { value: cursor });
  if (position < floor)
    throw engineError("cursor_expired", { earliest: formatCursor(floor) });
  return position;
}
