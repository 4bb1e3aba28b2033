/** The record of an execution, as far as every store keeps it alike, and what answers make of it. */
import { engineError } from "../errors.js";
import {
  formatExecutionId,
  type AttemptId,
  type ExecutionId,
  type LaneId,
  type LeaseId,
  type Namespace,
  type WaitpointId,
} from "../ids.js";
import { effectiveHome } from "../rules/home.js";
import type {
  ExecutionInfo,
  ExecutionSnapshot,
  LeaseSummary,
} from "../snapshots.js";
import {
  ATTEMPT_STATES,
  BLOCKING_REASONS,
  derivePublicState,
  HOME,
  HOMES,
  isTerminalHome,
  vectorOf,
  type Home,
  type PublicState,
  type StateVector,
} from "../state.js";
import type { StreamCloseReason } from "../streams.js";
import { bytesToUuid, optional, parseJson } from "./values.js";
import type { Holder } from "./workers.js";

/** Fields have the names of columns. What is absent is `null`; text may be missing too. */
export interface ExecutionRecord {
  /** Order of creation. */
  readonly seq: number;
  readonly id: Uint8Array;
  readonly partition: number;
  readonly route: number;
  readonly kind: string;
  readonly created_at: number;
  readonly home: Home;
  readonly score: number;
  /** Index in {@link BLOCKING_REASONS}. */
  readonly reason: number;
  /** Index in {@link ATTEMPT_STATES}. */
  readonly attempt_state: number;
  readonly priority: number;
  readonly events: number;
  readonly epoch: number;
  readonly attempt: number;
  readonly attempts: number;
  readonly retries: number;
  readonly reclaims: number;
  readonly reclaims_total: number;
  readonly replays: number;
  /** {@link HOLD} bits. */
  readonly holds: number;
  readonly transitioned_at: number;
  readonly mutated_at: number;
  readonly lease: Uint8Array | null;
  readonly attempt_id: Uint8Array | null;
  readonly holder: number | null;
  readonly leased_at: number | null;
  readonly lease_expires_at: number | null;
  readonly renewed_at: number | null;
  readonly renew_by: number | null;
  /** Index in {@link ATTEMPT_TYPES}. */
  readonly attempt_type: number | null;
  readonly attempt_at: number | null;
  readonly started_at: number | null;
  readonly completed_at: number | null;
  readonly delay_until: number | null;
  readonly deadline_at: number | null;
  /** When the attempt that runs has run too long; while suspended, when the suspension's time is up. */
  readonly timeout_at: number | null;
  readonly progress_at: number | null;
  readonly tags: string | null | undefined;
  readonly details: string | null | undefined;
}

/** Bits of `holds`. */
export const HOLD = { operator: 1, lane: 2 } as const;

/** What is seldom set and never searched for; kept as JSON. */
export interface Details {
  failureReason?: string;
  failureCategory?: string;
  cancellationReason?: string;
  cancelledBy?: string;
  blockingDetail?: string;
  blockedAtMs?: number;
  revokeReason?: string;
  mismatchAtMs?: number;
  tokenRefusedAtMs?: number;
  /** Lineage for the attempt that the next claim begins, and of the attempt that runs. */
  nextReason?: string;
  nextRequestedBy?: string;
  nextPrevious?: number;
  attemptReason?: string;
  attemptRequestedBy?: string;
  attemptPrevious?: number;
  /** How the stream of the attempt was closed, where the end of the execution does not tell it. */
  closedAtMs?: number;
  closedReason?: StreamCloseReason;
}

export function readDetails(text: string | null | undefined): Details {
  return text === null || text === undefined
    ? {}
    : parseJson<Details>(text, "details");
}

export function readTags(
  text: string | null | undefined,
): Record<string, string> {
  return text === null || text === undefined
    ? {}
    : parseJson<Record<string, string>>(text, "tags");
}

/** How a record names its execution. */
export type ExecutionName = Pick<ExecutionRecord, "id" | "partition">;

export function executionIdOf(row: ExecutionName): ExecutionId {
  return formatExecutionId(row.partition, bytesToUuid(row.id));
}

/** Time never runs backwards for one execution (04 G2): a clock step cannot revive anything. */
export function effectiveNow(
  row: { readonly mutated_at: number },
  nowMs: number,
): number {
  return Math.max(nowMs, row.mutated_at);
}

/** The home that answers must show at this instant, stored yet or not. */
export function homeAt(row: ExecutionRecord, nowMs: number): Home {
  return effectiveHome(row.home, row.score, effectiveNow(row, nowMs));
}

function vectorAt(row: ExecutionRecord, nowMs: number): StateVector {
  const home = homeAt(row, nowMs);
  if (!(home in HOMES))
    throw engineError("corruption", {
      context: "execution",
      field: "home",
      message: `unknown home ${row.home}`,
    });
  const attemptState =
    home === HOME.lapsed
      ? "attempt_interrupted"
      : ATTEMPT_STATES[row.attempt_state];
  const reason = BLOCKING_REASONS[row.reason];
  if (attemptState === undefined || reason === undefined) {
    throw engineError("corruption", {
      context: "execution",
      field: "state",
      message: `unknown state ${row.attempt_state}/${row.reason}`,
    });
  }
  return vectorOf(home, reason, attemptState);
}

