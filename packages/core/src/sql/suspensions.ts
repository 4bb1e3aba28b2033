/** Suspensions, waitpoints and signals as SQL stores keep them, and what answers make of their rows. */
import type { SignalEventData } from "../records/feeds.js";
import { bytesToUuid, optional, parseJson } from "../records/values.js";
import { invalidInput, refuse, type Refusal } from "../errors.js";
import type { EventActor } from "../events.js";
import { encodeHandle, type BackendLabel } from "../handles.js";
import type {
  AttemptId,
  ExecutionId,
  LaneId,
  LeaseId,
  SignalId,
  SuspensionId,
  WaitpointId,
  WorkerInstanceId,
} from "../ids.js";
import type { Args } from "../operations/inputs-by-operation.js";
import type {
  BoundWaitpoint,
  PendingWaitpointInfo,
  ResumeSignal,
  SuspendOutcome,
} from "../operations/suspension.js";
import type { TimeoutBehavior } from "../policies.js";
import {
  requiredSignalNames,
  type LeafProgress,
  type ResumeCondition,
  type SignalEffect,
} from "../rules/conditions.js";
import type { Keystore } from "../rules/keystore.js";
import {
  WAITPOINT_STATES,
  waitpointStateAt,
  type ResumeTrigger,
  type SuspensionReason,
  type WaitpointState,
} from "../rules/suspension.js";
import { shownToken, tokenFingerprint, validateToken } from "../rules/token.js";
import type { ExecutionRow } from "./rows.js";

/** What a signal says, whoever sends it. */
export type Signal = Omit<
  Args<"deliverSignal">,
  "executionId" | "namespace" | "waitpointId" | "waitpointToken"
> & { readonly actor: EventActor };

export interface SuspensionRow {
  readonly seq: number;
  readonly id: Uint8Array;
  readonly attempt: number;
  readonly receipt: string;
  readonly reason: SuspensionReason;
  readonly created_at: number;
  readonly timeout_at: number | null;
  readonly timeout_behavior: TimeoutBehavior;
  readonly condition: string;
  readonly policy: string;
  readonly progress: string;
  readonly closed_at: number | null;
  readonly resume_trigger: ResumeTrigger | null;
}

export interface WaitpointRow {
  readonly seq: number;
  readonly id: Uint8Array;
  readonly attempt: number;
  readonly state: number;
  readonly waitpoint_key: string;
  readonly kid: string;
  readonly created_at: number;
  readonly activated_at: number | null;
  readonly expires_at: number | null;
  readonly suspension: Uint8Array | null;
  readonly signals: number;
  readonly matched: number;
  readonly last_signal_at: number | null;
}

export interface SignalRow {
  readonly id: Uint8Array;
  readonly name: string;
  readonly category: string;
  readonly source_type: string;
  readonly source_identity: string;
  readonly correlation_id: string;
  readonly accepted_at: number;
  readonly payload: Uint8Array | null;
}

export const waitpointStateCode = (state: WaitpointState): number =>
  WAITPOINT_STATES.indexOf(state);

/** As the clock has it: a pending waitpoint past its time has expired. */
export function waitpointState(
  row: Pick<WaitpointRow, "state" | "expires_at">,
  nowMs: number,
): WaitpointState {
  return waitpointStateAt(
    WAITPOINT_STATES[row.state]!,
    row.expires_at ?? undefined,
    nowMs,
  );
}

export const readCondition = (row: SuspensionRow) =>
  parseJson<ResumeCondition>(row.condition, "condition");
export const readProgress = (row: SuspensionRow) =>
  parseJson<LeafProgress[]>(row.progress, "progress");
export const readResumePolicy = (row: SuspensionRow) =>
  parseJson<{ resumeDelayMs?: number }>(row.policy, "resume policy");

/** What a repeated suspend is answered from, and by whom it may be repeated. */
export interface SuspendReceipt {
  readonly outcome: SuspendOutcome["kind"];
  readonly suspensionId: string;
  readonly leaseId: string;
  readonly leaseEpoch: number;
  readonly attemptId: string;
  readonly attemptIndex: number;
  readonly leaseTtlMs: number;
  readonly holder: number;
  /** Ids, the primary one first. */
  readonly waitpoints: readonly string[];
}

export const readReceipt = (text: string) =>
  parseJson<SuspendReceipt>(text, "receipt");

