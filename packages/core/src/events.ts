/**
 * The one log: every transition appends one event; lifecycle history, lease history and completions
 * are views of it by type. Source: specification 00 D35, 09 §16.9, 06 §10.
 */
import type {
  AttemptId,
  ExecutionId,
  LaneId,
  LeaseId,
  Namespace,
  SignalId,
  WaitpointId,
  WorkerId,
  WorkerInstanceId,
} from "./ids.js";
import type { JsonValue } from "./json.js";
import type { SignalEffect } from "./rules/conditions.js";
import type { StateVector, TerminalOutcome } from "./state.js";

/** Stored by position in this list: append only. */
export const EVENT_TYPES = [
  "created",
  "granted",
  "claimed",
  "resumed",
  "reclaimed",
  "lease_expired",
  "lease_revoked",
  "suspended",
  "signal",
  "delayed",
  "promoted",
  "blocked",
  "unblocked",
  "held",
  "released_hold",
  "priority_changed",
  "progress",
  "retry_scheduled",
  "waiting_children",
  "dependency_resolved",
  "completed",
  "failed",
  "cancelled",
  "expired",
  "skipped",
  "replayed",
  "budget_soft_breach",
  "budget_hard_breach",
  /** Feed only: never part of an execution's history, at most once per 10 s and lease. */
  "renewed",
  /** Made when read: stands for events that were trimmed. */
  "trimmed",
  /** Feed only: tags were set, replaced, or went with their execution. */
  "tags_changed",
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

export const TERMINAL_EVENT_TYPES = [
  "completed",
  "failed",
  "cancelled",
  "expired",
  "skipped",
] as const satisfies EventType[];

/** Who caused an event. */
export type EventActor = "client" | "worker" | "operator" | "engine";

export interface ExecutionEvent {
  /** From 1 without gaps per execution. */
  readonly seq: number;
  readonly atMs: number;
  readonly type: EventType;
  /** The vector before; absent where it is not known any more or did not change. */
  readonly fromState?: StateVector;
  /** The vector after; present on every transition. */
  readonly toState?: StateVector;
  readonly attemptIndex?: number;
  readonly leaseEpoch?: number;
  readonly actor: EventActor;
  readonly reason?: string;
  readonly data?: { readonly [key: string]: JsonValue };
}

/** Opaque position in a feed; compare for equality only, pass back to resume. Text: base64url. */
export type FeedCursor = string;
/** Start at the oldest event still kept. */
export const EARLIEST: FeedCursor = "AA";

interface FeedEvent {
  /** The position after this event. */
  readonly cursor: FeedCursor;
  readonly executionId: ExecutionId;
  readonly atMs: number;
  readonly flowId?: string;
  readonly namespace: Namespace;
  /** All tags of the execution when the event was written. */
  readonly tags: Readonly<Record<string, string>>;
}

export type AcquireReason =
  | "claim"
  | "claim_resumed"
  | "issue_grant_and_claim"
  | "issue_grant_and_claim_resumed";

export type LeaseHistoryEvent = FeedEvent &
  (
    | {
        readonly kind: "acquired";
        readonly leaseId: LeaseId;
        readonly leaseEpoch: number;
        readonly workerId: WorkerId;
        readonly workerInstanceId: WorkerInstanceId;
        readonly attemptIndex: number;
        readonly attemptId: AttemptId;
        readonly reason: AcquireReason;
      }
    | {
        readonly kind: "renewed";
        readonly leaseId: LeaseId;
        readonly leaseEpoch: number;
        readonly workerInstanceId: WorkerInstanceId;
        readonly expiresAtMs: number;
      }
    | {
        readonly kind: "expired";
        readonly leaseId: LeaseId;
        readonly prevOwner: WorkerInstanceId;
      }
    | {
        readonly kind: "reclaimed";
        readonly newLeaseId: LeaseId;
        readonly newOwner: WorkerInstanceId;
        readonly attemptIndex: number;
      }
    | {
        readonly kind: "revoked";
        readonly leaseId: LeaseId;
        readonly revokedBy: string;
      }
  );

export type CompletionEvent = FeedEvent & {
  readonly kind: "completion";
  /** `failure` stands for the terminal outcome `failed`. */
  readonly outcome: Exclude<TerminalOutcome, "none" | "failed"> | "failure";
  readonly laneId: LaneId;
  readonly attemptIndex: number;
};

/** What one delivery did: {@link SignalEffect} in brackets, unless it is one of the first three. */
export type DeliveryEffect =
  "satisfied" | "buffered" | "deduped" | `other(${SignalEffect})`;

export type SignalDeliveryEvent = FeedEvent & {
  readonly kind: "signalDelivery";
  readonly signalId: SignalId;
  readonly waitpointId: WaitpointId;
  /** Absent where the sender named none. */
  readonly sourceIdentity?: string;
  readonly effect: DeliveryEffect;
};

export type InstanceTagEvent = FeedEvent & {
  readonly kind: "attached" | "cleared";
  /** `key=value` */
  readonly tag: string;
};

/** Pushed to the process that held the lease; a hint, losing it loses nothing. */
export interface TaskEndedNotice {
  readonly kind: "taskEnded";
  readonly executionId: ExecutionId;
  readonly leaseEpoch: number;
  /** What the holder's next fenced call would be refused with. */
  readonly code: "execution_not_active" | "lease_expired" | "lease_revoked";
  /** The terminal outcome, where there is one; a lost lease has none. */
  readonly outcome?: Exclude<TerminalOutcome, "none">;
  /** What an operator or the engine gave as the reason. */
  readonly reason?: string;
  /** Of a cancellation. */
  readonly source?: string;
}

/** What a subscriber sees; empty sees all. Both present: both must match exactly. */
export interface FeedFilter {
  readonly namespace?: string;
  readonly instanceTag?: readonly [key: string, value: string];
}
