/**
 * The invariants of the specification (04 §6) as far as reads can see them, checked on every execution of a store at rest.
 * The numbers are those of the specification.
 */
import {
  derivePublicState,
  type AttemptRecord,
  type EngineBackend,
  type EventType,
  type ExecutionEvent,
  type ExecutionSnapshot,
} from "@flowfabric/core";
import { expect } from "vitest";

import { textOf } from "./builders.js";
import { expectedPayload, OVERRIDE_RESULT } from "./model.js";
import { attemptStateAt, homeOf } from "./states.js";

export interface Looked {
  readonly snapshot: ExecutionSnapshot;
  readonly attempts: readonly AttemptRecord[];
  readonly events: readonly ExecutionEvent[];
}

export async function lookAt(
  backend: EngineBackend,
  executionId: string,
): Promise<Looked> {
  const ref = { executionId };
  const snapshot = await backend.describeExecution(ref);
  if (snapshot === undefined) throw new Error(`${executionId} is gone`);
  const attempts = await backend.listAttempts(ref);
  const { events } = await backend.readEvents(ref);
  return { snapshot, attempts, events };
}

const LEGAL_REASONS: Readonly<Record<string, readonly string[]>> = {
  RE: ["waiting_for_worker"],
  RD: [
    "waiting_for_delay",
    "waiting_for_retry_backoff",
    "waiting_for_resume_delay",
  ],
  "RA budget": ["waiting_for_budget"],
  "RA quota": ["waiting_for_quota"],
  "RA route": ["waiting_for_capable_worker"],
  "RA operator": ["paused_by_operator"],
  RL: ["paused_by_policy"],
  AL: ["none"],
  AX: ["waiting_for_worker"],
  AV: ["waiting_for_worker"],
  SU: ["waiting_for_signal", "paused_by_operator"],
  "T success": ["none"],
  "T failed": ["none"],
  "T cancelled": ["none"],
  "T expired": ["none"],
};

/** I1–I11, I29–I31, I46–I49, I51: what one snapshot says about itself. */
export function checkSnapshot({ snapshot, attempts }: Looked): void {
  const vector = snapshot.stateVector;
  const home = homeOf(vector);
  expect(LEGAL_REASONS[home], `I1 ${home} is a state`).toBeDefined();
  expect(LEGAL_REASONS[home], "I8 the reason fits").toContain(
    vector.blockingReason,
  );
  expect(snapshot.publicState, "I2").toBe(derivePublicState(vector));
  const terminal = vector.lifecyclePhase === "terminal";
  const active = vector.lifecyclePhase === "active";
  const runnable = vector.lifecyclePhase === "runnable";
  expect(vector.terminalOutcome !== "none", "I3").toBe(terminal);
  expect(snapshot.completedAtMs !== undefined, "I3 completion time").toBe(
    terminal,
  );
  expect(vector.eligibilityState === "not_applicable", "I4").toBe(!runnable);
  expect(vector.ownershipState !== "unowned", "I5").toBe(active);
  expect(
    attemptStateAt(home, vector.attemptState, snapshot.totalAttemptCount),
    "I6, I7, I9 attempt state",
  ).toBe(vector.attemptState);
  if (runnable)
    expect(
      [
        "pending_first_attempt",
        "pending_retry_attempt",
        "pending_replay_attempt",
        "attempt_interrupted",
      ],
      "attempt state of a runnable execution",
    ).toContain(vector.attemptState);

  if (vector.attemptState === "pending_first_attempt")
    expect(
      [snapshot.totalAttemptCount, snapshot.replayCount],
      "I10 first",
    ).toEqual([0, 0]);
  if (vector.attemptState === "pending_retry_attempt") {
    expect(attempts.at(-1)?.attemptState, "I10 retry").toBe("ended_failure");
    expect(snapshot.retryCount, "I10 retry").toBeGreaterThanOrEqual(1);
  }
  if (vector.attemptState === "pending_replay_attempt")
    expect(snapshot.replayCount, "I10 replay").toBeGreaterThanOrEqual(1);
  if (runnable && vector.attemptState === "attempt_interrupted") {
    expect(attempts.at(-1)?.attemptState, "I11").toBe("suspended");
    expect(snapshot.currentAttempt?.attemptId, "I11").toBe(
      attempts.at(-1)?.attemptId,
    );
  }

  if (!active) expect(snapshot.currentLease, "I29").toBeUndefined();
  if (home === "AL") {
    const lease = snapshot.currentLease!;
    expect(lease.leaseEpoch, "I24").toBe(snapshot.leaseEpoch);
    const times = [
      lease.acquiredAtMs,
      lease.lastRenewedAtMs,
      lease.renewalDeadlineMs,
      lease.expiresAtMs,
    ];
    expect(times, "I31").toEqual([...times].sort((a, b) => a - b));
  }
  expect(snapshot.priority, "I46").toBeGreaterThanOrEqual(0);
  expect(snapshot.priority, "I46").toBeLessThanOrEqual(9_000);
  expect(snapshot.replayCount, "I46").toBeLessThanOrEqual(10);
  if (snapshot.startedAtMs !== undefined)
    expect(snapshot.startedAtMs, "I47").toBeGreaterThanOrEqual(
      snapshot.createdAtMs,
    );
  expect(snapshot.lastTransitionAtMs, "I48").toBeLessThanOrEqual(
    snapshot.lastMutationAtMs,
  );
  if (home === "RD") expect(snapshot.delayUntilMs, "I49").toBeGreaterThan(0);
  if (snapshot.operatorHold)
    expect(["RA operator", "AX", "AV"], "I51").toContain(home);
}

