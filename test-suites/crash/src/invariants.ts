/** What must hold for a store at any moment, whatever was killed on the way there. Answers what does not. */
import { isDeepStrictEqual } from "node:util";

import {
  derivePublicState,
  EARLIEST,
  TERMINAL_EVENT_TYPES,
  type AttemptRecord,
  type EngineBackend,
  type EventType,
  type ExecutionEvent,
  type ExecutionId,
  type ExecutionSnapshot,
  type PendingWaitpointInfo,
  type PublicState,
} from "@flowfabric/core";

/** Enough to keep the connections busy, and few enough to wait for none of them. */
const LOOKS_AT_ONCE = 16;

/** @returns one line per violation; nothing where all is well */
export async function findViolations(
  backend: EngineBackend,
): Promise<string[]> {
  const executionIds = await listAll(backend);
  const violations: string[] = [];
  const ends = new Map<string, number>();
  const states = new Map<PublicState, Set<string>>();
  const look = async (executionId: ExecutionId) => {
    const [snapshot, attempts, events, waitpoints] = await Promise.all([
      backend.describeExecution({ executionId }),
      backend.listAttempts({ executionId }),
      readHistory(backend, executionId),
      listWaitpoints(backend, executionId),
    ]);
    if (snapshot === undefined) {
      violations.push(`${executionId}: listed, but not there`);
      return;
    }
    ends.set(executionId, events.filter(isEnd).length);
    const { publicState } = snapshot;
    states.set(
      publicState,
      (states.get(publicState) ?? new Set<string>()).add(executionId),
    );
    const found = [
      ...wrongSnapshot(snapshot),
      ...wrongAttempts(snapshot, attempts),
      ...wrongHistory(snapshot, events),
      ...wrongWaits(snapshot, events, waitpoints),
    ];
    violations.push(...found.map((line) => `${executionId}: ${line}`));
  };
  for (let at = 0; at < executionIds.length; at += LOOKS_AT_ONCE)
    await Promise.all(executionIds.slice(at, at + LOOKS_AT_ONCE).map(look));
  violations.push(...(await wrongLists(backend, states)));
  violations.push(...(await wrongCompletions(backend, ends)));
  const { processed, errors } = await backend.reconcileExecutionIndex({});
  if (processed !== 0 || errors !== 0)
    violations.push(`index: ${processed} entries repaired, ${errors} errors`);
  return violations;
}

