/** What suspending, resuming and timing out decide by. Source: specification 05 §5–9. */
import { refuse, type Refusal } from "../errors.js";
import {
  SUSPEND_BINDINGS_MAX,
  SUSPEND_REPLAY_MS_MAX,
  SUSPEND_REPLAY_SLACK_MS,
} from "../limits.js";
import type { TimeoutBehavior } from "../policies.js";
import type { BlockingReason, TerminalOutcome } from "../state.js";
import {
  conditionFault,
  conditionKeys,
  conditionNames,
  type ResumeCondition,
} from "./conditions.js";

export const SUSPENSION_REASONS = [
  "waiting_for_signal",
  "waiting_for_approval",
  "waiting_for_callback",
  "waiting_for_tool_result",
  "waiting_for_operator_review",
  "paused_by_policy",
  "paused_by_budget",
  "step_boundary",
  "manual_pause",
] as const;
export type SuspensionReason = (typeof SUSPENSION_REASONS)[number];

const BLOCKING: { readonly [R in SuspensionReason]: BlockingReason } = {
  waiting_for_signal: "waiting_for_signal",
  waiting_for_approval: "waiting_for_approval",
  waiting_for_callback: "waiting_for_callback",
  waiting_for_tool_result: "waiting_for_tool_result",
  waiting_for_operator_review: "paused_by_operator",
  paused_by_policy: "paused_by_policy",
  paused_by_budget: "waiting_for_budget",
  step_boundary: "waiting_for_signal",
  manual_pause: "paused_by_operator",
};

export function blockingReasonOf(reason: SuspensionReason): BlockingReason {
  return BLOCKING[reason];
}

/** A waitpoint of a suspend; a fresh one without a key is named after its id. */
export type BindingFacts =
  | {
      readonly kind: "fresh";
      readonly waitpointId: string;
      readonly waitpointKey: string;
    }
  | {
      readonly kind: "usePending";
      readonly waitpointId: string;
      /** Known once the record was read. */
      readonly waitpointKey?: string | undefined;
    };

/** What is wrong with a suspend's waitpoints and condition; nothing where they are right. The order is contractual. */
export function suspendFault(
  waitpoints: readonly BindingFacts[],
  condition: ResumeCondition,
): string | undefined {
  return (
    bindingsFault(waitpoints, condition) ??
    namesFault(condition) ??
    conditionFault(condition)
  );
}

function bindingsFault(
  waitpoints: readonly BindingFacts[],
  condition: ResumeCondition,
): string | undefined {
  const [primary, ...extras] = waitpoints;
  if (primary === undefined) return "waitpoints_empty";
  if (
    primary.kind === "fresh" &&
    condition.kind === "single" &&
    primary.waitpointKey !== condition.waitpointKey
  )
    return "waitpoint_key_mismatch";
  const at = (test: (extra: BindingFacts) => boolean) => {
    const index = extras.findIndex(test);
    return index < 0 ? undefined : `at waitpoints[${index + 1}]`;
  };
  const pending = at(({ kind }) => kind !== "fresh");
  if (pending !== undefined)
    return `additional_waitpoint_binding_must_be_fresh ${pending}`;
  const empty = at(({ waitpointKey }) => waitpointKey === "");
  if (empty !== undefined)
    return `additional_waitpoint_binding_empty_key ${empty}`;
  if (primary.kind === "usePending")
    // Its key, and with it what refers to it, is only known to the store.
    return extras.length > 0
      ? "use_pending_with_extras_unsupported"
      : undefined;
  return referenceFault(waitpoints, condition) ?? duplicateFault(waitpoints);
}

/** Both directions: what the condition names is bound, and what is bound is named. */
function referenceFault(
  waitpoints: readonly BindingFacts[],
  condition: ResumeCondition,
): string | undefined {
  const bound = waitpoints.map(({ waitpointKey }) => waitpointKey!);
  // Nothing refers to a waitpoint there; it is an address for whoever lists it.
  if (condition.kind === "operatorOnly" || condition.kind === "timeoutOnly")
    return bound.length > 1
      ? `extra_binding_not_referenced_by_condition: ${bound[1]}`
      : undefined;
  const named = conditionKeys(condition);
  const missing = named.find((key) => !bound.includes(key));
  if (missing !== undefined)
    return `referenced_waitpoint_key_missing_binding: ${missing}`;
  const unnamed = bound.find((key) => !named.includes(key));
  return unnamed === undefined
    ? undefined
    : `extra_binding_not_referenced_by_condition: ${unnamed}`;
}

function duplicateFault(
  waitpoints: readonly BindingFacts[],
): string | undefined {
  const distinct = (of: (binding: BindingFacts) => string | undefined) =>
    new Set(waitpoints.map(of)).size === waitpoints.length;
  if (
    !distinct(({ waitpointId }) => waitpointId) ||
    !distinct(({ waitpointKey }) => waitpointKey)
  )
    return "duplicate_waitpoint_binding";
  return waitpoints.length > SUSPEND_BINDINGS_MAX
    ? `condition_size_exceeded: ${waitpoints.length} bindings, at most ${SUSPEND_BINDINGS_MAX}`
    : undefined;
}

function namesFault(condition: ResumeCondition): string | undefined {
  const names = conditionNames(condition);
  if (names.includes("")) return "resume_condition: empty signal name";
  return names.some((name) => name.startsWith("__"))
    ? "reserved_signal_name"
    : undefined;
}