/** Of a suspend by the running attempt. */
export function receiptOf(
  row: ExecutionRow,
  {
    suspensionId,
    waitpoints,
  }: {
    readonly suspensionId: string;
    readonly waitpoints: readonly { readonly waitpointId: string }[];
  },
  satisfied: boolean,
): SuspendReceipt {
  return {
    outcome: satisfied ? "alreadySatisfied" : "suspended",
    suspensionId,
    leaseId: bytesToUuid(row.lease!),
    leaseEpoch: row.epoch,
    attemptId: bytesToUuid(row.attempt_id!),
    attemptIndex: row.attempt,
    leaseTtlMs: row.lease_expires_at! - row.renewed_at!,
    holder: row.holder!,
    waitpoints: waitpoints.map(({ waitpointId }) => waitpointId),
  };
}

export function isReceiptOf(
  receipt: SuspendReceipt,
  fence: {
    readonly leaseId?: string | undefined;
    readonly leaseEpoch?: number | undefined;
    readonly attemptId?: string | undefined;
  },
): boolean {
  return (
    receipt.leaseId === fence.leaseId &&
    receipt.leaseEpoch === fence.leaseEpoch &&
    receipt.attemptId === fence.attemptId
  );
}

/** What the receipt does not say, for it follows from other records. */
export interface ReceiptContext {
  readonly backend: BackendLabel;
  readonly executionId: ExecutionId;
  readonly laneId: LaneId;
  readonly workerInstanceId: WorkerInstanceId;
  /** Those of the receipt, in its order. */
  readonly waitpoints: readonly WaitpointRow[];
  readonly keystore: Keystore;
  readonly nowMs: number;
}

/** The outcome with its tokens, made anew; `token_expired` where they would open nothing any more. */
export function toOutcome(
  receipt: SuspendReceipt,
  context: ReceiptContext,
): SuspendOutcome | Refusal {
  const bound = context.waitpoints.map((row) => boundWaitpoint(row, context));
  if (bound.some((waitpoint) => waitpoint === undefined))
    return refuse("token_expired", {});
  const [primary, ...additionalWaitpoints] = bound as BoundWaitpoint[];
  const details = {
    suspensionId: receipt.suspensionId as SuspensionId,
    ...primary!,
    additionalWaitpoints,
  };
  if (receipt.outcome === "alreadySatisfied")
    return { kind: "alreadySatisfied", details };
  const handle = encodeHandle(context.backend, "suspended", {
    executionId: context.executionId,
    attemptIndex: receipt.attemptIndex,
    attemptId: receipt.attemptId as AttemptId,
    leaseId: receipt.leaseId as LeaseId,
    leaseEpoch: receipt.leaseEpoch,
    leaseTtlMs: receipt.leaseTtlMs,
    laneId: context.laneId,
    workerInstanceId: context.workerInstanceId,
  });
  return { kind: "suspended", details, handle };
}

function boundWaitpoint(
  row: WaitpointRow,
  { executionId, keystore, nowMs }: ReceiptContext,
): BoundWaitpoint | undefined {
  const waitpointToken = tokenOf(row, executionId, keystore, nowMs);
  return (
    waitpointToken && {
      waitpointId: bytesToUuid(row.id) as WaitpointId,
      waitpointKey: row.waitpoint_key,
      waitpointToken,
    }
  );
}

/** Nothing where the key that it is signed with is no longer good. */
export function tokenOf(
  row: WaitpointRow,
  executionId: ExecutionId,
  keystore: Keystore,
  nowMs: number,
) {
  return shownToken(keystore, row.kid, subjectOf(row, executionId), nowMs);
}

export function subjectOf(row: WaitpointRow, executionId: ExecutionId) {
  return {
    executionId,
    waitpointId: bytesToUuid(row.id),
    createdAtMs: row.created_at,
    waitpointKey: row.waitpoint_key,
  };
}

/** @param waitpoint nothing where there is none, which is refused in the same words and after the same time */
export function refuseToken(
  keystore: Keystore,
  call: Pick<
    Args<"deliverSignal">,
    "executionId" | "waitpointId" | "waitpointToken"
  >,
  waitpoint: WaitpointRow | undefined,
  nowMs: number,
): Refusal | undefined {
  const minted = waitpoint && {
    createdAtMs: waitpoint.created_at,
    waitpointKey: waitpoint.waitpoint_key,
  };
  return validateToken(keystore, call.waitpointToken, call, minted, nowMs);
}

