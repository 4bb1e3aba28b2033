/**
 * How SQLite finds what is asked for. A query that misses its index is still right and a thousand times slower in a
 * large store, so the plan of each is part of what it promises.
 */
import { INPUTS, type EngineBackend, type Handle } from "@flowfabric/core";
import SqliteDriver from "better-sqlite3";
import { expect, test, vi } from "vitest";

import { LIST_SUSPENDED } from "../src/operations/suspension.js";
import { LEASES_OF_REQUEST } from "../src/operations/claims.js";
import { WRITE_RESULT } from "../src/operations/outcomes.js";
import * as candidates from "../src/procedures/candidates.js";
import {
  FIND_EXECUTION,
  READ_BY_SEQ,
  SAVE_EXECUTION,
} from "../src/procedures/executions.js";
import { FEED_PAGE } from "../src/procedures/feeds.js";
import { READ_EVENTS } from "../src/procedures/history.js";
import { INSERT_EVENT } from "../src/procedures/log.js";
import { NOTICES } from "../src/procedures/notices.js";
import * as portions from "../src/procedures/portions.js";
import {
  DELETE_STALE_FRAMES,
  OLDEST_STALE,
  PURGEABLE,
} from "../src/procedures/purge.js";
import { NEWER_ROUTES } from "../src/procedures/routes.js";
import {
  FIND_KEY,
  INSERT_EXECUTION,
  INSERT_INPUT,
} from "../src/procedures/submit.js";
import * as signals from "../src/procedures/signals.js";
import { READ_SUSPENSION } from "../src/procedures/suspensions.js";
import * as waitpoints from "../src/procedures/waitpoints.js";
import * as streams from "../src/procedures/streams.js";
import { READ_PAYLOAD } from "../src/procedures/take.js";
import { ROWS_OF_HOME } from "../src/procedures/unblock.js";
import { APPENDED_SINCE, ENDED_SINCE } from "../src/tails.js";
import { newPath, open, openRaw } from "./files.js";

function planOf(database: SqliteDriver.Database, sql: string): string[] {
  const steps = database.prepare(`EXPLAIN QUERY PLAN ${sql}`);
  const parameters = Array.from(sql.matchAll(/\?/g), () => null);
  return (steps.all(...parameters) as { detail: string }[]).map(
    ({ detail }) => detail,
  );
}

const home = (terms: string) =>
  `SEARCH executions USING INDEX executions_by_home (${terms})`;
const bySeq = "SEARCH executions USING INTEGER PRIMARY KEY (rowid=?)";
/** The first thousand that are due, put in line: bounded, whatever stands behind them. */
const boundedLine = [
  bySeq,
  "LIST SUBQUERY 1",
  home("route=? AND home=? AND score<?"),
  "USE TEMP B-TREE FOR ORDER BY",
];

/** One mode of one stream, in the order of its frames. */
const frames = (terms = "") =>
  `SEARCH frames USING PRIMARY KEY (seq=? AND attempt=? AND mode=?${terms})`;
const frameRange = frames(" AND (ms,n)>(?,?) AND (ms,n)<(?,?)");