/** The same of a pending waitpoint, once its key is known. */
export function pendingKeyFault(
  waitpointKey: string,
  condition: ResumeCondition,
): string | undefined {
  if (condition.kind === "single")
    return condition.waitpointKey === waitpointKey
      ? undefined
      : "waitpoint_key_mismatch";
  return referenceFault(
    [{ kind: "usePending", waitpointId: "", waitpointKey }],
    condition,
  );
}

/** How long the outcome of a suspend is remembered under its idempotency key. */
export function suspendReplayMs(
  timeoutAtMs: number | undefined,
  nowMs: number,
): number {
  return timeoutAtMs === undefined
    ? SUSPEND_REPLAY_MS_MAX
    : Math.min(
        Math.max(timeoutAtMs - nowMs, 0) + SUSPEND_REPLAY_SLACK_MS,
        SUSPEND_REPLAY_MS_MAX,
      );
}

/** A sender may postpone what it wakes only where the suspension says nothing about it. */
export function effectiveResumeDelayMs(
  policyDelayMs: number | undefined,
  senderDelayMs: number | undefined,
): number {
  return policyDelayMs ?? senderDelayMs ?? 0;
}

/** What a timeout does: the end, or going on; nothing of both where somebody has to look at it. */
export type TimeoutEffect =
  | {
      readonly kind: "end";
      readonly outcome: Extract<
        TerminalOutcome,
        "failed" | "cancelled" | "expired"
      >;
      readonly closeReason: string;
      readonly failureReason: string;
    }
  | { readonly kind: "resume"; readonly closeReason: string }
  | { readonly kind: "escalate" };

const TIMEOUT_OUTCOMES = {
  fail: "failed",
  cancel: "cancelled",
  expire: "expired",
} as const;

export function timeoutEffect(behavior: TimeoutBehavior): TimeoutEffect {
  switch (behavior) {
    case "escalate":
      return { kind: "escalate" };
    case "autoResume":
    case "autoResumeWithTimeoutSignal":
      return { kind: "resume", closeReason: "timed_out_auto_resume" };
    default:
      return {
        kind: "end",
        outcome: TIMEOUT_OUTCOMES[behavior],
        closeReason: `timed_out_${behavior}`,
        failureReason: `suspension_timeout:${behavior}`,
      };
  }
}

/** Stored by position in this list: append only. */
export const WAITPOINT_STATES = [
  "pending",
  "active",
  "closed",
  "expired",
] as const;
export type WaitpointState = (typeof WAITPOINT_STATES)[number];

/** A pending waitpoint is over when its time is up, swept or not. */
export function waitpointStateAt(
  state: WaitpointState,
  expiresAtMs: number | undefined,
  nowMs: number,
): WaitpointState {
  return state === "pending" && (expiresAtMs ?? nowMs) <= nowMs
    ? "expired"
    : state;
}

/** 0 is no limit; a sender may only lower what the policy allows. */
export function effectiveSignalLimit(
  policyLimit: number,
  senderLimit: number | undefined,
): number {
  const limits = [policyLimit, senderLimit ?? 0].filter((limit) => limit > 0);
  return limits.length === 0 ? 0 : Math.min(...limits);
}

export interface SignalTarget {
  readonly terminal: boolean;
  /** By the clock: {@link waitpointStateAt}. */
  readonly waitpointState: WaitpointState;
  /** The execution is suspended, and on the suspension that this waitpoint belongs to. */
  readonly awaited: boolean;
  /** Accepted by the execution so far. */
  readonly signals: number;
  /** {@link effectiveSignalLimit} */
  readonly limit: number;
}

/** What becomes of a signal that nobody has seen before; the order of the checks is contractual. */
export function judgeSignal(
  target: SignalTarget,
): "buffer" | "evaluate" | Refusal {
  if (target.terminal) return refuse("target_not_signalable", {});
  if (target.waitpointState === "closed" || target.waitpointState === "expired")
    return refuse("waitpoint_closed", {});
  if (target.limit > 0 && target.signals >= target.limit)
    return refuse("signal_limit_exceeded", { limit: target.limit });
  if (target.waitpointState === "pending") return "buffer";
  return target.awaited ? "evaluate" : refuse("target_not_signalable", {});
}

export const RESUME_TRIGGERS = [
  "signal",
  "operator",
  "timeout",
  "budget_available",
] as const;
export type ResumeTrigger = (typeof RESUME_TRIGGERS)[number];

export interface ObservedSuspension {
  readonly attemptIndex: number;
  readonly open: boolean;
  /** How it ended. */
  readonly trigger?: ResumeTrigger | undefined;
  readonly timeoutBehavior: TimeoutBehavior;
}

/** What a handle may see of the last suspension: the signals that counted, and the one that stands for a timeout. */
export function observableSignals(
  suspension: ObservedSuspension,
  handle: { readonly attemptIndex: number; readonly suspended: boolean },
): { readonly contributors: boolean; readonly timeoutSignal: boolean } {
  const { open, trigger, timeoutBehavior } = suspension;
  if (suspension.attemptIndex !== handle.attemptIndex)
    return { contributors: false, timeoutSignal: false };
  if (open) return { contributors: handle.suspended, timeoutSignal: false };
  const timeoutSignal =
    trigger === "timeout" && timeoutBehavior === "autoResumeWithTimeoutSignal";
  return { contributors: trigger === "signal" || timeoutSignal, timeoutSignal };
}
