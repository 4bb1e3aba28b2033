/** What reads answer. Source: specification 01 §6, §10, §11. */
import type {
  AttemptId,
  ExecutionId,
  LaneId,
  LeaseId,
  Namespace,
  WaitpointId,
  WorkerId,
  WorkerInstanceId,
} from "./ids.js";
import type { Handle } from "./handles.js";
import type { BlockingReason, PublicState, StateVector } from "./state.js";

export interface LeaseSummary {
  readonly leaseId: LeaseId;
  readonly leaseEpoch: number;
  readonly workerId: WorkerId;
  readonly workerInstanceId: WorkerInstanceId;
  readonly attemptIndex: number;
  readonly acquiredAtMs: number;
  readonly expiresAtMs: number;
  readonly lastRenewedAtMs: number;
  /** When a careful holder has renewed: two thirds into the lease. */
  readonly renewalDeadlineMs: number;
}

/** Everything about an execution but its payload and result. */
export interface ExecutionSnapshot {
  readonly executionId: ExecutionId;
  readonly flowId?: string;
  readonly namespace: Namespace;
  readonly laneId: LaneId;
  readonly executionKind: string;
  readonly priority: number;
  readonly creatorIdentity?: string;
  readonly publicState: PublicState;
  readonly stateVector: StateVector;
  readonly blockingReason?: BlockingReason;
  readonly blockingDetail?: string;
  readonly currentAttempt?: {
    readonly attemptId: AttemptId;
    readonly attemptIndex: number;
  };
  /** Present while a lease is held, or was and is not yet taken over. */
  readonly currentLease?: LeaseSummary;
  readonly leaseEpoch: number;
  readonly totalAttemptCount: number;
  readonly retryCount: number;
  /** Since the last replay. */
  readonly leaseReclaimCount: number;
  readonly leaseReclaimTotal: number;
  readonly replayCount: number;
  readonly requiredCapabilities: readonly string[];
  readonly operatorHold: boolean;
  readonly createdAtMs: number;
  /** First claim; kept across retries. */
  readonly startedAtMs?: number;
  readonly completedAtMs?: number;
  readonly delayUntilMs?: number;
  readonly executionDeadlineAtMs?: number;
  readonly attemptTimeoutAtMs?: number;
  readonly lastTransitionAtMs: number;
  readonly lastMutationAtMs: number;
  readonly progress?: {
    readonly percent?: number;
    readonly message?: string;
    readonly updatedAtMs: number;
  };
  readonly failureReason?: string;
  readonly failureCategory?: string;
  readonly cancellationReason?: string;
  readonly cancelledBy?: string;
  readonly lastCapabilityMismatchAtMs?: number;
  /** Primary waitpoint of the open suspension. */
  readonly currentWaitpoint?: WaitpointId;
  /** When somebody last tried to signal it with a token that was refused; noted at most once per second. */
  readonly lastHmacValidationFailedAtMs?: number;
  readonly tags: Readonly<Record<string, string>>;
}

/** The part of a snapshot that lists and dashboards need. */
export interface ExecutionInfo {
  readonly executionId: ExecutionId;
  readonly namespace: Namespace;
  readonly laneId: LaneId;
  readonly priority: number;
  readonly executionKind: string;
  readonly stateVector: StateVector;
  readonly publicState: PublicState;
  readonly createdAtMs: number;
  readonly startedAtMs?: number;
  readonly completedAtMs?: number;
  /** 0 before the first claim. */
  readonly currentAttemptIndex: number;
  readonly flowId?: string;
  readonly blockingDetail?: string;
  readonly failureReason?: string;
  readonly failureCategory?: string;
  readonly cancellationReason?: string;
}

/** What a handler needs to begin. */
export interface ExecutionContext {
  /** Empty when the submission had none. Byte-exact. */
  readonly inputPayload: Uint8Array;
  readonly executionKind: string;
  readonly tags: Readonly<Record<string, string>>;
}

export type AttemptType = "initial" | "retry" | "reclaim" | "replay";
export type AttemptLifecycle =
  | "started"
  | "suspended"
  | "ended_success"
  | "ended_failure"
  | "ended_cancelled"
  | "interrupted_reclaimed";

export interface AttemptRecord {
  /** 0, 1, 2 … without gaps. */
  readonly attemptIndex: number;
  readonly attemptId: AttemptId;
  readonly attemptType: AttemptType;
  readonly attemptState: AttemptLifecycle;
  /** The last lease it ran under. */
  readonly leaseId: LeaseId;
  readonly leaseEpoch: number;
  readonly workerId: WorkerId;
  readonly workerInstanceId: WorkerInstanceId;
  readonly startedAtMs: number;
  readonly endedAtMs?: number;
  readonly failureReason?: string;
  readonly failureCategory?: string;
  /** Why it was taken over, on attempts of type `reclaim`. */
  readonly reclaimReason?: "lease_expired" | "lease_revoked";
  /** Why it was replayed and by whom, on attempts of type `replay`. */
  readonly replayReason?: string;
  readonly replayRequestedBy?: string;
  readonly previousAttemptIndex?: number;
}

export interface ClaimedExecution {
  readonly kind: "fresh" | "resumed" | "reclaimed";
  readonly executionId: ExecutionId;
  readonly laneId: LaneId;
  readonly leaseId: LeaseId;
  /** Grows with every lease; pass it to outside systems to fence them too. */
  readonly leaseEpoch: number;
  readonly attemptIndex: number;
  readonly attemptId: AttemptId;
  readonly attemptType: AttemptType;
  readonly leaseExpiresAtMs: number;
  readonly handle: Handle;
  readonly context: ExecutionContext;
}

export interface WorkerInfo {
  readonly workerId: WorkerId;
  readonly workerInstanceId: WorkerInstanceId;
  readonly namespace: Namespace;
  readonly lanes: readonly LaneId[];
  readonly capabilities: readonly string[];
  readonly lastHeartbeatMs: number;
  readonly livenessTtlMs: number;
  readonly registeredAtMs: number;
}

export interface ExpiredLeaseInfo {
  readonly executionId: ExecutionId;
  readonly leaseId: LeaseId;
  readonly leaseEpoch: number;
  readonly workerInstanceId: WorkerInstanceId;
  readonly expiresAtMs: number;
  readonly attemptIndex: number;
}
