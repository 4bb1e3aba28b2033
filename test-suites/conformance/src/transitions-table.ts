/**
 * What each operation answers in each state. A cell reads
 *
 * - `!code`: refused, and no read tells a difference afterwards
 * - `!code > X`: refused, and what time had changed is written down now
 * - `answer`: answered so, and nothing changed
 * - `answer =`: answered so, in the same state
 * - `answer > X`: answered so, and in state X now; an attempt state is named where the operation sets it
 */
import type { StateName } from "./states.js";

type Cell = string;
type Row = Readonly<Record<StateName, Cell>>;

const READY = ["REp", "REp retry", "REp replay", "RD!"] as const;
const ELIGIBLE = [...READY, "REi"] as const;
const DELAYED = ["RD", "RD retry", "RD interrupted"] as const;
const BLOCKED = [
  "RA budget",
  "RA budget interrupted",
  "RA quota",
  "RA route",
] as const;
const HELD = ["RA operator", "RL"] as const;
const NOT_ELIGIBLE = [...DELAYED, ...BLOCKED, ...HELD] as const;
const RUNNABLE = [...ELIGIBLE, ...NOT_ELIGIBLE] as const;
const REVOKED = ["AV", "AV held"] as const;
const LOST = ["AL!", "AX", ...REVOKED] as const;
const ACTIVE = ["AL", ...LOST] as const;
const ENDED = ["T success", "T failed", "T cancelled", "T expired"] as const;

function all<S extends StateName>(
  states: readonly S[],
  cell: Cell,
): Record<S, Cell> {
  return Object.fromEntries(states.map((state) => [state, cell])) as Record<
    S,
    Cell
  >;
}

/** Neither to be claimed nor claimed, and not over. */
const NOT_RUNNABLE = [...ACTIVE, "SU"] as const;

/** A fenced call that is good only under a live lease, and there has this effect. */
function fenced(underLease: Cell): Row {
  return {
    ...all(RUNNABLE, "!execution_not_active"),
    AL: underLease,
    "AL!": "!lease_expired > AX",
    AX: "!lease_expired",
    ...all(REVOKED, "!lease_revoked"),
    SU: "!execution_not_active",
    ...all(ENDED, "!execution_not_active"),
  };
}

const unlessEligible = (eligible: Cell): Row => ({
  ...all(ELIGIBLE, eligible),
  ...all(NOT_ELIGIBLE, "!execution_not_eligible"),
  ...all(NOT_RUNNABLE, "!execution_not_eligible"),
  ...all(ENDED, "!execution_not_eligible"),
});

/** A block that is no hold: from eligible only, repeated only by itself. */
const transientBlock = (target: string, same: readonly StateName[]): Row => ({
  ...unlessEligible(`blocked > ${target}`),
  ...all(same, "alreadySatisfied"),
  ...all(ENDED, "!execution_not_active"),
});

