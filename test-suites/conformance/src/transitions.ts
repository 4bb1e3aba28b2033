/**
 * The transition table, cell by cell: every operation in every state, what it answers and where that leads. One case per
 * operation tells all cells that differ.
 */
import {
  isEngineError,
  newAttemptId,
  newLeaseId,
  type AttemptState,
  type EngineBackend,
  type ExecutionPolicyInput,
} from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes, everythingAbout } from "./assertions.js";
import { HOUR_MS, LEASE_TTL_MS, registered, uuid, WORKER } from "./builders.js";
import { group, type Bench } from "./harness.js";
import {
  ATTEMPT_TIMEOUT_MS,
  attemptStateAt,
  DEADLINE_MS,
  homeOf,
  STATES,
  SUSPENSION_TIMEOUT_MS,
  type StateName,
  type Subject,
} from "./states.js";
import { keyed, suspendArgs } from "./suspension-builders.js";
import { TRANSITIONS, type TransitionName } from "./transitions-table.js";

type Preparation = (
  bench: Bench,
  subject: Subject,
  state: StateName,
) => Promise<unknown>;

interface Operation {
  readonly call: (backend: EngineBackend, subject: Subject) => Promise<unknown>;
  /** Comes between the state and the call. */
  readonly prepare?: Preparation;
  readonly policy?: ExecutionPolicyInput;
}

const newLease = () => ({ leaseId: newLeaseId(), leaseTtlMs: LEASE_TTL_MS });
const grantTtlMs = 60_000;

const claimGrant: Preparation = async ({ backend }, subject) =>
  await backend
    .issueClaimGrant({
      executionId: subject.executionId,
      ...WORKER,
      grantTtlMs,
    })
    .catch(() => undefined);
const register = ({ backend }: Bench, { laneId }: Subject) =>
  registered(backend, { lanes: [laneId] });
const pass =
  (ms: number): Preparation =>
  ({ passTime }) =>
    passTime(ms);
const withKey = ({ backend }: Bench) => keyed(backend);
const block = (reason: string): Operation => ({
  call: (b, { executionId }) =>
    b.blockExecutionForAdmission({ executionId, reason }),
});
const failure = { failureReason: "broken", failureCategory: "net" };