/** @param condition of the open suspension, for an active waitpoint */
export function toWaitpointInfo(
  row: WaitpointRow,
  executionId: ExecutionId,
  condition: ResumeCondition | undefined,
  keystore: Keystore,
  nowMs: number,
): PendingWaitpointInfo {
  const token = tokenOf(row, executionId, keystore, nowMs);
  return {
    executionId,
    waitpointId: bytesToUuid(row.id) as WaitpointId,
    waitpointKey: row.waitpoint_key,
    state: WAITPOINT_STATES[row.state] as PendingWaitpointInfo["state"],
    requiredSignalNames:
      condition === undefined || row.suspension === null
        ? []
        : requiredSignalNames(condition, row.waitpoint_key),
    createdAtMs: row.created_at,
    ...optional("activatedAtMs", row.activated_at),
    ...optional("expiresAtMs", row.expires_at),
    tokenKid: row.kid,
    ...optional("tokenFingerprint", token && tokenFingerprint(token)),
    signalCount: row.signals,
    matchedSignalCount: row.matched,
    ...optional("lastSignalAtMs", row.last_signal_at),
  };
}

export function toResumeSignal(row: SignalRow): ResumeSignal {
  return {
    signalId: bytesToUuid(row.id) as SignalId,
    signalName: row.name,
    signalCategory: row.category,
    sourceType: row.source_type,
    sourceIdentity: row.source_identity,
    correlationId: row.correlation_id,
    acceptedAtMs: row.accepted_at,
    ...optional("payload", row.payload),
  };
}

/** What the log tells of a delivery. */
export function signalEventData(
  signalId: string,
  waitpoint: WaitpointRow,
  sourceIdentity: string,
  effect: SignalEventData["effect"],
): SignalEventData & { readonly [key: string]: string } {
  return {
    signalId,
    waitpointId: bytesToUuid(waitpoint.id),
    ...(sourceIdentity === "" ? {} : { sourceIdentity }),
    effect,
  };
}

/** Some leaf took it for its own, counted before or not. */
export function isMatch(effect: SignalEffect): boolean {
  return (
    effect === "resume_condition_satisfied" ||
    effect === "appended_to_waitpoint" ||
    effect === "appended_to_waitpoint_duplicate"
  );
}

/** The leaves that a signal counted for, as they are stored. */
export const leavesText = (counted: readonly number[]): string | null =>
  counted.length === 0 ? null : counted.join(",");

/** Stands for the timeout that resumed; its id is the suspension's. */
export function timeoutSignal(row: SuspensionRow): ResumeSignal {
  const suspensionId = bytesToUuid(row.id);
  return {
    signalId: suspensionId as SignalId,
    signalName: "timeout",
    signalCategory: "system",
    sourceType: "suspension_timeout",
    sourceIdentity: suspensionId,
    correlationId: "",
    acceptedAtMs: row.closed_at!,
  };
}

export interface SecretRow {
  readonly kid: string;
  readonly secret: string;
  readonly signs: number | boolean;
  readonly expires_at: number | null;
}

export function toKeystore(rows: readonly SecretRow[]): Keystore {
  return {
    currentKid: rows.find(({ signs }) => Boolean(signs))?.kid,
    secrets: rows.map(({ kid, secret, expires_at: expiresAt }) => ({
      kid,
      secretHex: secret,
      expiresAtMs: expiresAt ?? undefined,
    })),
  };
}

/** The place of a suspended execution in the list of all. */
export interface SuspendedPlace {
  readonly score: number;
  readonly id: Uint8Array;
  readonly partition: number;
}

export function formatSuspendedCursor(place: SuspendedPlace): string {
  return `${place.score}.${Buffer.from(place.id).toString("hex")}.${place.partition}`;
}

/** @throws EngineError `invalid_input` where it is no cursor of this list */
export function parseSuspendedCursor(
  cursor: string | undefined,
): SuspendedPlace | undefined {
  if (cursor === undefined) return undefined;
  const match = /^(\d{1,16})\.([0-9a-f]{32})\.(\d{1,5})$/.exec(cursor);
  if (match === null)
    throw invalidInput(
      "cursor",
      `'${cursor}' is no cursor of this list; pass nextCursor of the page before`,
    );
  return {
    score: Number(match[1]),
    id: Buffer.from(match[2]!, "hex"),
    partition: Number(match[3]),
  };
}