/** I34–I38, I40–I41: attempts, among themselves and against the snapshot. */
export function checkAttempts({ snapshot, attempts, events }: Looked): void {
  expect(
    attempts.map((attempt) => attempt.attemptIndex),
    "I34",
  ).toEqual(attempts.map((_attempt, index) => index));
  expect(snapshot.totalAttemptCount, "I34").toBe(attempts.length);
  const count = (...types: EventType[]) =>
    events.filter((event) => types.includes(event.type)).length;
  expect(attempts.length, "I40").toBe(count("claimed", "reclaimed"));

  const open = attempts.filter((attempt) => attempt.endedAtMs === undefined);
  const last = attempts.at(-1);
  const home = homeOf(snapshot.stateVector);
  expect(open.length, "I35").toBeLessThanOrEqual(1);
  if (open.length === 1) {
    expect(open[0], "I35 the last one").toBe(last);
    expect(home.startsWith("T "), "I35").toBe(false);
    expect(snapshot.currentAttempt, "I35").toEqual({
      attemptId: last!.attemptId,
      attemptIndex: last!.attemptIndex,
    });
  }
  for (const attempt of attempts) {
    const isOpen = ["started", "suspended"].includes(attempt.attemptState);
    expect(attempt.endedAtMs === undefined, "I38 open").toBe(isOpen);
    if (attempt.endedAtMs !== undefined)
      expect(attempt.endedAtMs, "I38").toBeGreaterThanOrEqual(
        attempt.startedAtMs,
      );
  }
  if (last?.attemptState === "started")
    expect(["AL", "AX", "AV"], "I37").toContain(home);
  if (last?.attemptState === "suspended")
    expect(snapshot.stateVector.attemptState, "I37").toBe(
      "attempt_interrupted",
    );
  if (home === "AL") {
    expect(last, "I36").toMatchObject({
      attemptState: "started",
      leaseId: snapshot.currentLease!.leaseId,
      leaseEpoch: snapshot.leaseEpoch,
      workerId: snapshot.currentLease!.workerId,
    });
  }

  const ofType = (type: string) =>
    attempts.filter((attempt) => attempt.attemptType === type).length;
  expect(ofType("reclaim"), "I41").toBe(snapshot.leaseReclaimTotal);
  expect(ofType("retry"), "I41").toBeLessThanOrEqual(count("retry_scheduled"));
  expect(ofType("replay"), "I41").toBeLessThanOrEqual(snapshot.replayCount);
  expect(
    attempts.slice(1).every((attempt) => attempt.attemptType !== "initial"),
    "I41",
  ).toBe(true);
  const sinceReplay = events.slice(
    events.findLastIndex((event) => event.type === "replayed") + 1,
  );
  expect(snapshot.leaseReclaimCount, "reclaims since the last replay").toBe(
    sinceReplay.filter((event) => event.type === "reclaimed").length,
  );
}

const RUNNABLE = [
  "RE",
  "RD",
  "RA budget",
  "RA quota",
  "RA route",
  "RA operator",
  "RL",
];
const LOST = ["AX", "AV"];
const OPEN = [...RUNNABLE, "AL", ...LOST, "SU"];
/** Where a suspension leads that is over, unless that is the end. */
const RESUMED = ["RE", "RD"];
const ENDS = ["T success", "T failed", "T cancelled", "T expired"];