/** The grants that claims use are issued first, wherever one can be had. */
export const TRANSITIONS = {
  claimExecution: {
    ...all(READY, "claimed > AL"),
    REi: "!use_claim_resumed_execution",
    ...all(NOT_ELIGIBLE, "!execution_not_leaseable"),
    ...all(NOT_RUNNABLE, "!execution_not_leaseable"),
    ...all(ENDED, "!execution_not_leaseable"),
  },
  claimResumedExecution: {
    ...all(RUNNABLE, "!not_a_resumed_execution"),
    REi: "claimed > AL",
    "RD interrupted": "!execution_not_leaseable",
    "RA budget interrupted": "!execution_not_leaseable",
    ...all(NOT_RUNNABLE, "!execution_not_leaseable"),
    ...all(ENDED, "!execution_not_leaseable"),
  },
  complete: {
    ...fenced("ok > T success"),
    // One's own success, recognised.
    "T success": "ok",
  },
  completeExecution: fenced("completed > T success"),
  fail: {
    ...fenced("terminalFailed > T failed"),
    "T failed": "terminalFailed",
    "REp retry": "retryScheduled",
    "RD retry": "retryScheduled",
  },
  failExecution: fenced("terminalFailed > T failed"),
  "failExecution with a retry left": fenced("retryScheduled > RD retry"),
  cancel: {
    ...fenced("ok > T cancelled"),
    "T cancelled": "ok",
  },
  delay: {
    ...fenced("ok > RD interrupted"),
    REi: "ok",
    "RD interrupted": "ok",
    "RA budget interrupted": "ok",
  },
  "delay to the past": {
    ...fenced("ok > RE interrupted"),
    REi: "ok",
    "RD interrupted": "ok",
    "RA budget interrupted": "ok",
  },
  renew: fenced("ok ="),
  renewLease: fenced("renewed ="),
  progress: { ...fenced("ok ="), "AL!": "!lease_expired" },
  appendFrame: {
    ...all(RUNNABLE, "!stream_closed"),
    AL: "ok",
    SU: "!stream_closed",
    ...all(LOST, "!stale_owner_cannot_append"),
    ...all(ENDED, "!stream_closed"),
  },

  "cancelExecution by an operator": {
    ...all(RUNNABLE, "cancelled > T cancelled"),
    ...all(NOT_RUNNABLE, "cancelled > T cancelled"),
    ...all(ENDED, "!execution_not_active"),
  },
  "cancelExecution by the holder": fenced("cancelled > T cancelled"),
  "expireExecution at the deadline": {
    ...all(RUNNABLE, "expired > T expired"),
    ...all(NOT_RUNNABLE, "expired > T expired"),
    ...all(ENDED, "alreadyTerminal"),
  },
  "expireExecution at the attempt's timeout": {
    ...all(RUNNABLE, "notApplicable"),
    ...all(ACTIVE, "expired > T expired"),
    SU: "notApplicable",
    ...all(ENDED, "alreadyTerminal"),
  },
  "expireExecution before anything is due": {
    ...all(RUNNABLE, "notYetDue"),
    ...all(NOT_RUNNABLE, "notYetDue"),
    ...all(ENDED, "alreadyTerminal"),
  },
  markLeaseExpiredIfDue: {
    ...all(RUNNABLE, "alreadySatisfied not_active"),
    AL: "alreadySatisfied not_yet_expired",
    "AL!": "markedExpired > AX",
    AX: "alreadySatisfied already_expired",
    ...all(REVOKED, "alreadySatisfied already_revoked"),
    SU: "alreadySatisfied not_active",
    ...all(ENDED, "alreadySatisfied not_active"),
  },
  revokeLease: {
    ...all(RUNNABLE, "!execution_not_active"),
    AL: "revoked > AV",
    "AL!": "revoked > AV",
    AX: "alreadySatisfied already_expired",
    ...all(REVOKED, "alreadySatisfied already_revoked"),
    SU: "!execution_not_active",
    ...all(ENDED, "!execution_not_active"),
  },
  issueReclaimGrant: {
    ...all(RUNNABLE, "notReclaimable execution_not_reclaimable"),
    AL: "notReclaimable execution_not_reclaimable",
    "AL!": "granted > AX",
    AX: "granted =",
    AV: "granted =",
    "AV held": "notReclaimable held",
    SU: "notReclaimable execution_not_reclaimable",
    ...all(ENDED, "notReclaimable execution_not_reclaimable"),
  },
  reclaimExecution: {
    ...all(RUNNABLE, "notReclaimable execution_not_reclaimable"),
    ...all(["AL", "AL!"], "notReclaimable execution_not_reclaimable"),
    AX: "claimed > AL",
    AV: "claimed > AL",
    "AV held": "grantNotFound",
    SU: "notReclaimable execution_not_reclaimable",
    ...all(ENDED, "notReclaimable execution_not_reclaimable"),
  },
  replayExecution: {
    ...all(RUNNABLE, "!execution_not_terminal"),
    ...all(NOT_RUNNABLE, "!execution_not_terminal"),
    ...all(ENDED, "replayed > RE replay"),
  },

  issueClaimGrant: {
    ...unlessEligible("granted ="),
  },
  issueGrantAndClaim: {
    ...all(ELIGIBLE, "ok > AL"),
    ...all(NOT_ELIGIBLE, "!execution_not_in_eligible_set"),
    ...all(NOT_RUNNABLE, "!execution_not_eligible"),
    ...all(ENDED, "!execution_not_eligible"),
  },
  claim: {
    ...all(READY, "fresh > AL"),
    REi: "resumed > AL",
    ...all(NOT_ELIGIBLE, "nothing"),
    AL: "nothing",
    ...all(LOST, "reclaimed > AL"),
    "AV held": "nothing",
    SU: "nothing",
    ...all(ENDED, "nothing"),
  },
  claimForWorker: {
    ...all(ELIGIBLE, "granted ="),
    ...all(NOT_ELIGIBLE, "noWork blocked"),
    AL: "noWork empty",
    "AL!": "granted > AX",
    AX: "granted =",
    AV: "granted =",
    "AV held": "noWork empty",
    SU: "noWork empty",
    ...all(ENDED, "noWork empty"),
  },

  "block for a budget": transientBlock("RA budget", [
    "RA budget",
    "RA budget interrupted",
  ]),
  "block for a quota": transientBlock("RA quota", ["RA quota"]),
  "block for a route": transientBlock("RA route", ["RA route"]),
  "block by an operator": {
    ...all(RUNNABLE, "blocked > RA operator"),
    "RA operator": "alreadySatisfied",
    ...all(NOT_RUNNABLE, "!execution_not_eligible"),
    ...all(ENDED, "!execution_not_active"),
  },
  "block by the lane": {
    ...all(RUNNABLE, "blocked > RL"),
    "RA operator": "blocked =",
    RL: "alreadySatisfied",
    ...all(NOT_RUNNABLE, "!execution_not_eligible"),
    ...all(ENDED, "!execution_not_active"),
  },
  unblockExecution: {
    ...unlessEligible("!execution_not_eligible"),
    ...all(BLOCKED, "unblocked > RE"),
    RL: "unblocked > RE",
  },
  "unblockExecution of an operator's hold": {
    ...unlessEligible("!execution_not_eligible"),
    "RA operator": "unblocked > RE",
  },
  holdExecution: {
    ...all(RUNNABLE, "held > RA operator"),
    "RA operator": "alreadySatisfied",
    ...all(NOT_RUNNABLE, "!execution_not_eligible"),
    "AV held": "alreadySatisfied",
    ...all(ENDED, "!execution_not_active"),
  },
  unholdExecution: {
    ...all(RUNNABLE, "alreadySatisfied"),
    "RA operator": "released > RE",
    ...all(NOT_RUNNABLE, "!execution_not_eligible"),
    "AV held": "released > AV",
    ...all(ENDED, "!execution_not_active"),
  },
  changePriority: unlessEligible("changed ="),
  promoteDelayed: {
    ...all(RUNNABLE, "notDelayedCleaned"),
    ...all(DELAYED, "notYetDue"),
    "RD!": "promoted > RE",
    ...all(NOT_RUNNABLE, "notRunnableCleaned"),
    ...all(ENDED, "notRunnableCleaned"),
  },

  suspend: fenced("suspended > SU"),
  createWaitpoint: { ...fenced("ok ="), "AL!": "!lease_expired" },
  resumeExecution: {
    ...all(RUNNABLE, "!execution_not_suspended"),
    ...all(ACTIVE, "!execution_not_suspended"),
    SU: "resumed > RE interrupted",
    ...all(ENDED, "!execution_not_suspended"),
  },
  "a satisfying signal": {
    ...all(RUNNABLE, "!waitpoint_not_found"),
    ...all(ACTIVE, "!waitpoint_not_found"),
    SU: "accepted > RE interrupted",
    ...all(ENDED, "!waitpoint_not_found"),
  },
  "expireSuspension at its timeout": {
    ...all(RUNNABLE, "notSuspendedCleaned"),
    ...all(ACTIVE, "notSuspendedCleaned"),
    SU: "applied > RE interrupted",
    ...all(ENDED, "notSuspendedCleaned"),
  },
  "expireSuspension before it is due": {
    ...all(RUNNABLE, "notSuspendedCleaned"),
    ...all(ACTIVE, "notSuspendedCleaned"),
    SU: "notYetDue",
    ...all(ENDED, "notSuspendedCleaned"),
  },
  setExecutionTag: {
    ...all(RUNNABLE, "ok ="),
    ...all(NOT_RUNNABLE, "ok ="),
    ...all(ENDED, "ok ="),
  },
} as const satisfies Record<string, Row>;

export type TransitionName = keyof typeof TRANSITIONS;
