/** Suspending an attempt on SQL stores, behind the fence: what is decided from what was read, and what is to be written. */
import { isRefusal, refuse, type Refusal } from "../errors.js";
import type { Args } from "../operations/inputs-by-operation.js";
import type { ExecutionPolicy, TimeoutBehavior } from "../policies.js";
import { executionIdOf } from "../records/executions.js";
import { uuidToBytes } from "../records/values.js";
import {
  evaluateBuffered,
  initialProgress,
  type BufferedEvaluation,
  type BufferedSignal,
} from "../rules/conditions.js";
import type { Keystore } from "../rules/keystore.js";
import {
  blockingReasonOf,
  pendingKeyFault,
  suspendReplayMs,
} from "../rules/suspension.js";
import { mintToken } from "../rules/token.js";
import { HOME } from "../state.js";
import { pauseTimeout, releaseLease } from "./lifecycle.js";
import {
  attemptStateCode,
  changeDetails,
  reasonCode,
  type ExecutionRow,
} from "./rows.js";
import {
  receiptOf,
  tokenOf,
  waitpointState,
  type SuspendReceipt,
  type WaitpointRow,
} from "./suspensions.js";

/** What both ways of suspending say. */
export type SuspendArgs = Omit<Args<"suspend">, "handle">;

/** A signal that a pending waitpoint has got, as a store names it. */
export interface BufferedSignalRow extends BufferedSignal {
  readonly id: Uint8Array;
}

/** What suspending goes by, beside the execution's row. */
export interface SuspendGrounds<Buffered extends BufferedSignalRow> {
  /** Needed only where the call leaves its timeout to it: {@link leavesTimeout}. */
  readonly policy: ExecutionPolicy["suspensionPolicy"];
  readonly keystore: Keystore;
  /** Those of the call that are there already. */
  readonly waitpoints: readonly WaitpointRow[];
  /** Signals that a pending one has got, in the order of acceptance. */
  readonly buffered: readonly Buffered[];
}

interface Timeout {
  readonly atMs: number | undefined;
  readonly behavior: TimeoutBehavior;
}

/** A pending waitpoint with what its signals come to, or the kid that signs the tokens of fresh ones. */
type Bound<Buffered> =
  | {
      readonly pending: WaitpointRow;
      readonly evaluation: BufferedEvaluation;
      readonly signals: readonly Buffered[];
    }
  | { readonly kid: string };

/** All that is written down, once nothing can be refused any more. */
export interface Suspending<Buffered> {
  readonly args: SuspendArgs;
  readonly timeout: Timeout;
  readonly bound: Bound<Buffered>;
  /** By signals that came before: nothing is given up. */
  readonly satisfied: boolean;
  readonly receipt: SuspendReceipt;
  readonly nowMs: number;
}

export function leavesTimeout(args: SuspendArgs): boolean {
  return args.timeoutAtMs === undefined || args.timeoutBehavior === undefined;
}

export function decideSuspend<Buffered extends BufferedSignalRow>(
  row: ExecutionRow,
  args: SuspendArgs,
  grounds: SuspendGrounds<Buffered>,
  nowMs: number,
): Suspending<Buffered> | Refusal {
  const timeout = timeoutOf(args, grounds, nowMs);
  if (args.resumeCondition.kind === "timeoutOnly" && timeout.atMs === undefined)
    return refuse("invalid_input", {
      reason: "timeout_only_without_deadline",
      field: "timeoutAtMs",
    });
  const bound = bind(row, args, grounds, nowMs);
  if (isRefusal(bound)) return bound;
  const satisfied = "pending" in bound && bound.evaluation.satisfied;
  const receipt = receiptOf(row, args, satisfied);
  return { args, timeout, bound, satisfied, receipt, nowMs };
}

/** The call's own, else the policy's, else none and `fail`. */
function timeoutOf(
  { timeoutAtMs, timeoutBehavior }: SuspendArgs,
  { policy }: Pick<SuspendGrounds<BufferedSignalRow>, "policy">,
  nowMs: number,
): Timeout {
  const defaultMs = policy?.defaultTimeoutMs;
  return {
    atMs:
      timeoutAtMs ?? (defaultMs === undefined ? undefined : nowMs + defaultMs),
    behavior: timeoutBehavior ?? policy?.timeoutBehavior ?? "fail",
  };
}

function bind<Buffered extends BufferedSignalRow>(
  row: ExecutionRow,
  args: SuspendArgs,
  grounds: SuspendGrounds<Buffered>,
  nowMs: number,
): Bound<Buffered> | Refusal {
  const primary = args.waitpoints[0]!;
  if (primary.kind === "usePending")
    return bindPending(row, args, grounds, nowMs);
  if (grounds.waitpoints.length > 0)
    return refuse("waitpoint_already_exists", {});
  // Tokens are made from what is written; that they can be made has to be known before.
  const minted = mintToken(grounds.keystore, {
    executionId: executionIdOf(row),
    waitpointId: primary.waitpointId,
    createdAtMs: nowMs,
    waitpointKey: primary.waitpointKey,
  });
  return isRefusal(minted) ? minted : { kid: minted.kid };
}