/** Which event leads from where to where; the same state where no target is named. */
const STEPS: {
  readonly [T in EventType]?: {
    readonly from: readonly string[];
    readonly to?: readonly string[] | ((from: string) => readonly string[]);
  };
} = {
  granted: { from: ["RE", ...LOST] },
  claimed: { from: ["RE"], to: ["AL"] },
  resumed: { from: ["RE"], to: ["AL"] },
  reclaimed: { from: LOST, to: ["AL"] },
  lease_expired: { from: ["AL"], to: ["AX"] },
  lease_revoked: { from: ["AL"], to: ["AV"] },
  suspended: { from: ["AL"], to: ["SU"] },
  signal: {
    from: OPEN,
    to: (from) => (from === "SU" ? ["SU", ...RESUMED] : [from]),
  },
  delayed: { from: ["AL"], to: ["RE", "RD"] },
  promoted: { from: ["RD"], to: ["RE"] },
  // A suspension whose timeout escalates stays where it is.
  blocked: {
    from: [...RUNNABLE, "SU"],
    to: (from) =>
      from === "SU"
        ? ["SU"]
        : ["RA budget", "RA quota", "RA route", "RA operator", "RL"],
  },
  unblocked: {
    from: [...RUNNABLE, "SU"],
    to: (from) => (from === "SU" ? RESUMED : ["RE", "RD", "RL", "RA operator"]),
  },
  held: { from: RUNNABLE, to: ["RA operator"] },
  released_hold: {
    from: ["RA operator", ...LOST],
    to: ["RE", "RD", "RL", ...LOST],
  },
  priority_changed: { from: ["RE"] },
  progress: { from: ["AL"] },
  // A revoked lease may be under an operator's hold, which outlives the attempt that ran out of time.
  retry_scheduled: { from: ["AL", ...LOST], to: ["RE", "RD", "RA operator"] },
  completed: { from: ["AL"], to: ["T success"] },
  failed: { from: ["AL", ...LOST, "SU"], to: ["T failed"] },
  cancelled: { from: OPEN, to: ["T cancelled"] },
  expired: { from: OPEN, to: ["T expired"] },
  replayed: { from: ENDS, to: ["RE", "RD"] },
};

/** I13, I25–I27, I32, I45, I51, D34–D35: the log, step by step, up to the present state. */
export function checkEvents({ snapshot, events }: Looked): void {
  const told = events.map((event) => event.type).join(", ");
  expect(
    events.map((event) => event.seq),
    "seq from 1 without gaps",
  ).toEqual(events.map((_event, index) => index + 1));
  const times = events.map((event) => event.atMs);
  expect(times, "I61 times never decrease").toEqual(
    [...times].sort((a, b) => a - b),
  );
  expect(events[0]?.type).toBe("created");
  let state = events[0]!.toState!;
  let epoch = 0;
  for (const event of events.slice(1)) {
    const step = STEPS[event.type];
    const from = homeOf(state);
    expect(step?.from, `${event.type} from ${from} in ${told}`).toContain(from);
    if (event.fromState !== undefined)
      expect(event.fromState, `the state before ${event.type}`).toEqual(state);
    state = event.toState ?? state;
    const to = typeof step?.to === "function" ? step.to(from) : step?.to;
    expect(
      to ?? [from],
      `${event.type} from ${from} leads to ${homeOf(state)} in ${told}`,
    ).toContain(homeOf(state));
    if (["claimed", "resumed", "reclaimed"].includes(event.type)) {
      epoch += 1;
      expect(event.leaseEpoch, "I26").toBe(epoch);
    } else if (
      ["completed", "delayed", "lease_expired", "lease_revoked"].includes(
        event.type,
      )
    )
      expect(event.leaseEpoch, "the epoch of its lease").toBe(epoch);
    if (event.type === "replayed")
      expect(state.attemptState).toBe("pending_replay_attempt");
  }
  expect(snapshot.leaseEpoch, "I25").toBe(epoch);
  // What time alone has changed is read so, but not written yet (D34).
  const shown = homeOf(snapshot.stateVector);
  const written = homeOf(state);
  if (written === "RD" && shown === "RE") return;
  if (written === "AL" && shown === "AX") return;
  expect(state, `the events lead to the present state: ${told}`).toEqual(
    snapshot.stateVector,
  );
}

/** I53: there is a result exactly if the last run ended well with one. */
export async function checkResult(
  backend: EngineBackend,
  { snapshot }: Looked,
): Promise<void> {
  const { executionId } = snapshot;
  const result = textOf(await backend.getExecutionResult({ executionId }));
  if (snapshot.publicState !== "completed") {
    expect(result, "I53").toBeUndefined();
    return;
  }
  const { attemptIndex } = snapshot.currentAttempt!;
  expect(
    [
      textOf(expectedPayload(executionId, attemptIndex)),
      textOf(OVERRIDE_RESULT),
    ],
    "I53",
  ).toContain(result);
}

/** I13, I25, I47, I48: what may not go back between two looks. */
export function checkProgress(before: Looked, after: Looked): void {
  const [old, now] = [before.snapshot, after.snapshot];
  expect(now.leaseEpoch, "I25").toBeGreaterThanOrEqual(old.leaseEpoch);
  expect(now.createdAtMs, "I47").toBe(old.createdAtMs);
  if (old.startedAtMs !== undefined)
    expect(now.startedAtMs, "I47").toBe(old.startedAtMs);
  for (const time of ["lastTransitionAtMs", "lastMutationAtMs"] as const)
    expect(now[time], `I48 ${time}`).toBeGreaterThanOrEqual(old[time]);
  expect(after.events.slice(0, before.events.length), "history stays").toEqual(
    before.events,
  );
  for (const attempt of before.attempts)
    if (attempt.endedAtMs !== undefined)
      expect(after.attempts[attempt.attemptIndex], "I38").toEqual(attempt);
}
