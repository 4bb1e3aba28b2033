/**
 * A builder for every state an execution can be in, and the way back: from what reads tell to the state's name. The names
 * are those of the transition table: R runnable (E eligible, D delayed, A blocked, L held by its lane), A active
 * (L leased, X lapsed, V revoked), SU suspended, T terminal; `!` is what time alone has changed and nobody has written down.
 */
import {
  encodeHandle,
  newAttemptId,
  newLeaseId,
  type AdmissionReason,
  type AttemptState,
  type CreateExecutionInput,
  type EngineBackend,
  type ExecutionId,
  type ExecutionPolicyInput,
  type Handle,
  type LaneId,
  type LeaseFence,
  type StateVector,
} from "@flowfabric/core";

import { HOUR_MS, LEASE_TTL_MS, submitted, taken, WORKER } from "./builders.js";
import type { Bench } from "./harness.js";
import { keyed, suspendArgs } from "./suspension-builders.js";

/** Far enough apart that each can be let pass without the ones behind it. */
export const ATTEMPT_TIMEOUT_MS = 2 * HOUR_MS;
const RETRY_DELAY_MS = 10 * HOUR_MS;
export const SUSPENSION_TIMEOUT_MS = 5 * HOUR_MS;
export const DEADLINE_MS = 20 * HOUR_MS;
const DELAY_MS = 30 * HOUR_MS;
const LONG_LEASE_MS = 24 * HOUR_MS;

export interface Subject {
  readonly executionId: ExecutionId;
  readonly laneId: string;
  /** The last holder's; where there never was one, a stranger's. */
  readonly fence: Required<LeaseFence>;
  readonly handle: Handle;
  /** Where it waits for a signal. */
  readonly waitpointId?: string;
}

type Build = (bench: Bench, policy: ExecutionPolicyInput) => Promise<Subject>;

/** Waits for its first claim, with everything due that far away that no other builder gets there by accident. */
async function fresh(
  { backend }: Bench,
  policy: ExecutionPolicyInput,
  input: Partial<CreateExecutionInput> = {},
): Promise<Subject> {
  const { executionId, laneId } = await submitted(backend, {
    ...input,
    policy: {
      timeoutPolicy: {
        attemptTimeoutMs: ATTEMPT_TIMEOUT_MS,
        executionDeadlineMs: DEADLINE_MS,
      },
      ...policy,
    },
  });
  const fence = {
    leaseId: newLeaseId(),
    leaseEpoch: 1,
    attemptId: newAttemptId(),
  };
  const handle = encodeHandle(backend.backendLabel(), "fresh", {
    executionId,
    ...fence,
    attemptIndex: 0,
    leaseTtlMs: LEASE_TTL_MS,
    laneId: laneId as LaneId,
    workerInstanceId: WORKER.workerInstanceId as never,
  });
  return { executionId, laneId, fence, handle };
}

async function leased(
  bench: Bench,
  policy: ExecutionPolicyInput,
  leaseTtlMs = LONG_LEASE_MS,
): Promise<Subject> {
  const { laneId } = await fresh(bench, policy);
  return taken(bench.backend, laneId, { leaseTtlMs });
}

async function overdue(
  bench: Bench,
  policy: ExecutionPolicyInput,
): Promise<Subject> {
  const subject = await leased(bench, policy, LEASE_TTL_MS);
  await bench.passTime(LEASE_TTL_MS);
  return subject;
}

async function handedBack(
  bench: Bench,
  policy: ExecutionPolicyInput,
  delayMs: number,
): Promise<Subject> {
  const subject = await leased(bench, policy);
  const now = await bench.backend.serverTimeMs();
  await bench.backend.delay({
    handle: subject.handle,
    delayUntilMs: delayMs === 0 ? 1 : now + delayMs,
  });
  return subject;
}

async function retrying(
  bench: Bench,
  policy: ExecutionPolicyInput,
): Promise<Subject> {
  const subject = await leased(bench, {
    retryPolicy: { backoff: { type: "fixed", delayMs: RETRY_DELAY_MS } },
    ...policy,
  });
  await bench.backend.fail({
    handle: subject.handle,
    reason: { message: "once" },
    classification: "transient",
  });
  return subject;
}

async function ended(
  bench: Bench,
  policy: ExecutionPolicyInput,
  end: (backend: EngineBackend, subject: Subject) => Promise<unknown>,
): Promise<Subject> {
  const subject = await leased(bench, policy);
  await end(bench.backend, subject);
  return subject;
}

const complete = (backend: EngineBackend, { handle }: Subject) =>
  backend.complete({ handle });

function blocked(reason: AdmissionReason, from: Build = fresh): Build {
  return async (bench, policy) => {
    const subject = await from(bench, policy);
    const { executionId } = subject;
    await bench.backend.blockExecutionForAdmission({ executionId, reason });
    return subject;
  };
}

