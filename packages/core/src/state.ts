/**
 * The state of an execution: six dimensions that only occur in the combinations of ARCHITECTURE.md, so
 * that one short code names each. Backends store the code; the vector is derived when read.
 * Source: specification 01 §5, 04 §1.
 */

export const LIFECYCLE_PHASES = [
  "runnable",
  "active",
  "suspended",
  "terminal",
] as const;
export type LifecyclePhase = (typeof LIFECYCLE_PHASES)[number];

export type OwnershipState =
  "unowned" | "leased" | "lease_expired_reclaimable" | "lease_revoked";

export type EligibilityState =
  | "eligible_now"
  | "not_eligible_until_time"
  | "blocked_by_dependencies"
  | "blocked_by_budget"
  | "blocked_by_quota"
  | "blocked_by_route"
  | "blocked_by_lane_state"
  | "blocked_by_operator"
  | "not_applicable";

export const BLOCKING_REASONS = [
  "none",
  "waiting_for_worker",
  "waiting_for_retry_backoff",
  "waiting_for_resume_delay",
  "waiting_for_delay",
  "waiting_for_signal",
  "waiting_for_approval",
  "waiting_for_callback",
  "waiting_for_tool_result",
  "waiting_for_children",
  "waiting_for_budget",
  "waiting_for_quota",
  "waiting_for_capable_worker",
  "paused_by_operator",
  "paused_by_policy",
] as const;
export type BlockingReason = (typeof BLOCKING_REASONS)[number];

export const TERMINAL_OUTCOMES = [
  "none",
  "success",
  "failed",
  "cancelled",
  "expired",
  "skipped",
] as const;
export type TerminalOutcome = (typeof TERMINAL_OUTCOMES)[number];

export const ATTEMPT_STATES = [
  "none",
  "pending_first_attempt",
  "running_attempt",
  "attempt_interrupted",
  "pending_retry_attempt",
  "pending_replay_attempt",
  "attempt_terminal",
] as const;
export type AttemptState = (typeof ATTEMPT_STATES)[number];

export const PUBLIC_STATES = [
  "waiting",
  "delayed",
  "rate_limited",
  "waiting_children",
  "active",
  "suspended",
  "completed",
  "failed",
  "cancelled",
  "expired",
  "skipped",
] as const;
/** What users see; always derived, see {@link derivePublicState}. */
export type PublicState = (typeof PUBLIC_STATES)[number];

export interface StateVector {
  readonly lifecyclePhase: LifecyclePhase;
  readonly ownershipState: OwnershipState;
  readonly eligibilityState: EligibilityState;
  readonly blockingReason: BlockingReason;
  readonly terminalOutcome: TerminalOutcome;
  readonly attemptState: AttemptState;
}

/**
 * Where an execution lives: exactly one place at any time, with one sort score there. The numbers are
 * stored, so they never change meaning. From {@link HOME.succeeded} on an execution is terminal.
 */
export const HOME = {
  /** Ready for a claim; score: {@link sortKey}. */
  eligible: 1,
  /** Waits for a time; score: that time. From then on it counts as eligible, promoted or not. */
  delayed: 2,
  blockedDependencies: 3,
  blockedBudget: 4,
  blockedQuota: 5,
  /** No live worker has the capabilities; score of all blocked homes: when it was blocked. */
  blockedRoute: 6,
  blockedOperator: 7,
  blockedLane: 8,
  /** Leased; score: lease expiry. From then on it counts as lapsed, marked or not. */
  active: 10,
  /** Lease lapsed and marked; score: when it may be offered again. */
  lapsed: 11,
  /** Lease revoked; score as {@link HOME.lapsed}. */
  revoked: 12,
  suspended: 15,
  succeeded: 20,
  failed: 21,
  cancelled: 22,
  expired: 23,
  skipped: 24,
} as const;
export type Home = (typeof HOME)[keyof typeof HOME];

interface HomeRow {
  readonly phase: LifecyclePhase;
  readonly ownership: OwnershipState;
  readonly eligibility: EligibilityState;
  readonly outcome: TerminalOutcome;
  readonly publicState: PublicState;
  /** The reason where the home allows only one. */
  readonly reason?: BlockingReason;
}

const runnable = (
  eligibility: EligibilityState,
  publicState: PublicState,
  reason?: BlockingReason,
): HomeRow => ({
  phase: "runnable",
  ownership: "unowned",
  eligibility,
  outcome: "none",
  publicState,
  ...(reason === undefined ? {} : { reason }),
});
const active = (
  ownership: OwnershipState,
  reason: BlockingReason,
): HomeRow => ({
  phase: "active",
  ownership,
  eligibility: "not_applicable",
  outcome: "none",
  publicState: "active",
  reason,
});
const terminal = (
  outcome: TerminalOutcome,
  publicState: PublicState,
): HomeRow => ({
  phase: "terminal",
  ownership: "unowned",
  eligibility: "not_applicable",
  outcome,
  publicState,
  reason: "none",
});