function bindPending<Buffered extends BufferedSignalRow>(
  row: ExecutionRow,
  { waitpoints, resumeCondition }: SuspendArgs,
  {
    keystore,
    waitpoints: [pending],
    buffered: signals,
  }: SuspendGrounds<Buffered>,
  nowMs: number,
): Bound<Buffered> | Refusal {
  const { waitpointId } = waitpoints[0]!;
  if (pending === undefined)
    return refuse("waitpoint_not_found", { entity: "waitpoint", waitpointId });
  const state = waitpointState(pending, nowMs);
  if (state === "expired") return refuse("pending_waitpoint_expired", {});
  if (state !== "pending") return refuse("waitpoint_not_pending", {});
  if (pending.attempt !== row.attempt)
    return refuse("invalid_waitpoint_for_execution", {});
  if (tokenOf(pending, executionIdOf(row), keystore, nowMs) === undefined)
    return refuse("waitpoint_not_token_bound", {});
  const key = pending.waitpoint_key;
  const fault = pendingKeyFault(key, resumeCondition);
  if (fault !== undefined)
    return refuse("invalid_input", { reason: fault, field: "waitpoints" });
  const evaluation = evaluateBuffered(resumeCondition, key, signals);
  return { pending, signals, evaluation };
}

/** Lease and time of the attempt stop; epoch and attempt stay. */
export function park(
  row: ExecutionRow,
  { args, timeout, nowMs }: Suspending<unknown>,
): void {
  pauseTimeout(row, nowMs);
  releaseLease(row);
  row.home = HOME.suspended;
  row.score = nowMs;
  row.reason = reasonCode(blockingReasonOf(args.reasonCode));
  row.attempt_state = attemptStateCode("attempt_interrupted");
  row.timeout_at = timeout.atMs ?? null;
  row.transitioned_at = nowMs;
  row.mutated_at = nowMs;
  changeDetails(row, { blockingDetail: args.reasonCode });
}

/** What the log tells of it. */
export function suspendedEvent({
  args,
  timeout,
  receipt,
}: Suspending<unknown>) {
  const { atMs: timeoutAtMs, behavior: timeoutBehavior } = timeout;
  return {
    reason: args.reasonCode,
    data: {
      suspensionId: receipt.suspensionId,
      waitpoints: receipt.waitpoints,
      ...(timeoutAtMs === undefined ? {} : { timeoutAtMs, timeoutBehavior }),
    },
  };
}

/** The columns of a suspension, in the order of {@link suspensionValues}. */
export const SUSPENSION_COLUMNS = [
  "seq",
  "id",
  "attempt",
  "receipt",
  "reason",
  "requested_by",
  "created_at",
  "timeout_at",
  "timeout_behavior",
  "condition",
  "policy",
  "pointer",
  "progress",
  "closed_at",
  "close_reason",
  "resume_trigger",
  "closer",
] as const;

export function suspensionValues(
  row: ExecutionRow,
  { args, timeout, bound, receipt, nowMs }: Suspending<BufferedSignalRow>,
): (string | number | Uint8Array | null)[] {
  const evaluation = "pending" in bound ? bound.evaluation : undefined;
  const progress =
    evaluation?.progress ?? initialProgress(args.resumeCondition);
  const closer = closerOf(bound);
  const closed =
    closer === undefined
      ? [null, null, null, null]
      : [nowMs, "resumed", "signal", closer];
  return [
    row.seq,
    uuidToBytes(args.suspensionId),
    row.attempt,
    JSON.stringify(receipt),
    args.reasonCode,
    args.requestedBy,
    nowMs,
    timeout.atMs ?? null,
    timeout.behavior,
    JSON.stringify(args.resumeCondition),
    JSON.stringify(args.resumePolicy),
    args.continuationMetadataPointer ?? null,
    JSON.stringify(progress),
    ...closed,
  ];
}

/** The receipt under the call's key, and until when repeats are answered from it; nothing where the call has no key. */
export function replayValues(
  row: ExecutionRow,
  { args, timeout, receipt, nowMs }: Suspending<unknown>,
):
  [seq: number, key: string, receipt: string, expiresAtMs: number] | undefined {
  const { idempotencyKey = "" } = args;
  if (idempotencyKey === "") return undefined;
  const expiresAtMs = nowMs + suspendReplayMs(timeout.atMs, nowMs);
  return [row.seq, idempotencyKey, JSON.stringify(receipt), expiresAtMs];
}

/** The buffered signal that satisfied the condition: it is closed from the start, by this one. */
function closerOf(bound: Bound<BufferedSignalRow>): Uint8Array | undefined {
  if (!("pending" in bound) || !bound.evaluation.satisfied) return undefined;
  return bound.signals[bound.evaluation.results.length - 1]!.id;
}
