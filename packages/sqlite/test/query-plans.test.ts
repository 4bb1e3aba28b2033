/**
 * How SQLite finds what is asked for. A query that misses its index is still right and a thousand times slower in a
 * large store, so the plan of each is part of what it promises.
 */
import { INPUTS, type EngineBackend } from "@flowfabric/core";
import SqliteDriver from "better-sqlite3";
import { expect, test, vi } from "vitest";

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
import { PURGEABLE } from "../src/procedures/purge.js";
import { NEWER_ROUTES } from "../src/procedures/routes.js";
import {
  FIND_KEY,
  INSERT_EXECUTION,
  INSERT_INPUT,
} from "../src/procedures/submit.js";
import { READ_PAYLOAD } from "../src/procedures/take.js";
import { ROWS_OF_HOME } from "../src/procedures/unblock.js";
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
];

test("every hot statement finds its rows by the index that is meant for it", async () => {
  const path = newPath();
  await (await open({ path })).close();
  const database = openRaw(path);

  const found = PLANS.map(([what, sql]) => [what, planOf(database, sql)]);

  expect(found).toEqual(PLANS.map(([what, , plan]) => [what, plan]));
});

/** Small by nature: one row per live process, one per lane, one per kind of work; and lists that a call brings along. */
const MAY_BE_SCANNED = /^SCAN (workers|lanes|routes|json_each|CONSTANT ROW)\b/;

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