const PLANS: readonly (readonly [
  what: string,
  sql: string,
  plan: readonly string[],
])[] = [
  [
    "submit: the same id",
    FIND_EXECUTION,
    [
      "SEARCH executions USING INDEX sqlite_autoindex_executions_1 (id=? AND partition=?)",
    ],
  ],
  [
    "submit: the same key",
    FIND_KEY,
    [
      "SEARCH idempotency USING PRIMARY KEY (namespace=? AND lane=? AND idempotency_key=?)",
    ],
  ],
  ["submit: the record", INSERT_EXECUTION, []],
  ["submit: the input", INSERT_INPUT, []],
  ["any transition: the event", INSERT_EVENT, []],
  ["any transition: the record", SAVE_EXECUTION, [bySeq]],
  ["complete: the result", WRITE_RESULT, []],
  ["a record by its number", READ_BY_SEQ, [bySeq]],
  ["claim: ready", candidates.READY_CANDIDATES, [home("route=? AND home=?")]],
  [
    "scan of one partition: ready",
    candidates.READY_IN_PARTITION,
    [home("route=? AND home=?")],
  ],
  [
    "claim: is anything due",
    candidates.ANY_DUE,
    [
      "SEARCH executions USING COVERING INDEX executions_by_home (route=? AND home=? AND score<?)",
    ],
  ],
  ["claim: delayed and due", candidates.DUE_CANDIDATES, boundedLine],
  [
    "scan of one partition: delayed and due",
    candidates.DUE_IN_PARTITION,
    boundedLine,
  ],
  ["claim: lapsed", candidates.LOST_CANDIDATES, boundedLine],
  ["claim: revoked", candidates.REVOKED_CANDIDATES, boundedLine],
  ["claim: about to lapse", candidates.LAPSING_CANDIDATES, boundedLine],
  [
    "claim: the payload",
    READ_PAYLOAD,
    ["SEARCH inputs USING INTEGER PRIMARY KEY (rowid=?)"],
  ],
  [
    "claim repeated",
    LEASES_OF_REQUEST,
    [home("route=? AND home=? AND score>?")],
  ],
  [
    "parked claim: when to look again",
    candidates.NEXT_DUE,
    [
      "SEARCH executions USING COVERING INDEX executions_by_home (route=? AND home=? AND score>?)",
    ],
  ],
  [
    "parked claim: when a grant ends",
    candidates.NEXT_GRANT_END,
    [
      "CO-ROUTINE (subquery-1)",
      home("route=? AND home=?"),
      "SEARCH (subquery-1)",
    ],
  ],
  [
    "no work: is any blocked",
    candidates.ANY_WAITING,
    [
      "SEARCH executions USING COVERING INDEX executions_by_home (route=? AND home<?)",
    ],
  ],
  [
    "portion: promotion",
    portions.DUE_DELAYED,
    [home("route=? AND home=? AND score<?")],
  ],
  [
    "portion: lapsed leases",
    portions.LAPSED_LEASES,
    [home("route=? AND home=? AND score<?")],
  ],
  [
    "portion: reclaim caps",
    portions.AT_RECLAIM_CAP,
    [home("route=? AND home=?")],
  ],
  [
    "portion: timers",
    portions.DUE_TIMERS,
    [
      "SEARCH executions USING INDEX executions_by_timer (timer_at>? AND timer_at<?)",
    ],
  ],
  [
    "parked claim: the next timer",
    portions.NEXT_TIMER,
    ["SEARCH executions USING COVERING INDEX executions_by_timer (timer_at>?)"],
  ],
  [
    "portion: suspensions",
    portions.DUE_SUSPENSIONS,
    [
      "SEARCH executions USING INDEX executions_by_timer (timer_at>? AND timer_at<?)",
    ],
  ],
  [
    "portion: pending waitpoints",
    waitpoints.DUE_PENDING,
    ["SEARCH waitpoints USING INDEX waitpoints_pending (expires_at<?)"],
  ],
  [
    "when the next pending waitpoint is over",
    waitpoints.NEXT_PENDING,
    ["SEARCH waitpoints USING COVERING INDEX waitpoints_pending"],
  ],
  [
    "suspended ones",
    LIST_SUSPENDED,
    [
      "SEARCH executions USING INDEX executions_suspended ((score,id,partition)>(?,?,?))",
    ],
  ],
  [
    "signal: the suspension",
    READ_SUSPENSION,
    ["SEARCH suspensions USING INTEGER PRIMARY KEY (rowid=?)"],
  ],
  [
    "signal: the waitpoint",
    waitpoints.FIND_WAITPOINT,
    ["SEARCH waitpoints USING PRIMARY KEY (seq=? AND id=?)"],
  ],
  [
    "signal: the same id",
    signals.FIND_SIGNAL,
    ["SEARCH signals USING INDEX sqlite_autoindex_signals_1 (seq=? AND id=?)"],
  ],
  [
    "signal: the same key",
    signals.FIND_BY_KEY,
    [
      "SEARCH k USING PRIMARY KEY (seq=? AND waitpoint=? AND signal_key=?)",
      "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
    ],
  ],
  [
    "signal: the source",
    signals.LEAVES_OF_SOURCE,
    [
      "SEARCH signal_sources USING PRIMARY KEY (seq=? AND source_type=? AND source_identity=?)",
    ],
  ],
  [
    "suspend: signals that came before",
    signals.BUFFERED_SIGNALS,
    ["SEARCH signals USING INDEX signals_by_waitpoint (seq=? AND waitpoint=?)"],
  ],
  [
    "resume: signals that counted",
    signals.CONTRIBUTORS,
    ["SEARCH signals USING INDEX signals_by_waitpoint (seq=? AND waitpoint=?)"],
  ],
  [
    "resume: active waitpoints",
    waitpoints.CLOSE_ACTIVE,
    ["SEARCH waitpoints USING INDEX waitpoints_open (seq=?)"],
  ],
  [
    "any end: pending waitpoints",
    waitpoints.CLOSE_PENDING,
    ["SEARCH waitpoints USING INDEX waitpoints_open (seq=?)"],
  ],
  [
    "how many waitpoints are open",
    waitpoints.COUNT_OPEN,
    ["SEARCH waitpoints USING INDEX waitpoints_open (seq=?)"],
  ],
  [
    "open waitpoints",
    waitpoints.LIST_OPEN,
    ["SEARCH waitpoints USING INDEX waitpoints_open (seq=? AND id>?)"],
  ],
  ["portion: blocked routes", ROWS_OF_HOME, [home("route=? AND home=?")]],
  [
    "portion: retention",
    PURGEABLE,
    [home("route=? AND home=? AND score>? AND score<?")],
  ],
  [
    "every claim: routes of other processes",
    NEWER_ROUTES,
    ["SEARCH routes USING INTEGER PRIMARY KEY (rowid>?)"],
  ],
  [
    "history",
    READ_EVENTS,
    [
      "SEARCH e USING INDEX events_by_execution (execution=? AND n>?)",
      "CORRELATED SCALAR SUBQUERY 1",
      "SEARCH earlier USING INDEX events_by_execution (execution=? AND n<?)",
    ],
  ],
  [
    "feeds",
    FEED_PAGE,
    [
      "SEARCH e USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
      "LIST SUBQUERY 1",
      "SCAN json_each VIRTUAL TABLE INDEX 1:",
      "CREATE BLOOM FILTER",
      "SEARCH x USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
      "SEARCH p USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
  ],
  [
    "notices to holders",
    NOTICES,
    [
      "SEARCH e USING INDEX events_for_holders (position>?)",
      "SEARCH x USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
    ],
  ],
  [
    "append: the stream",
    streams.READ_STREAM,
    ["SEARCH streams USING PRIMARY KEY (seq=? AND attempt=?)"],
  ],
  [
    "append: the summary",
    streams.READ_SUMMARY,
    [
      "SEARCH summaries USING INDEX sqlite_autoindex_summaries_1 (seq=? AND attempt=?)",
    ],
  ],
  ["read: one mode", streams.PAGES["durable"]!, [frameRange]],
  ["append: the last frame to go", streams.LAST_OF_OLDEST, [frames()]],
  [
    "append: frames that go",
    streams.DELETE_THROUGH,
    [frames(" AND (ms,n)<(?,?)")],
  ],
  [
    "read: all modes, merged without sorting",
    streams.PAGES["durable+summary+best_effort"]!,
    [
      "MERGE (UNION ALL)",
      "LEFT",
      "MERGE (UNION ALL)",
      "LEFT",
      frameRange,
      "RIGHT",
      frameRange,
      "RIGHT",
      frameRange,
    ],
  ],
  [
    "read: never meets best-effort frames",
    streams.PAGES["durable+summary"]!,
    ["MERGE (UNION ALL)", "LEFT", frameRange, "RIGHT", frameRange],
  ],
  [
    "tails: what others have appended",
    APPENDED_SINCE,
    [
      "SEARCH s USING COVERING INDEX streams_by_change (changed>?)",
      "SEARCH x USING INTEGER PRIMARY KEY (rowid=?)",
    ],
  ],
  [
    "tails: what others have ended",
    ENDED_SINCE,
    [
      "SEARCH e USING INTEGER PRIMARY KEY (rowid>?)",
      "SEARCH x USING INTEGER PRIMARY KEY (rowid=?)",
    ],
  ],
  ["retention: whose frames are left", OLDEST_STALE, ["SEARCH stale_frames"]],
  [
    "retention: a portion of them",
    DELETE_STALE_FRAMES,
    [
      frames(" AND ms=? AND n=?"),
      "LIST SUBQUERY 2",
      "SEARCH frames USING PRIMARY KEY (seq=?)",
    ],
  ],
];

test("every hot statement finds its rows by the index that is meant for it", async () => {
  const path = newPath();
  await (await open({ path })).close();
  const database = openRaw(path);

  const found = PLANS.map(([what, sql]) => [what, planOf(database, sql)]);

  expect(found).toEqual(PLANS.map(([what, , plan]) => [what, plan]));
});

/** Small by nature: one row per live process, lane, kind of work or key; and lists that a call brings along. */
const MAY_BE_SCANNED =
  /^SCAN (workers|lanes|routes|waitpoint_secrets|json_each|CONSTANT ROW)\b/;

test("no operation goes through a whole table of executions or events", async () => {
  const statements = new Set<string>();
  const prepare = SqliteDriver.prototype.prepare;
  const spy = vi
    .spyOn(SqliteDriver.prototype, "prepare")
    .mockImplementation(function (this: SqliteDriver.Database, sql: string) {
      statements.add(sql);
      return prepare.call(this, sql);
    });
  const path = newPath();
  const clock = { offsetMs: 0 };
  const { backend, called } = counted(await open({ path, clock }));
  try {
    await tour(backend, path, (ms) => {
      clock.offsetMs += ms;
    });
  } finally {
    spy.mockRestore();
  }
  const database = openRaw(path);

  expect([...called].sort()).toEqual(Object.keys(INPUTS).sort());
  const scans = [...statements]
    .filter((sql) => /^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b/.test(sql))
    .filter((sql) => !sql.includes("sqlite_master"))
    .flatMap((sql) =>
      planOf(database, sql)
        .filter((step) => step.startsWith("SCAN"))
        .filter((step) => !MAY_BE_SCANNED.test(step))
        .map((step) => ({ step, sql })),
    );
  expect(scans).toEqual([]);
  expect(statements.size).toBeGreaterThan(60);
});

function counted(backend: EngineBackend): {
  backend: EngineBackend;
  called: Set<string>;
} {
  const called = new Set<string>();
  return {
    called,
    backend: new Proxy(backend, {
      get(target, name, receiver) {
        if (typeof name === "string" && name in INPUTS) called.add(name);
        return Reflect.get(target, name, receiver) as unknown;
      },
    }),
  };
}

/** Every operation, in the states where it has the most to look up. */
/** Output of one attempt, with more patches than are kept. */
async function stream(
  backend: EngineBackend,
  executionId: string,
  handle: Handle,
): Promise<void> {
  const patch = {
    bytes: Buffer.from("{}"),
    mode: { kind: "durableSummary", patchKind: "jsonMergePatch" },
  } as const;
  await backend.appendFrame({ handle, frame: { bytes: Buffer.from("x") } });
  await backend.appendFrames({
    handle,
    frames: Array.from({ length: 70 }, () => patch),
  });
  const ref = { executionId, attemptIndex: 0, countLimit: 10 };
  await backend.readStream(ref);
  await backend.readStream({ ...ref, visibility: "excludeBestEffort" });
  await backend.readStream({ ...ref, attemptIndex: 7 });
  const { nextCursor } = await backend.readStream({ ...ref, from: "end" });
  await backend.tailStream({ ...ref, after: nextCursor, blockMs: 20 });
  await backend.readSummary({ executionId, attemptIndex: 0 });
}

async function tour(
  backend: EngineBackend,
  path: string,
  passTime: (ms: number) => void,
): Promise<void> {
  const worker = { workerId: "worker", workerInstanceId: "worker-1" };
  const lease = { leaseTtlMs: 1_000 };
  const claimant = {
    ...worker,
    ...lease,
    lanes: ["default"],
    capabilities: ["gpu"],
    namespace: "default",
  };
  const submit = async (more: object = {}) => {
    const { executionId } = await backend.createExecution({
      executionKind: "tour",
      inputPayload: Buffer.from("x"),
      ...more,
    });
    return executionId;
  };
  const take = async (more: object = {}) => {
    await submit(more);
    const { claimed } = await backend.claimMany({ ...claimant, max: 1 });
    return claimed[0]!;
  };
  const fenceOf = (one: Awaited<ReturnType<typeof take>>) => ({
    leaseId: one.leaseId,
    leaseEpoch: one.leaseEpoch,
    attemptId: one.attemptId,
  });
  const newIds = () => ({
    leaseId: crypto.randomUUID(),
    attemptId: crypto.randomUUID(),
  });

  await backend.registerWorker({
    ...worker,
    namespace: "default",
    lanes: ["default"],
    capabilities: ["gpu"],
    livenessTtlMs: 60_000,
  });
  await backend.heartbeatWorker({
    workerInstanceId: worker.workerInstanceId,
    namespace: "default",
  });

  // Submitting and steering.
  const keyed = { idempotencyKey: "key", tags: { album: "pets" } };
  const executionId = await submit(keyed);
  await submit(keyed);
  await backend.submitMany({
    items: [{ executionKind: "tour" }, { executionKind: "tour" }],
    atomicity: "allOrNothing",
  });
  const caller = openRaw(path);
  await caller.transaction(() =>
    backend.createExecutionInTransaction({
      executionKind: "tour",
      transaction: caller,
    }),
  )();
  await backend.changePriority({ executionId, newPriority: 7 });
  await backend.holdExecution({ executionId });
  await backend.unholdExecution({ executionId });
  await backend.setExecutionTag({ executionId, key: "album", value: "cats" });
  await backend.getExecutionTag({ executionId, key: "album" });
  await backend.cancelExecution({ executionId, reason: "x" });
  await backend.replayExecution({ executionId });

  // Claims, with work of every kind in the way.
  await submit({ delayUntilMs: Date.now() + 500 });
  await submit({ policy: { maxReclaimCount: 0 } });
  await submit({
    policy: {
      timeoutPolicy: { attemptTimeoutMs: 300, executionDeadlineMs: 900_000 },
    },
  });
  await backend.claimMany({ ...claimant, max: 100, requestId: "request" });
  await backend.claimMany({
    ...claimant,
    max: 100,
    requestId: "request",
    repeat: true,
    maxWaitMs: 10,
  });
  await backend.claim({
    laneId: "default",
    policy: { ...worker, ...lease, maxWaitMs: 10 },
  });
  passTime(2_000);
  await backend.listExpiredLeases({ limit: 2 });
  const lost = (await backend.listExpiredLeases({})).entries.at(-1)!;
  await backend.markLeaseExpiredIfDue({ executionId: lost.executionId });
  await backend.issueReclaimGrant({
    ...worker,
    executionId: lost.executionId,
    workerCapabilities: ["gpu"],
    grantTtlMs: 1_000,
  });
  await backend.reclaimExecution({
    ...worker,
    ...lease,
    ...newIds(),
    executionId: lost.executionId,
  });
  await backend.claimMany({ ...claimant, max: 100 });
  await backend.scanEligibleExecutions({ laneId: "default" });
  await backend.scanEligibleExecutions({
    laneId: "default",
    partition: "{fp:7}",
  });
  await backend.claimForWorker({
    ...worker,
    laneId: "default",
    grantTtlMs: 1_000,
  });
  const granted = await submit();
  await backend.issueClaimGrant({
    ...worker,
    executionId: granted,
    grantTtlMs: 1_000,
  });
  const running = await backend.claimExecution({
    ...worker,
    ...lease,
    ...newIds(),
    executionId: granted,
  });
  await stream(backend, granted, running.claimed.handle);
  await backend.delay({ handle: running.claimed.handle, delayUntilMs: 1 });
  await backend.issueClaimGrant({
    ...worker,
    executionId: granted,
    grantTtlMs: 1_000,
  });
  const resumed = await backend.claimResumedExecution({
    ...worker,
    ...lease,
    leaseId: crypto.randomUUID(),
    executionId: granted,
  });
  await backend.delay({ handle: resumed.claimed.handle, delayUntilMs: 1 });
  const again = await backend.claimForWorker({
    ...worker,
    laneId: "default",
    grantTtlMs: 1_000,
  });
  if (again.kind === "granted")
    await backend.claimFromResumeGrant({
      ...worker,
      ...lease,
      leaseId: crypto.randomUUID(),
      grant: again.grant,
    });
  await backend.issueGrantAndClaim({
    executionId: await submit(),
    laneId: "default",
    leaseTtlMs: 1_000,
  });

  // Work that nobody here can take.
  const picky = await submit({
    policy: { routingRequirements: { requiredCapabilities: ["tpu"] } },
  });
  await backend.explainCapabilityMismatch({ executionId: picky });
  await backend.blockRoute({ executionId: picky, reasonDetail: "x" });
  await backend.unblockExecution({
    executionId: picky,
    expectedBlockingReason: "waiting_for_capable_worker",
  });
  await backend.blockExecutionForAdmission({
    executionId: await submit(),
    laneId: "default",
    reason: "waiting_for_quota",
  });

  // Leases and outcomes.
  const held = await take();
  await backend.renew({ handle: held.handle });
  await backend.renewLease({
    executionId: held.executionId,
    attemptIndex: held.attemptIndex,
    fence: fenceOf(held),
    leaseTtlMs: 1_000,
  });
  await backend.progress({ handle: held.handle, percent: 1 });
  await backend.complete({
    handle: held.handle,
    payload: Buffer.from("result"),
  });
  await backend.revokeLease({ executionId: (await take()).executionId });
  const retry = { policy: { retryPolicy: { maxRetries: 1 } } };
  await backend.fail({
    handle: (await take(retry)).handle,
    reason: { message: "x" },
    classification: "transient",
  });
  await backend.cancel({ handle: (await take()).handle, reason: "x" });
  await backend.completeMany({ items: [{ handle: (await take()).handle }] });
  await backend.completeAndClaim({
    items: [{ handle: (await take()).handle }],
    claim: { ...claimant, max: 2 },
  });
  const byFence = await take();
  await backend.completeExecution({
    executionId: byFence.executionId,
    fence: fenceOf(byFence),
  });
  const failing = await take();
  await backend.failExecution({
    executionId: failing.executionId,
    fence: fenceOf(failing),
    failureReason: "x",
    failureCategory: "permanent",
  });

  // Waiting for signals.
  await backend.seedWaitpointHmacSecret({
    kid: "k",
    secretHex: "00".repeat(32),
  });
  const count = {
    kind: "composite",
    body: {
      kind: "count",
      n: 2,
      countKind: "distinctSources",
      waitpoints: ["a"],
    },
  } as const;
  const suspension = (waitpointId: string, key: string) => ({
    suspensionId: crypto.randomUUID(),
    waitpoints: [{ kind: "usePending" as const, waitpointId }],
    resumeCondition: count,
    reasonCode: "waiting_for_approval" as const,
    timeoutAtMs: Date.now() + 50_000,
    idempotencyKey: key,
  });
  const suspend = async (key: string) => {
    const claimed = await take();
    const { waitpointId, hmacToken } = await backend.createWaitpoint({
      handle: claimed.handle,
      waitpointKey: "a",
      expiresInMs: 1_000,
    });
    const signal = {
      executionId: claimed.executionId,
      waitpointId,
      waitpointToken: hmacToken,
      signalId: crypto.randomUUID(),
      signalName: "go",
      idempotencyKey: "once",
    };
    await backend.deliverSignal(signal);
    await backend.suspend({
      handle: claimed.handle,
      ...suspension(waitpointId, key),
    });
    await backend.deliverSignal({
      ...signal,
      signalId: crypto.randomUUID(),
      idempotencyKey: "twice",
      sourceIdentity: "x",
    });
    await backend.observeSignals({ handle: claimed.handle });
    return { claimed, waitpointId };
  };
  await suspend("signalled");
  const parked = await take();
  const made = await backend.createWaitpoint({
    handle: parked.handle,
    waitpointKey: "a",
    expiresInMs: 1_000,
  });
  await backend.expirePendingWaitpoint({
    executionId: parked.executionId,
    waitpointId: made.waitpointId,
  });
  await backend.suspendByTriple({
    executionId: parked.executionId,
    fence: fenceOf(parked),
    ...suspension(made.waitpointId, "parked"),
  });
  await backend.deliverApprovalSignal({
    executionId: parked.executionId,
    waitpointId: made.waitpointId,
    signalName: "approved",
    idempotencySuffix: "x",
  });
  await backend.readWaitpointToken({
    executionId: parked.executionId,
    waitpointId: made.waitpointId,
  });
  await backend.listPendingWaitpoints({ executionId: parked.executionId });
  await backend.listSuspended({ limit: 1 });
  await backend.listSuspended({ partition: "{fp:7}" });
  await backend.expireSuspension({ executionId: parked.executionId });
  await backend.closeWaitpoint({
    operator: true,
    executionId: parked.executionId,
    waitpointId: made.waitpointId,
  });
  await backend.resumeExecution({ executionId: parked.executionId });
  await backend.rotateWaitpointHmacSecretAll({
    newKid: "k2",
    newSecretHex: "01".repeat(32),
    graceMs: 1,
  });
  await backend.listWaitpointHmacKids();

  // Reads.
  const done = held.executionId;
  await backend.describeExecution({ executionId: done });
  await backend.readExecutionContext({ executionId: done });
  await backend.readExecutionInfo({ executionId: done });
  await backend.readExecutionState({ executionId: done });
  await backend.getExecutionResult({ executionId: done });
  await backend.readCurrentAttemptIndex({ executionId: done });
  await backend.readTotalAttemptCount({ executionId: done });
  await backend.getExecutionNamespace({ executionId: done });
  await backend.listAttempts({ executionId: lost.executionId });
  await backend.listLanes({});
  await backend.listExecutions({ limit: 1 });
  await backend.listExecutions({
    namespace: "default",
    lanes: ["default"],
    partition: "{fp:7}",
    publicStates: ["waiting", "delayed", "completed"],
  });
  const match = {
    all: [{ key: "album", value: "cats" }],
    any: [{ key: "album", value: "cats" }],
  };
  await backend.searchByTags({ match, limit: 1 });
  await backend.searchByTags({
    match,
    namespace: "default",
    publicStates: ["waiting"],
    createdAfterMs: 1,
    createdBeforeMs: Date.now() + 1_000_000,
  });
  await backend.countByTags({ match });
  await backend.readEvents({ executionId: done });
  await backend.tailEvents({ executionId: done });
  for (const feed of [
    await backend.subscribeCompletion({ cursor: "AA" }),
    await backend.subscribeLeaseHistory({ cursor: "AA" }),
    await backend.subscribeSignalDelivery({ cursor: "AA" }),
    await backend.subscribeInstanceTags({ cursor: "AA" }),
    backend.watchWorker({ workerInstanceId: worker.workerInstanceId }),
  ]) {
    const events = feed[Symbol.asyncIterator]();
    const next = events.next();
    await backend.cancelExecution({
      executionId: (await take()).executionId,
      reason: "x",
    });
    await next;
    await events.return?.();
  }

  // What time brings about.
  await backend.promoteDelayed({ executionId: done });
  await backend.expireExecution({ executionId: done });
  await take({ policy: { timeoutPolicy: { attemptTimeoutMs: 100 } } });
  await take({ policy: { maxReclaimCount: 0 } });
  passTime(100_000_000);
  for (const name of INPUTS.sweep.shape.name.options)
    await backend.sweep({ name });
  await backend.trimRetention({ retentionMs: 0 });
  await backend.trimRetention({
    retentionMs: 0,
    laneId: "default",
    partition: "{fp:7}",
  });
  await backend.reconcileExecutionIndex({ partition: "{fp:7}" });
  await backend.listWorkers({});
  await backend.markWorkerDead({
    workerInstanceId: worker.workerInstanceId,
    namespace: "default",
    reason: "x",
    expireLeases: true,
  });
  await backend.deregisterWorker({
    workerInstanceId: worker.workerInstanceId,
    namespace: "default",
  });
  await backend.shutdownPrepare({ graceMs: 1_000 });
}