export function publicStateAt(
  row: ExecutionRecord,
  nowMs: number,
): PublicState {
  return derivePublicState(vectorAt(row, nowMs));
}

/** What stands beside the record. */
export interface RecordContext {
  readonly route: {
    readonly namespace: string;
    readonly lane: string;
    readonly required: readonly string[];
  };
  /** Of the lease, or of the attempt's last one. */
  readonly holder: Holder | undefined;
  readonly nowMs: number;
}

export function toInfo(
  row: ExecutionRecord,
  { route, nowMs }: RecordContext,
): ExecutionInfo {
  const details = readDetails(row.details);
  const stateVector = vectorAt(row, nowMs);
  return {
    executionId: executionIdOf(row),
    namespace: route.namespace as Namespace,
    laneId: route.lane as LaneId,
    priority: row.priority,
    executionKind: row.kind,
    stateVector,
    publicState: derivePublicState(stateVector),
    createdAtMs: row.created_at,
    ...optional("startedAtMs", row.started_at),
    ...optional("completedAtMs", row.completed_at),
    currentAttemptIndex: row.attempt,
    ...optional("blockingDetail", details.blockingDetail),
    ...optional("failureReason", details.failureReason),
    ...optional("failureCategory", details.failureCategory),
    ...optional("cancellationReason", details.cancellationReason),
  };
}

export function toSnapshot(
  row: ExecutionRecord,
  context: RecordContext,
  more: {
    readonly creator: string | null | undefined;
    readonly progress:
      | {
          readonly percent: number | null | undefined;
          readonly message: string | null | undefined;
        }
      | undefined;
    readonly currentWaitpoint?: WaitpointId | undefined;
  },
): ExecutionSnapshot {
  const { route, nowMs } = context;
  const details = readDetails(row.details);
  const info = toInfo(row, context);
  const { currentAttemptIndex: _pointer, ...common } = info;
  const reason = info.stateVector.blockingReason;
  return {
    ...common,
    ...optional("creatorIdentity", more.creator),
    ...(reason === "none" ? {} : { blockingReason: reason }),
    ...(row.attempt_id === null
      ? {}
      : {
          currentAttempt: {
            attemptId: bytesToUuid(row.attempt_id) as AttemptId,
            attemptIndex: row.attempt,
          },
        }),
    ...optional("currentLease", leaseSummary(row, context)),
    leaseEpoch: row.epoch,
    totalAttemptCount: row.attempts,
    retryCount: row.retries,
    leaseReclaimCount: row.reclaims,
    leaseReclaimTotal: row.reclaims_total,
    replayCount: row.replays,
    requiredCapabilities: route.required,
    operatorHold: (row.holds & HOLD.operator) !== 0,
    // A delay that is over is no delay: derived like the state itself.
    ...(row.delay_until !== null && row.delay_until > effectiveNow(row, nowMs)
      ? { delayUntilMs: row.delay_until }
      : {}),
    ...(isTerminalHome(row.home)
      ? {}
      : optional("executionDeadlineAtMs", row.deadline_at)),
    ...(row.home === HOME.suspended
      ? {}
      : optional("attemptTimeoutAtMs", row.timeout_at)),
    lastTransitionAtMs: row.transitioned_at,
    lastMutationAtMs: row.mutated_at,
    ...(row.progress_at === null || more.progress === undefined
      ? {}
      : {
          progress: {
            ...optional("percent", more.progress.percent),
            ...optional("message", more.progress.message),
            updatedAtMs: row.progress_at,
          },
        }),
    ...optional("cancelledBy", details.cancelledBy),
    ...optional("lastCapabilityMismatchAtMs", details.mismatchAtMs),
    ...optional("currentWaitpoint", more.currentWaitpoint),
    ...optional("lastHmacValidationFailedAtMs", details.tokenRefusedAtMs),
    tags: readTags(row.tags),
  };
}

function leaseSummary(
  row: ExecutionRecord,
  { holder }: RecordContext,
): LeaseSummary | undefined {
  // After a release the row still knows under which lease its attempt ran; that is no lease any more.
  if (
    row.lease === null ||
    row.lease_expires_at === null ||
    holder === undefined
  )
    return undefined;
  return {
    leaseId: bytesToUuid(row.lease) as LeaseId,
    leaseEpoch: row.epoch,
    ...holder,
    attemptIndex: row.attempt,
    acquiredAtMs: row.leased_at!,
    expiresAtMs: row.lease_expires_at,
    lastRenewedAtMs: row.renewed_at!,
    renewalDeadlineMs: row.renew_by!,
  };
}