function revoked(hold: boolean): Build {
  return async (bench, policy) => {
    const subject = await leased(bench, policy);
    const { executionId } = subject;
    await bench.backend.revokeLease({ executionId, hold });
    return subject;
  };
}

/** Waits for one signal, and goes on by itself after a time. */
async function waiting(
  bench: Bench,
  policy: ExecutionPolicyInput,
): Promise<Subject> {
  const { backend } = bench;
  const subject = await leased(bench, policy);
  await keyed(backend);
  const { details } = await backend.suspend({
    handle: subject.handle,
    ...suspendArgs({
      timeoutAtMs: (await backend.serverTimeMs()) + SUSPENSION_TIMEOUT_MS,
      timeoutBehavior: "autoResume",
    }),
  });
  return { ...subject, waitpointId: details.waitpointId };
}

export const STATES = {
  REp: fresh,
  "REp retry": async (bench, policy) => {
    const subject = await retrying(bench, policy);
    await bench.passTime(RETRY_DELAY_MS);
    await bench.backend.promoteDelayed(subject);
    return subject;
  },
  "REp replay": async (bench, policy) => {
    const subject = await ended(bench, policy, complete);
    await bench.backend.replayExecution(subject);
    return subject;
  },
  /** Delayed and due, not promoted: as good as eligible. */
  "RD!": async (bench, policy) => {
    const now = await bench.backend.serverTimeMs();
    const delayUntilMs = now + HOUR_MS;
    const subject = await fresh(bench, policy, { delayUntilMs });
    await bench.passTime(HOUR_MS);
    return subject;
  },
  REi: (bench, policy) => handedBack(bench, policy, 0),
  RD: async (bench, policy) => {
    const now = await bench.backend.serverTimeMs();
    return fresh(bench, policy, { delayUntilMs: now + DELAY_MS });
  },
  "RD retry": retrying,
  "RD interrupted": (bench, policy) => handedBack(bench, policy, DELAY_MS),
  "RA budget": blocked("waiting_for_budget"),
  "RA budget interrupted": blocked("waiting_for_budget", (bench, policy) =>
    handedBack(bench, policy, 0),
  ),
  "RA quota": blocked("waiting_for_quota"),
  // Without a token that nobody has, the engine would open the route again.
  "RA route": blocked("waiting_for_capable_worker", (bench, policy) =>
    fresh(bench, {
      routingRequirements: { requiredCapabilities: ["nobody-has-it"] },
      ...policy,
    }),
  ),
  "RA operator": blocked("paused_by_operator"),
  RL: blocked("paused_by_policy"),
  AL: leased,
  "AL!": overdue,
  AX: async (bench, policy) => {
    const subject = await overdue(bench, policy);
    await bench.backend.markLeaseExpiredIfDue(subject);
    return subject;
  },
  AV: revoked(false),
  "AV held": revoked(true),
  "T success": (bench, policy) => ended(bench, policy, complete),
  "T failed": (bench, policy) =>
    ended(bench, policy, (backend, { handle }) =>
      backend.fail({
        handle,
        reason: { message: "broken" },
        classification: "permanent",
      }),
    ),
  "T cancelled": (bench, policy) =>
    ended(bench, policy, (backend, { executionId }) =>
      backend.cancelExecution({ executionId, reason: "not needed" }),
    ),
  "T expired": async (bench, policy) => {
    const subject = await leased(bench, policy);
    await bench.passTime(ATTEMPT_TIMEOUT_MS);
    await bench.backend.expireExecution(subject);
    return subject;
  },
  // Last: on a store without keys there is nothing to suspend on, and a case ends here.
  SU: waiting,
} as const satisfies Record<string, Build>;

export type StateName = keyof typeof STATES;

/** Where a vector is at home, without its attempt state. */
export function homeOf(vector: StateVector): string {
  switch (vector.lifecyclePhase) {
    case "terminal":
      return `T ${vector.terminalOutcome}`;
    case "suspended":
      return "SU";
    case "active":
      return {
        leased: "AL",
        lease_expired_reclaimable: "AX",
        lease_revoked: "AV",
        unowned: "active without owner",
      }[vector.ownershipState];
    case "runnable":
      return {
        eligible_now: "RE",
        not_eligible_until_time: "RD",
        blocked_by_dependencies: "RC",
        blocked_by_budget: "RA budget",
        blocked_by_quota: "RA quota",
        blocked_by_route: "RA route",
        blocked_by_operator: "RA operator",
        blocked_by_lane_state: "RL",
        not_applicable: "runnable nowhere",
      }[vector.eligibilityState];
  }
}

/** Which attempt state goes with a home, `before` where the home leaves it alone. */
export function attemptStateAt(
  home: string,
  before: AttemptState,
  attempts: number,
): AttemptState {
  if (home === "AL") return "running_attempt";
  if (["AX", "AV", "SU"].includes(home)) return "attempt_interrupted";
  if (home.startsWith("T ")) return attempts > 0 ? "attempt_terminal" : "none";
  return before;
}
