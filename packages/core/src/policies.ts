/**
 * What a submitter may fix about an execution's life: retries, timeouts, reclaim and replay caps, the
 * capabilities a worker must have. Frozen at creation. Source: specification 01 §8.
 */
import { z } from "zod";

import { engineError, type EngineError } from "./errors.js";
import {
  CAPABILITY_CSV_MAX_BYTES,
  CAPABILITY_TOKENS_MAX,
  byteLength,
  DEDUP_WINDOW_MS_DEFAULT,
  MAX_REPLAYS_DEFAULT,
  MAX_RETRIES_DEFAULT,
  MAX_SIGNALS_PER_EXECUTION_DEFAULT,
} from "./limits.js";

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const durationMs = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER);

export const Backoff = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("fixed"), delayMs: count.default(1_000) }),
  z.strictObject({
    type: z.literal("exponential"),
    initialDelayMs: count.default(1_000),
    maxDelayMs: count.default(60_000),
    multiplier: z.number().min(1).max(1_000).default(2),
    /** Picks uniformly between half the delay and the delay. */
    jitter: z.boolean().default(false),
  }),
]);
export type Backoff = z.infer<typeof Backoff>;

export const RetryPolicy = z.strictObject({
  /** Retries after the first attempt. */
  maxRetries: count.default(MAX_RETRIES_DEFAULT),
  backoff: Backoff.prefault({ type: "exponential" }),
  /** Empty: every category may retry. */
  retryableCategories: z.array(z.string()).default([]),
  nonRetryableCategories: z.array(z.string()).default([]),
});
export type RetryPolicy = z.infer<typeof RetryPolicy>;

export const TimeoutPolicy = z.strictObject({
  /** Running time of one attempt; restarts with every new attempt, pauses while the attempt is parked. */
  attemptTimeoutMs: durationMs.optional(),
  /** From creation to the end, whatever happens in between. */
  executionDeadlineMs: durationMs.optional(),
  /** Fills {@link ExecutionPolicy}'s field of the same name where that is absent. */
  maxReclaimCount: count.optional(),
  /** Whether a timed-out attempt may retry like one that failed with class `timeout`. */
  retryOnTimeout: z.boolean().default(false),
});
export type TimeoutPolicy = z.infer<typeof TimeoutPolicy>;

export const RoutingRequirements = z.strictObject({
  /** Tokens that one worker must all have. Stored sorted and without repeats. */
  requiredCapabilities: z.array(z.string()).default([]),
  /** Stored, not enforced. */
  preferredLocality: z.string().optional(),
  /** Stored, not enforced. */
  isolationLevel: z.string().optional(),
});
export type RoutingRequirements = z.infer<typeof RoutingRequirements>;

/** What becomes of a suspension whose time is up. Source: specification 05 §8. */
export const TIMEOUT_BEHAVIORS = [
  "fail",
  "cancel",
  "expire",
  "autoResume",
  "autoResumeWithTimeoutSignal",
  "escalate",
] as const;
export const TimeoutBehavior = z.enum(TIMEOUT_BEHAVIORS);
export type TimeoutBehavior = z.infer<typeof TimeoutBehavior>;

export const SuspensionPolicy = z.strictObject({
  /** Of suspensions that name no timeout of their own. */
  defaultTimeoutMs: durationMs.optional(),
  /** Of suspensions that name no behaviour of their own. */
  timeoutBehavior: TimeoutBehavior.default("fail"),
});
export type SuspensionPolicy = z.infer<typeof SuspensionPolicy>;

export const ExecutionPolicy = z.strictObject({
  priority: z.number().int().optional(),
  delayUntilMs: z.number().int().min(0).optional(),
  /** Absent: a failed attempt ends the execution. */
  retryPolicy: RetryPolicy.optional(),
  timeoutPolicy: TimeoutPolicy.optional(),
  /** How often a lost lease is taken over before the execution fails as poison; default 100. */
  maxReclaimCount: count.optional(),
  maxReplayCount: count.default(MAX_REPLAYS_DEFAULT),
  routingRequirements: RoutingRequirements.optional(),
  suspensionPolicy: SuspensionPolicy.optional(),
  /** Signals that one execution accepts over its whole life; 0: any number. */
  maxSignalsPerExecution: count.default(MAX_SIGNALS_PER_EXECUTION_DEFAULT),
  /** How long an idempotency key is remembered; 0 disables it. */
  dedupWindowMs: count.default(DEDUP_WINDOW_MS_DEFAULT),
  fallbackPolicy: z
    .strictObject({
      tiers: z.array(
        z.strictObject({
          provider: z.string(),
          model: z.string(),
          timeoutMs: durationMs.optional(),
        }),
      ),
    })
    .optional(),
  streamPolicy: z
    .strictObject({
      /** Stored, not enforced: every store keeps accepted frames as durably as anything else. */
      durabilityMode: z.enum(["buffered", "durable"]).optional(),
      /** Durable frames kept per attempt, the newest ones; default 10 000. */
      retentionMaxlen: z
        .number()
        .int()
        .min(1)
        .max(Number.MAX_SAFE_INTEGER)
        .optional(),
      /** How long this execution is kept after its end; overrides the store's retention. */
      retentionTtlMs: count.optional(),
    })
    .optional(),
});
/** Parsed, with defaults. */
export type ExecutionPolicy = z.infer<typeof ExecutionPolicy>;
/** As a submitter writes it. */
export type ExecutionPolicyInput = z.input<typeof ExecutionPolicy>;