const OPERATIONS: { readonly [T in TransitionName]: Operation } = {
  claimExecution: {
    prepare: claimGrant,
    call: (b, { executionId }) =>
      b.claimExecution({
        executionId,
        ...WORKER,
        ...newLease(),
        attemptId: newAttemptId(),
      }),
  },
  claimResumedExecution: {
    prepare: claimGrant,
    call: (b, { executionId }) =>
      b.claimResumedExecution({ executionId, ...WORKER, ...newLease() }),
  },
  complete: { call: (b, { handle }) => b.complete({ handle }) },
  completeExecution: {
    call: (b, { executionId, fence }) =>
      b.completeExecution({ executionId, fence }),
  },
  fail: {
    call: (b, { handle }) =>
      b.fail({
        handle,
        reason: { message: "broken" },
        classification: "permanent",
      }),
  },
  failExecution: {
    call: (b, { executionId, fence }) =>
      b.failExecution({
        executionId,
        fence,
        ...failure,
        failureCategory: "permanent",
      }),
  },
  "failExecution with a retry left": {
    policy: { retryPolicy: { maxRetries: 5 } },
    call: (b, { executionId, fence }) =>
      b.failExecution({ executionId, fence, ...failure }),
  },
  cancel: { call: (b, { handle }) => b.cancel({ handle, reason: "r" }) },
  delay: {
    call: async (b, { handle }) => {
      const now = await b.serverTimeMs();
      await b.delay({ handle, delayUntilMs: now + HOUR_MS });
    },
  },
  "delay to the past": {
    call: async (b, { handle }) => {
      await b.delay({ handle, delayUntilMs: 1 });
    },
  },
  renew: { call: (b, { handle }) => b.renew({ handle }) },
  renewLease: {
    call: (b, { executionId, fence }) =>
      b.renewLease({
        executionId,
        attemptIndex: 0,
        fence,
        leaseTtlMs: LEASE_TTL_MS,
      }),
  },
  progress: { call: (b, { handle }) => b.progress({ handle, percent: 1 }) },
  appendFrame: {
    call: async (b, { handle }) => {
      await b.appendFrame({ handle, frame: { bytes: new Uint8Array(1) } });
    },
  },

  "cancelExecution by an operator": {
    call: (b, { executionId }) =>
      b.cancelExecution({ executionId, reason: "r" }),
  },
  "cancelExecution by the holder": {
    call: (b, { executionId, fence }) =>
      b.cancelExecution({
        executionId,
        reason: "r",
        source: "lease_holder",
        fence,
      }),
  },
  "expireExecution at the deadline": {
    prepare: pass(DEADLINE_MS),
    call: (b, { executionId }) =>
      b.expireExecution({ executionId, reason: "execution_deadline" }),
  },
  "expireExecution at the attempt's timeout": {
    prepare: pass(ATTEMPT_TIMEOUT_MS),
    call: (b, { executionId }) => b.expireExecution({ executionId }),
  },
  "expireExecution before anything is due": {
    call: (b, { executionId }) =>
      b.expireExecution({ executionId, reason: "execution_deadline" }),
  },
  markLeaseExpiredIfDue: {
    call: (b, { executionId }) => b.markLeaseExpiredIfDue({ executionId }),
  },
  revokeLease: { call: (b, { executionId }) => b.revokeLease({ executionId }) },
  issueReclaimGrant: {
    prepare: register,
    call: (b, { executionId }) =>
      b.issueReclaimGrant({ executionId, ...WORKER, grantTtlMs }),
  },
  reclaimExecution: {
    prepare: async (bench, subject, state) => {
      await register(bench, subject);
      // Where a lapse is not written yet the grant would write it.
      if (state === "AL!") return;
      const { executionId } = subject;
      await bench.backend.issueReclaimGrant({
        executionId,
        ...WORKER,
        grantTtlMs,
      });
    },
    call: (b, { executionId }) =>
      b.reclaimExecution({
        executionId,
        ...WORKER,
        ...newLease(),
        attemptId: newAttemptId(),
      }),
  },
  replayExecution: {
    call: (b, { executionId }) => b.replayExecution({ executionId }),
  },

  issueClaimGrant: {
    call: (b, { executionId }) =>
      b.issueClaimGrant({ executionId, ...WORKER, grantTtlMs }),
  },
  issueGrantAndClaim: {
    call: (b, { executionId }) =>
      b.issueGrantAndClaim({ executionId, leaseTtlMs: LEASE_TTL_MS }),
  },
  claim: {
    call: async (b, { laneId }) =>
      (await b.claim({
        laneId,
        policy: { ...WORKER, leaseTtlMs: LEASE_TTL_MS },
      })) ?? { kind: "nothing" },
  },
  claimForWorker: {
    call: (b, { laneId }) =>
      b.claimForWorker({ ...WORKER, laneId, grantTtlMs }),
  },

  "block for a budget": block("waiting_for_budget"),
  "block for a quota": block("waiting_for_quota"),
  "block for a route": block("waiting_for_capable_worker"),
  "block by an operator": block("paused_by_operator"),
  "block by the lane": block("paused_by_policy"),
  unblockExecution: {
    call: (b, { executionId }) => b.unblockExecution({ executionId }),
  },
  "unblockExecution of an operator's hold": {
    call: (b, { executionId }) =>
      b.unblockExecution({
        executionId,
        expectedBlockingReason: "paused_by_operator",
      }),
  },
  holdExecution: {
    call: (b, { executionId }) => b.holdExecution({ executionId }),
  },
  unholdExecution: {
    call: (b, { executionId }) => b.unholdExecution({ executionId }),
  },
  changePriority: {
    call: (b, { executionId }) =>
      b.changePriority({ executionId, newPriority: 7 }),
  },
  promoteDelayed: {
    call: (b, { executionId }) => b.promoteDelayed({ executionId }),
  },
  suspend: {
    prepare: withKey,
    call: (b, { handle }) => b.suspend({ handle, ...suspendArgs() }),
  },
  createWaitpoint: {
    prepare: withKey,
    call: (b, { handle }) =>
      b.createWaitpoint({ handle, waitpointKey: "a", expiresInMs: 1_000 }),
  },
  resumeExecution: {
    call: (b, { executionId }) => b.resumeExecution({ executionId }),
  },
  "a satisfying signal": {
    call: (b, { executionId, waitpointId = uuid() }) =>
      b.deliverApprovalSignal({
        executionId,
        waitpointId,
        signalName: "approved",
        idempotencySuffix: "once",
      }),
  },
  "expireSuspension at its timeout": {
    prepare: pass(SUSPENSION_TIMEOUT_MS),
    call: (b, { executionId }) => b.expireSuspension({ executionId }),
  },
  "expireSuspension before it is due": {
    call: (b, { executionId }) => b.expireSuspension({ executionId }),
  },
  setExecutionTag: {
    call: (b, { executionId }) =>
      b.setExecutionTag({ executionId, key: "a", value: "1" }),
  },
};