/** Every execution of the store, in the order of creation; or only those in one of these states. */
export async function listAll(
  backend: EngineBackend,
  publicStates?: PublicState[],
): Promise<ExecutionId[]> {
  const all: ExecutionId[] = [];
  let cursor: string | undefined;
  do {
    const page = await backend.listExecutions({
      publicStates,
      cursor,
      limit: 1_000,
    });
    all.push(...page.executions);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return all;
}

function wrongSnapshot(snapshot: ExecutionSnapshot): string[] {
  const { stateVector, publicState, currentLease, completedAtMs } = snapshot;
  const phase = stateVector.lifecyclePhase;
  return violationsOf([
    ["public state", publicState, derivePublicState(stateVector)],
    ["ended at a time", completedAtMs !== undefined, phase === "terminal"],
    ["has a lease", currentLease !== undefined, phase === "active"],
    [
      "has an outcome",
      stateVector.terminalOutcome !== "none",
      phase === "terminal",
    ],
    [
      "is owned",
      stateVector.ownershipState !== "unowned",
      currentLease !== undefined,
    ],
  ]);
}

function wrongAttempts(
  snapshot: ExecutionSnapshot,
  attempts: readonly AttemptRecord[],
): string[] {
  const open = attempts
    .slice(0, -1)
    .filter(({ attemptState }) =>
      ["started", "suspended"].includes(attemptState),
    );
  return violationsOf([
    ["attempts", attempts.length, snapshot.totalAttemptCount],
    [
      "attempt indexes",
      attempts.map(({ attemptIndex }) => attemptIndex),
      attempts.map((_attempt, index) => index),
    ],
    ["earlier attempts still open", open.length, 0],
    [
      "reclaims ever",
      snapshot.leaseReclaimTotal,
      attempts.filter(({ attemptType }) => attemptType === "reclaim").length,
    ],
    [
      "epochs grow",
      attempts.every(
        ({ leaseEpoch }, index) =>
          index === 0 || leaseEpoch > attempts[index - 1]!.leaseEpoch,
      ),
      true,
    ],
  ]);
}

function wrongHistory(
  snapshot: ExecutionSnapshot,
  events: readonly ExecutionEvent[],
): string[] {
  const leases = events.filter(({ type }) =>
    ["claimed", "resumed", "reclaimed"].includes(type),
  );
  const transitions = events.filter(({ toState }) => toState !== undefined);
  const ends = events.filter(isEnd).length;
  const terminal = snapshot.stateVector.lifecyclePhase === "terminal";
  const lastReplay = events.findLastIndex(({ type }) => type === "replayed");
  const sinceReplay = (type: EventType) =>
    events.slice(lastReplay + 1).filter((event) => event.type === type).length;
  return violationsOf([
    [
      "event numbers",
      events.map(({ seq }) => seq),
      events.map((_event, index) => index + 1),
    ],
    ["first event", events[0]?.type, "created"],
    ["leases", leases.length, snapshot.leaseEpoch],
    [
      "epochs of leases",
      leases.map(({ leaseEpoch }) => leaseEpoch),
      leases.map((_lease, index) => index + 1),
    ],
    ["reclaims", snapshot.leaseReclaimCount, sinceReplay("reclaimed")],
    ["retries", snapshot.retryCount, sinceReplay("retry_scheduled")],
    ["ends", ends, snapshot.replayCount + (terminal ? 1 : 0)],
    [
      "states follow each other",
      transitions.every(
        ({ fromState }, index) =>
          index === 0 ||
          isDeepStrictEqual(fromState, transitions[index - 1]!.toState),
      ),
      true,
    ],
    [
      "events played back",
      timeless(transitions.at(-1)?.toState),
      timeless(snapshot.stateVector),
    ],
  ]);
}

/** One open suspension for each suspended execution, which one signal at most has ended, and waitpoints that fit. */
function wrongWaits(
  {
    executionId,
    publicState,
    currentWaitpoint,
    completedAtMs,
  }: ExecutionSnapshot,
  events: readonly ExecutionEvent[],
  waitpoints: readonly PendingWaitpointInfo[],
): string[] {
  let open = 0;
  let overlapping = 0;
  const signals = new Set<unknown>();
  let repeated = 0;
  for (const event of events) {
    const { type, data } = event;
    if (type === "suspended") {
      if (open > 0) overlapping += 1;
      open += 1;
    } else if (endsWait(event)) open -= 1;
    if (type !== "signal") continue;
    if (signals.has(data?.["signalId"])) repeated += 1;
    signals.add(data?.["signalId"]);
  }
  const isSuspended = publicState === "suspended";
  const active = waitpoints.filter(({ state }) => state === "active");
  return violationsOf([
    ["open suspensions", open, isSuspended ? 1 : 0],
    ["suspensions while one is open", overlapping, 0],
    ["signals told more than once", repeated, 0],
    ["waits at a waitpoint", currentWaitpoint !== undefined, isSuspended],
    [
      "active waitpoints of what is not suspended",
      isSuspended ? 0 : active.length,
      0,
    ],
    [
      "open waitpoints of what has ended",
      completedAtMs === undefined ? 0 : waitpoints.length,
      0,
    ],
    [
      "waitpoints of others",
      waitpoints.filter((one) => one.executionId !== executionId).length,
      0,
    ],
  ]);
}

/** Time alone makes a delayed execution ready and a lease lapse; the event of it is written with the next change. */
function timeless(state: ExecutionEvent["toState"]): unknown {
  if (state?.ownershipState === "lease_expired_reclaimable")
    return { ownedOnce: true };
  if (state?.ownershipState === "leased") return { ownedOnce: true };
  if (
    state?.eligibilityState === "eligible_now" ||
    state?.eligibilityState === "not_eligible_until_time"
  )
    return { claimable: true, attemptState: state.attemptState };
  return state;
}

/** Lists by state answer what a look at each execution answers. Time moves the others on between the two looks. */
async function wrongLists(
  backend: EngineBackend,
  states: ReadonlyMap<PublicState, ReadonlySet<string>>,
): Promise<string[]> {
  const violations: string[] = [];
  const expect = (what: string, listed: ExecutionId[], state: PublicState) => {
    const found = states.get(state) ?? new Set<string>();
    if (!isDeepStrictEqual(new Set<string>(listed), found))
      violations.push(
        `${what}: ${listed.length} are listed, but ${found.size} are so`,
      );
  };
  for (const state of [
    "completed",
    "failed",
    "cancelled",
    "suspended",
  ] as const)
    expect(state, await listAll(backend, [state]), state);
  expect("suspensions", await listAllSuspended(backend), "suspended");
  return violations;
}

async function listAllSuspended(
  backend: EngineBackend,
): Promise<ExecutionId[]> {
  const all: ExecutionId[] = [];
  let cursor: string | undefined;
  do {
    const page = await backend.listSuspended({ cursor, limit: 1_000 });
    all.push(...page.entries.map(({ executionId }) => executionId));
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return all;
}

/** One completion for each end, none missing and none twice. */
async function wrongCompletions(
  backend: EngineBackend,
  ends: ReadonlyMap<string, number>,
): Promise<string[]> {
  const told = await countCompletions(backend);
  const violations: string[] = [];
  for (const [executionId, expected] of ends) {
    const found = told.get(executionId) ?? 0;
    if (found !== expected)
      violations.push(
        `${executionId}: ${found} completions told, but it ended ${expected} times`,
      );
  }
  return violations;
}

/** How often each execution is in the feed of completions, from its beginning until now. */
async function countCompletions(
  backend: EngineBackend,
): Promise<Map<string, number>> {
  // The end of the feed is where an end of our own shows up.
  const marker = await backend.createExecution({
    laneId: "end-of-feed",
    executionKind: "marker",
    namespace: "marker",
  });
  await backend.cancelExecution({
    executionId: marker.executionId,
    reason: "marker",
  });
  const told = new Map<string, number>();
  const feed = await backend.subscribeCompletion({ cursor: EARLIEST });
  for await (const { executionId } of feed) {
    if (executionId === marker.executionId) break;
    told.set(executionId, (told.get(executionId) ?? 0) + 1);
  }
  return told;
}

/** Whatever leads out of a suspension: a signal, its timeout, an operator, an end. */
export function endsWait({ fromState, toState }: ExecutionEvent): boolean {
  return (
    fromState?.lifecyclePhase === "suspended" &&
    toState !== undefined &&
    toState.lifecyclePhase !== "suspended"
  );
}

async function listWaitpoints(
  backend: EngineBackend,
  executionId: ExecutionId,
): Promise<PendingWaitpointInfo[]> {
  const { entries } = await backend.listPendingWaitpoints({
    executionId,
    limit: 1_000,
  });
  return entries;
}

export async function readHistory(
  backend: EngineBackend,
  executionId: string,
): Promise<ExecutionEvent[]> {
  const history: ExecutionEvent[] = [];
  for (;;) {
    const { events } = await backend.readEvents({
      executionId,
      after: history.at(-1)?.seq ?? 0,
    });
    if (events.length === 0) return history;
    history.push(...events);
  }
}

const ENDS: ReadonlySet<EventType> = new Set(TERMINAL_EVENT_TYPES);

function isEnd({ type }: ExecutionEvent): boolean {
  return ENDS.has(type);
}

function violationsOf(
  checks: readonly (readonly [what: string, found: unknown, due: unknown])[],
): string[] {
  return checks
    .filter(([, found, due]) => !isDeepStrictEqual(found, due))
    .map(
      ([what, found, due]) =>
        `${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(due)}`,
    );
}