export const HOMES: { readonly [H in Home]: HomeRow } = {
  [HOME.eligible]: runnable("eligible_now", "waiting", "waiting_for_worker"),
  [HOME.delayed]: runnable("not_eligible_until_time", "delayed"),
  [HOME.blockedDependencies]: runnable(
    "blocked_by_dependencies",
    "waiting_children",
    "waiting_for_children",
  ),
  [HOME.blockedBudget]: runnable(
    "blocked_by_budget",
    "rate_limited",
    "waiting_for_budget",
  ),
  [HOME.blockedQuota]: runnable(
    "blocked_by_quota",
    "rate_limited",
    "waiting_for_quota",
  ),
  [HOME.blockedRoute]: runnable(
    "blocked_by_route",
    "waiting",
    "waiting_for_capable_worker",
  ),
  [HOME.blockedOperator]: runnable(
    "blocked_by_operator",
    "waiting",
    "paused_by_operator",
  ),
  [HOME.blockedLane]: runnable(
    "blocked_by_lane_state",
    "waiting",
    "paused_by_policy",
  ),
  [HOME.active]: active("leased", "none"),
  [HOME.lapsed]: active("lease_expired_reclaimable", "waiting_for_worker"),
  [HOME.revoked]: active("lease_revoked", "waiting_for_worker"),
  [HOME.suspended]: {
    phase: "suspended",
    ownership: "unowned",
    eligibility: "not_applicable",
    outcome: "none",
    publicState: "suspended",
  },
  [HOME.succeeded]: terminal("success", "completed"),
  [HOME.failed]: terminal("failed", "failed"),
  [HOME.cancelled]: terminal("cancelled", "cancelled"),
  [HOME.expired]: terminal("expired", "expired"),
  [HOME.skipped]: terminal("skipped", "skipped"),
};

export function isTerminalHome(home: Home): boolean {
  return home >= HOME.succeeded;
}
export function isRunnableHome(home: Home): boolean {
  return home < HOME.active;
}

export const TERMINAL_HOME: {
  readonly [O in Exclude<TerminalOutcome, "none">]: Home;
} = {
  success: HOME.succeeded,
  failed: HOME.failed,
  cancelled: HOME.cancelled,
  expired: HOME.expired,
  skipped: HOME.skipped,
};

/** The vector of a home; delayed and suspended homes need their reason, all need the attempt state. */
export function vectorOf(
  home: Home,
  reason: BlockingReason,
  attemptState: AttemptState,
): StateVector {
  const row = HOMES[home];
  return {
    lifecyclePhase: row.phase,
    ownershipState: row.ownership,
    eligibilityState: row.eligibility,
    blockingReason: row.reason ?? reason,
    terminalOutcome: row.outcome,
    attemptState,
  };
}

/** The state as one integer, for event logs: home, reason and attempt state. */
export function packState(
  home: Home,
  reason: BlockingReason,
  attemptState: AttemptState,
): number {
  return (
    (home << 8) |
    (BLOCKING_REASONS.indexOf(reason) << 4) |
    ATTEMPT_STATES.indexOf(attemptState)
  );
}

/** @returns nothing when the integer is no packed state. */
export function unpackState(packed: number): StateVector | undefined {
  const home = (packed >> 8) as Home;
  const reason = BLOCKING_REASONS[(packed >> 4) & 0xf];
  const attemptState = ATTEMPT_STATES[packed & 0xf];
  if (!(home in HOMES) || reason === undefined || attemptState === undefined)
    return undefined;
  return vectorOf(home, reason, attemptState);
}

/** Total: every vector has a public state, a corrupt terminal one reads as failed. */
export function derivePublicState(
  vector: Omit<
    StateVector,
    "attemptState" | "blockingReason" | "ownershipState"
  >,
): PublicState {
  switch (vector.lifecyclePhase) {
    case "terminal":
      if (vector.terminalOutcome === "success") return "completed";
      return vector.terminalOutcome === "none"
        ? "failed"
        : vector.terminalOutcome;
    case "suspended":
      return "suspended";
    case "active":
      return "active";
    case "runnable":
      switch (vector.eligibilityState) {
        case "not_eligible_until_time":
          return "delayed";
        case "blocked_by_dependencies":
          return "waiting_children";
        case "blocked_by_budget":
        case "blocked_by_quota":
          return "rate_limited";
        default:
          return "waiting";
      }
  }
}