/** The answer in one word or two: its kind, and the reason where it has one; a refusal's code behind `!`. */
async function answerOf(call: Promise<unknown>): Promise<string> {
  try {
    const answer = (await call) as
      { kind?: string; reason?: string; detail?: string } | undefined;
    if (answer?.kind === undefined) return "ok";
    const more =
      answer.kind === "blocked" ? undefined : (answer.reason ?? answer.detail);
    return more === undefined ? answer.kind : `${answer.kind} ${more}`;
  } catch (error) {
    if (!isEngineError(error)) throw error;
    return `!${error.code}`;
  }
}

const SUFFIXES: { readonly [word: string]: AttemptState } = {
  retry: "pending_retry_attempt",
  replay: "pending_replay_attempt",
  interrupted: "attempt_interrupted",
};

/** What is wrong with one cell; nothing where it holds. */
async function faultOf(
  bench: Bench,
  name: TransitionName,
  state: StateName,
): Promise<string | undefined> {
  const { backend } = bench;
  const operation = OPERATIONS[name];
  const [wanted = "", target] = TRANSITIONS[name][state].split(" > ");
  const answer = wanted.replace(/ =$/, "");
  const subject = await STATES[state](bench, operation.policy ?? {});
  await operation.prepare?.(bench, subject, state);
  const { executionId } = subject;
  const before = (await backend.describeExecution({ executionId }))!;
  const everythingBefore = await everythingAbout(backend, executionId);
  const eventsBefore = await eventTypes(backend, executionId);

  const given = await answerOf(operation.call(backend, subject));

  if (given !== answer) return `answers ${given}, not ${answer}`;
  const after = (await backend.describeExecution({ executionId }))!;
  const home = homeOf(after.stateVector);
  if (target === undefined && wanted === answer) {
    try {
      expect(await everythingAbout(backend, executionId)).toEqual(
        everythingBefore,
      );
    } catch (difference) {
      return `answers ${given} and changes something: ${String(difference)}`;
    }
    return undefined;
  }
  const [wantedHome, suffix] = splitTarget(
    target ?? homeOf(before.stateVector),
  );
  if (home !== wantedHome) return `leads to ${home}, not ${wantedHome}`;
  const attemptState =
    SUFFIXES[suffix] ??
    attemptStateAt(
      wantedHome,
      before.stateVector.attemptState,
      after.totalAttemptCount,
    );
  if (after.stateVector.attemptState !== attemptState)
    return `leaves the attempt ${after.stateVector.attemptState}, not ${attemptState}`;
  const events = await eventTypes(backend, executionId);
  if (target !== undefined && events.length === eventsBefore.length)
    return `leads to ${home} without an event`;
  return undefined;
}

function splitTarget(target: string): [home: string, suffix: string] {
  const words = target.split(" ");
  const last = words.at(-1)!;
  return last in SUFFIXES ? [words.slice(0, -1).join(" "), last] : [target, ""];
}

/** Answers to an id that does not exist; all others are refused with `execution_not_found`. */
const UNKNOWN: { readonly [T in TransitionName]?: string } = {
  "expireExecution at the deadline": "notFoundCleaned",
  "expireExecution at the attempt's timeout": "notFoundCleaned",
  "expireExecution before anything is due": "notFoundCleaned",
  "expireSuspension at its timeout": "notFoundCleaned",
  "expireSuspension before it is due": "notFoundCleaned",
  markLeaseExpiredIfDue: "alreadySatisfied execution_not_found",
  promoteDelayed: "notFoundCleaned",
  claim: "nothing",
  claimForWorker: "noWork empty",
};

export const transitionsConformance = group("transitions", (test) => {
  test("an execution that does not exist is refused by every operation but those that clean up", async (bench) => {
    const { backend } = bench;
    const subject = await STATES["T success"](bench, {
      streamPolicy: { retentionTtlMs: 0 },
    });
    while ((await backend.sweep({ name: "retention_trimmer" })).more);
    const answers: Record<string, string> = {};
    const wanted: Record<string, string> = {};
    for (const name of Object.keys(TRANSITIONS) as TransitionName[]) {
      answers[name] = await answerOf(OPERATIONS[name].call(backend, subject));
      wanted[name] = UNKNOWN[name] ?? "!execution_not_found";
    }
    expect(answers).toEqual(wanted);
  });

  for (const name of Object.keys(TRANSITIONS) as TransitionName[]) {
    test(
      `${name} answers in every state as the table says`,
      { timeoutMs: 120_000 },
      async (bench) => {
        const faults: string[] = [];
        for (const state of Object.keys(STATES) as StateName[]) {
          const fault = await faultOf(bench, name, state);
          if (fault !== undefined) faults.push(`${state}: ${fault}`);
        }
        expect(faults, faults.join("\n")).toEqual([]);
      },
    );
  }
});