/** The policy of an execution that names none. */
export const DEFAULT_POLICY: ExecutionPolicy = ExecutionPolicy.parse({});

/** Decides how a failure may be retried; free text maps to `transient`. */
export const FAILURE_CLASSES = [
  "transient",
  "permanent",
  "infra_crash",
  "timeout",
  "cancelled",
] as const;
export const FailureClass = z.enum(FAILURE_CLASSES);
export type FailureClass = z.infer<typeof FailureClass>;

export function failureClassOf(category: string): FailureClass {
  return (FAILURE_CLASSES as readonly string[]).includes(category)
    ? (category as FailureClass)
    : "transient";
}

/**
 * Reads a submitter's policy. The caller gets a value or the refusal, never a throw, because duplicate
 * detection comes first (04 T1): a repeat of an accepted request must succeed.
 */
export function parsePolicy(policy: unknown): ExecutionPolicy | EngineError {
  if (policy === undefined) return DEFAULT_POLICY;
  if (typeof policy !== "object" || policy === null || Array.isArray(policy)) {
    return engineError("invalid_policy_json", {
      reason: "malformed: a policy is an object",
    });
  }
  const routing = (policy as Record<string, unknown>)["routingRequirements"];
  if (routing !== undefined) {
    if (
      typeof routing !== "object" ||
      routing === null ||
      Array.isArray(routing)
    ) {
      return engineError("invalid_policy_json", {
        reason: "routing_requirements:not_object",
      });
    }
    const required = (routing as Record<string, unknown>)[
      "requiredCapabilities"
    ];
    if (required !== undefined) {
      const tokens = parseCapabilities(required, "required");
      if (!Array.isArray(tokens)) return tokens;
    }
  }
  const parsed = ExecutionPolicy.safeParse(policy);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const path = issue?.path.join(".");
    const field = path === undefined || path === "" ? "policy" : path;
    return engineError("invalid_policy_json", {
      reason: `${field}: ${issue?.message ?? "malformed"}`,
    });
  }
  return parsed.data;
}

/**
 * Checks a capability list and gives it sorted, without repeats.
 * Rules: specification 01 §8.3, limits inclusive and counted after removing repeats.
 */
export function parseCapabilities(
  list: unknown,
  side: "required" | "worker",
): string[] | EngineError<"invalid_capabilities"> {
  const refuse = (what: string) =>
    engineError("invalid_capabilities", { reason: `${side}:${what}` });
  if (!Array.isArray(list)) return refuse("not_array");
  for (const token of list as unknown[]) {
    if (typeof token !== "string") return refuse("non_string_token");
    if (token === "") return refuse("empty_token");
    if (token.includes(",")) return refuse("comma_in_token");
    // eslint-disable-next-line no-control-regex -- control characters are what is looked for
    if (/[\u0000-\u0020\u007f]/.test(token))
      return refuse("control_or_whitespace");
  }
  const tokens = sortTokens(list as string[]);
  if (tokens.length > CAPABILITY_TOKENS_MAX) return refuse("too_many_tokens");
  if (byteLength(tokens.join(",")) > CAPABILITY_CSV_MAX_BYTES)
    return refuse("too_many_bytes");
  return tokens;
}

function sortTokens(tokens: readonly string[]): string[] {
  return [...new Set(tokens)].sort((a, b) =>
    Buffer.compare(Buffer.from(a), Buffer.from(b)),
  );
}

/** Top-level cap, else the nested one, else nothing (the caller's or the default applies; 00 D7). */
export function policyReclaimCap(policy: ExecutionPolicy): number | undefined {
  return policy.maxReclaimCount ?? policy.timeoutPolicy?.maxReclaimCount;
}
