/** What a worker says when it suspends: waitpoints, condition, policy, timeout. Source: specification 05 §5.1, 01 §9.1. */
import { z } from "zod";

import { Handle } from "../handles.js";
import { IdempotencyKey, SuspensionId, WaitpointId } from "../ids.js";
import {
  CONDITION_COUNT_MAX,
  RESUME_DELAY_MS_MAX,
  SUSPEND_POINTER_MAX_BYTES,
  WAITPOINT_KEY_MAX_BYTES,
} from "../limits.js";
import { TimeoutBehavior } from "../policies.js";
import {
  COUNT_KINDS,
  type ResumeCondition as ResumeConditionTree,
} from "../rules/conditions.js";
import { SUSPENSION_REASONS, suspendFault } from "../rules/suspension.js";
import {
  boundedText,
  ExecutionRef,
  LeaseFence,
  refuseWith,
  TimestampMs,
} from "./inputs.js";

/** Names a waitpoint in conditions. */
const WaitpointKeyText = boundedText(WAITPOINT_KEY_MAX_BYTES);
/** 1 to 256 bytes. */
export const WaitpointKey = WaitpointKeyText.min(1, "must not be empty");

export const WaitpointBinding = z.discriminatedUnion("kind", [
  z
    .object({
      kind: z.literal("fresh"),
      /** Not used before by this execution. */
      waitpointId: WaitpointId,
      /** Default: `wpk:<waitpointId>`. */
      waitpointKey: WaitpointKeyText.optional(),
    })
    .transform((binding) => ({
      ...binding,
      waitpointKey: binding.waitpointKey ?? `wpk:${binding.waitpointId}`,
    })),
  z.object({
    kind: z.literal("usePending"),
    /** Made before by `createWaitpoint`; signals that it has got by now count. */
    waitpointId: WaitpointId,
  }),
]);
export type WaitpointBinding = z.input<typeof WaitpointBinding>;

/** Any text: which names may not be asked for is told by the cross-checks, in their order. */
const SignalMatcher = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("byName"), name: z.string() }),
  z.object({ kind: z.literal("wildcard") }),
]);

const ResumeCondition: z.ZodType<ResumeConditionTree, ResumeConditionTree> =
  z.lazy(() =>
    z.discriminatedUnion("kind", [
      z.object({
        kind: z.literal("single"),
        waitpointKey: WaitpointKeyText,
        matcher: SignalMatcher,
      }),
      z.object({ kind: z.literal("operatorOnly") }),
      z.object({ kind: z.literal("timeoutOnly") }),
      z.object({
        kind: z.literal("composite"),
        body: z.discriminatedUnion("kind", [
          z.object({
            kind: z.literal("allOf"),
            members: z.array(ResumeCondition),
          }),
          z.object({
            kind: z.literal("count"),
            n: z.number().int().max(CONDITION_COUNT_MAX),
            countKind: z.enum(COUNT_KINDS),
            matcher: SignalMatcher.optional(),
            waitpoints: z.array(WaitpointKeyText),
          }),
        ]),
      }),
    ]),
  );

export const ResumeDelayMs = z.number().int().min(0).max(RESUME_DELAY_MS_MAX);

export const ResumePolicy = z.object({
  resumeTarget: z.literal("runnable").default("runnable"),
  /** From satisfaction to being claimable. Present, also 0: senders have no say in it. */
  resumeDelayMs: ResumeDelayMs.optional(),
  /** Kept with the suspension; signals stay observable either way. */
  consumeMatchedSignals: z.boolean().default(true),
  /** Kept with the suspension; signals are never dropped before their execution. */
  retainSignalBufferUntilClosed: z.boolean().default(false),
  /** Kept with the suspension; its waitpoints always close with it. */
  closeWaitpointOnResume: z.boolean().default(true),
});
export type ResumePolicy = z.input<typeof ResumePolicy>;

const suspendFields = {
  suspensionId: SuspensionId,
  /** 1 to 64; the first is the primary one. */
  waitpoints: z.array(WaitpointBinding),
  resumeCondition: ResumeCondition,
  resumePolicy: ResumePolicy.prefault({}),
  reasonCode: z.enum(SUSPENSION_REASONS),
  requestedBy: z
    .enum(["worker", "operator", "policy", "system_timeout_policy"])
    .default("worker"),
  /** Absent: the execution policy's default, or never. Up to 10 minutes ago fires at once. */
  timeoutAtMs: TimestampMs.optional(),
  /** Absent: the execution policy's, else `fail`. */
  timeoutBehavior: TimeoutBehavior.optional(),
  /** Opaque; at most 4 096 bytes. */
  continuationMetadataPointer: boundedText(
    SUSPEND_POINTER_MAX_BYTES,
  ).optional(),
  /** Of this execution; empty means absent. */
  idempotencyKey: IdempotencyKey.optional(),
};

/** Cross-checks of fields that are each right by themselves. */
function checkSuspend(
  input: {
    readonly waitpoints: readonly z.output<typeof WaitpointBinding>[];
    readonly resumeCondition: ResumeConditionTree;
  },
  ctx: z.RefinementCtx,
): void {
  const reason =
    suspendFault(input.waitpoints, input.resumeCondition) ??
    (input.waitpoints.some(
      (binding) => binding.kind === "fresh" && binding.waitpointKey === "",
    )
      ? "waitpoints[0].waitpointKey: must not be empty"
      : undefined);
  if (reason !== undefined) refuseWith(ctx, "invalid_input", { reason });
}

/** The handle that a suspend gives is checked before all else: whoever holds one has suspended already. */
const RunningHandle = Handle.superRefine(({ kind }, ctx) => {
  if (kind === "suspended") refuseWith(ctx, "already_suspended", {});
});

export const SuspendInput = z
  .object({ handle: RunningHandle, ...suspendFields })
  .superRefine(checkSuspend);
export type SuspendInput = z.input<typeof SuspendInput>;

export const SuspendByTripleInput = ExecutionRef.extend({
  fence: LeaseFence.optional(),
  ...suspendFields,
}).superRefine(checkSuspend);
export type SuspendByTripleInput = z.input<typeof SuspendByTripleInput>;
