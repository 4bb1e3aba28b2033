import { inspect } from "node:util";

import {
  engineError,
  isEngineError,
  type ResumeCondition,
} from "@flowfabric/core";
import { expect, test } from "vitest";
import { z } from "zod";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import { signalBridge } from "../src/signal-bridge.js";
import { SignalToken } from "../src/signal-token.js";
import { when } from "../src/when.js";
import { Worker } from "../src/worker.js";
import {
  openStore,
  pause,
  recordingLogger,
  until,
  withFaults,
} from "./store.js";

const DAY_MS = 86_400_000;
const approval = when.signal("approval");

async function opened() {
  const store = await openStore();
  const faults = withFaults(store.backend);
  const logger = recordingLogger();
  const client = new Client({ backend: faults.backend });
  const conn = await connect({
    backend: faults.backend,
    maxConcurrentTasks: 2,
    leaseTtlMs: 1_000,
    logger,
  });
  return { ...store, faults, logger, client, conn };
}

/** With one claimed task. */
async function claimed() {
  const opening = await opened();
  const { executionId } = await opening.client.submit({ executionKind: "job" });
  const task = (await opening.conn.claimNext())!;
  opening.faults.clear();
  const stateOf = async () =>
    (await opening.client.inspect(executionId))?.publicState;
  const next = async () => (await opening.conn.claimNext())!;
  return { ...opening, executionId, task, stateOf, next };
}

function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "done",
    (error: { code: string }) => error.code,
  );
}

/** The same with another last digit. */
function otherEnd(text: string): string {
  return text.replace(/.$/, (digit) => (digit === "0" ? "1" : "0"));
}

test("a suspended task is consumed, its slot is free, and a signal lets the same attempt go on", async () => {
  const { client, conn, task, faults, stateOf, next } = await claimed();

  const { kind, details } = await task.suspend({ resumeCondition: approval });

  expect(kind).toBe("suspended");
  expect(details).toMatchObject({
    waitpointKey: "approval",
    additionalWaitpoints: [],
  });
  expect(task.state).toBe("consumed");
  expect(conn.freePermits).toBe(2);
  expect(await stateOf()).toBe("suspended");
  await expect(task.complete()).rejects.toMatchObject({
    code: "task_consumed",
    detail: { consumedBy: "suspend" },
  });
  expect(await conn.claimNext()).toBeUndefined();

  const answer = await client.signal(details.signalToken.reveal(), {
    name: "approved",
    payload: { by: "Ada" },
    sourceType: "user",
    sourceIdentity: "ada",
    correlationId: "mail-7",
  });

  expect(answer).toMatchObject({ kind: "triggeredResume" });
  const resumed = await next();
  faults.loseCalls("observeSignals", 2);
  expect(resumed).toMatchObject({
    handleKind: "resumed",
    attemptId: task.attemptId,
    attemptIndex: 0,
    leaseEpoch: 2,
  });
  const signals = await resumed.resumeSignals();
  expect(signals).toMatchObject([
    {
      signalId: (answer as { signalId: string }).signalId,
      signalName: "approved",
      sourceType: "user",
      sourceIdentity: "ada",
      correlationId: "mail-7",
    },
  ]);
  const By = z.object({ by: z.string().transform((name) => name.length) });
  expect(await signals[0]!.decode(By)).toEqual({ by: 3 });
  await expect(signals[0]!.decode(z.string())).rejects.toMatchObject({
    code: "payload_decode",
    detail: { at: "signal" },
  });
  // Reading uses nothing up.
  expect(await resumed.resumeSignals()).toHaveLength(1);
  await resumed.complete("ok");
  expect(await stateOf()).toBe("completed");
});

test("a worker returns from a handler that suspended, and runs it anew when it is resumed", async () => {
  const { client, backend, executionId, task, stateOf } = await claimed();
  await task.delay({ delayUntilMs: 1 });
  const worker = new Worker({ backend });
  const seen: (string | undefined)[] = [];
  let token: SignalToken | undefined;
  worker.handle("job", async (_input, running) => {
    const [signal] = await running.resumeSignals();
    seen.push(signal?.signalName);
    if (signal !== undefined) return { decided: signal.signalName };
    const { details } = await running.suspend({ resumeCondition: approval });
    token = details.signalToken;
    return "nobody sees this";
  });
  const run = worker.run({ stopOn: [] });
  await until(() => worker.stats().freePermits === 1 && token !== undefined);
  expect(worker.stats()).toMatchObject({ completed: 0, failed: 0, running: 0 });
  expect(await stateOf()).toBe("suspended");

  await client.signal(token!, { name: "rejected" });
  const end = await client.result({ executionId, timeoutMs: 10_000 });

  expect(end.kind === "completed" && new TextDecoder().decode(end.output)).toBe(
    '{"decided":"rejected"}',
  );
  expect(seen).toEqual([undefined, "rejected"]);
  await worker.stop();
  expect(await run).toMatchObject({ completed: 1, failed: 0 });
});

test("what is suspended holds no slot, whatever its handler does afterwards", async () => {
  const { backend } = await openStore();
  const logger = recordingLogger();
  await using client = new Client({ backend });
  const worker = new Worker({ backend, logger });
  const tokens: SignalToken[] = [];
  worker.handle("job", async (_input, running) => {
    if ((await running.resumeSignals()).length > 0) return "done";
    const { details } = await running.suspend({ resumeCondition: approval });
    tokens.push(details.signalToken);
    throw new Error("too late to matter");
  });
  const run = worker.run({ stopOn: [] });
  const { length: count } = await client.submitMany({
    items: Array.from({ length: 20 }, () => ({ executionKind: "job" })),
  });
  await until(() => tokens.length === count);
  const { entries } = await client.admin.listSuspended({});
  expect(entries).toHaveLength(count);

  await Promise.all(tokens.map((token) => client.signal(token, { name: "x" })));
  await until(() => worker.stats().completed === count);

  expect(worker.stats()).toMatchObject({ failed: 0, lost: 0 });
  expect(new Set(logger.warnings())).toEqual(
    new Set(["handler failed after it had ended its task"]),
  );
  await worker.stop();
  await run;
});

test("a resumed execution wakes a parked worker", async () => {
  const { client, conn, task } = await claimed();
  const { details } = await task.suspend({ resumeCondition: approval });
  const parked = conn.claimNext({ maxWaitMs: 20_000 });
  await pause(50);

  const startedAt = performance.now();
  await client.signal(details.signalToken, { name: "go" });

  expect(await parked).toMatchObject({ handleKind: "resumed" });
  expect(performance.now() - startedAt).toBeLessThan(900);
});

test("each distinct key has a waitpoint and a token of its own, and all must arrive", async () => {
  const { client, task, next, stateOf } = await claimed();
  const condition = when.all(
    when.signal("b", "go"),
    when.all(when.signal("a"), when.signal("b")),
    when.count({ n: 2, countKind: "distinctSignals", waitpoints: ["c", "a"] }),
  );

  const { details } = await task.suspend({ resumeCondition: condition });

  const all = [details, ...details.additionalWaitpoints];
  expect(all.map(({ waitpointKey }) => waitpointKey)).toEqual(["b", "a", "c"]);
  expect(new Set(all.map(({ signalToken }) => signalToken.reveal())).size).toBe(
    3,
  );
  const send = (index: number, name: string) =>
    client.signal(all[index]!.signalToken, { name });
  expect(await send(0, "stop")).toMatchObject({
    kind: "accepted",
    effect: "appended_to_waitpoint",
  });
  expect(await send(1, "x")).toMatchObject({ kind: "accepted" });
  expect(await send(2, "x")).toMatchObject({ kind: "accepted" });
  expect(await stateOf()).toBe("suspended");
  expect(await send(0, "go")).toMatchObject({ kind: "triggeredResume" });
  expect(await (await next()).resumeSignals()).toHaveLength(4);
});

test("without a key in the condition there is one waitpoint, named by its id", async () => {
  const { client, task, executionId, next, logger } = await claimed();

  const { details } = await task.suspend({ resumeCondition: when.operator() });

  expect(details.waitpointKey).toBe(`wpk:${details.waitpointId}`);
  expect(await client.signal(details.signalToken, { name: "x" })).toMatchObject(
    { kind: "accepted", effect: "no_op" },
  );
  await client.admin.resumeExecution({ executionId });
  const resumed = await next();
  expect(await resumed.resumeSignals()).toEqual([]);
  expect(logger.warnings()).toEqual([]);
  await resumed.suspend({
    resumeCondition: when.all(approval, when.deadline()),
    timeoutAtMs: Date.now() + DAY_MS,
  });
  expect(logger.warnings()).toEqual([
    "suspended on a condition that no signals satisfy; an operator or its timeout ends it",
  ]);
});

const faulty: readonly (readonly [ResumeCondition, string])[] = [
  [when.all(), "allof_empty_members at path <root>"],
  [
    when.count({ n: 0, countKind: "distinctSignals", waitpoints: ["a"] }),
    "count_n_zero",
  ],
  [
    when.count({ n: 1, countKind: "distinctSignals", waitpoints: [] }),
    "count_waitpoints_empty",
  ],
  [
    when.count({ n: 2, countKind: "distinctSignals", waitpoints: ["a", "a"] }),
    "count_waitpoints_duplicate",
  ],
  [
    when.count({ n: 2, countKind: "distinctWaitpoints", waitpoints: ["a"] }),
    "count_exceeds_waitpoint_set",
  ],
  [
    when.all(when.all(when.all(when.all(when.all(approval))))),
    "condition_depth_exceeded",
  ],
  [
    when.allOfWaitpoints(Array.from({ length: 65 }, (_one, n) => `k${n}`)),
    "condition_size_exceeded",
  ],
  [when.signal("a", ""), "resume_condition: empty signal name"],
  [when.signal("a", "__x"), "reserved_signal_name"],
];

test.each(faulty)(
  "a faulty condition is refused: %#",
  async (resumeCondition, reason) => {
    const { task, faults, stateOf } = await claimed();

    await expect(task.suspend({ resumeCondition })).rejects.toMatchObject({
      code: "invalid_input",
      detail: { reason: expect.stringContaining(reason) as unknown },
    });

    expect(task.state).toBe("active");
    expect(await stateOf()).toBe("active");
    expect(faults.callsOf("suspend").length).toBeLessThanOrEqual(1);
    await task.complete();
  },
);

test("a timeout that cannot be is refused, and the task goes on", async () => {
  const { task } = await claimed();
  await expect(
    task.suspend({ resumeCondition: when.deadline() }),
  ).rejects.toMatchObject({
    detail: {
      reason: expect.stringContaining("timeout_only_without") as unknown,
    },
  });
  await expect(
    task.suspend({ resumeCondition: approval, timeoutAtMs: 1 }),
  ).rejects.toMatchObject({
    detail: {
      reason: expect.stringContaining("timeout_at_in_past") as unknown,
    },
  });
  await task.complete();
  expect(task.state).toBe("consumed");
});

test("what a pending waitpoint was sent before counts, and the lease is kept", async () => {
  const { client, conn, task, stateOf } = await claimed();
  const pending = await task.createPendingWaitpoint({
    waitpointKey: "paid",
    expiresInMs: DAY_MS,
  });
  expect(
    await client.signal(pending.signalToken, { name: "x", payload: 7 }),
  ).toMatchObject({
    kind: "accepted",
    effect: "buffered_for_pending_waitpoint",
  });

  const answer = await task.trySuspendOnPending({
    pending,
    resumeCondition: when.signal("paid"),
  });

  expect(answer).toMatchObject({
    kind: "alreadySatisfied",
    details: { waitpointId: pending.waitpointId, waitpointKey: "paid" },
  });
  if (answer.kind !== "alreadySatisfied") return;
  expect(answer.task).toBe(task);
  expect(task.state).toBe("active");
  expect(conn.freePermits).toBe(1);
  const [signal] = await task.resumeSignals();
  expect(await signal!.decode(z.number())).toBe(7);
  // Renewal goes on: well beyond the lease it is still ours.
  await pause(1_300);
  expect(task.isLeaseHealthy).toBe(true);
  await task.complete();
  expect(await stateOf()).toBe("completed");
});

test("a strict suspend on what is satisfied throws, and the task is as before", async () => {
  const { client, task } = await claimed();
  const pending = await task.createPendingWaitpoint({
    waitpointKey: "paid",
    expiresInMs: DAY_MS,
  });
  await client.signal(pending.signalToken, { name: "x" });
  const resumeCondition = when.signal("paid");
  const idempotencyKey = "once";
  await task.trySuspendOnPending({ pending, resumeCondition, idempotencyKey });

  // The same key under the same lease: the first outcome again.
  await expect(
    task.suspend({ resumeCondition, idempotencyKey }),
  ).rejects.toMatchObject({
    code: "already_satisfied",
    detail: { waitpointId: pending.waitpointId },
  });

  expect(task.state).toBe("active");
  await task.renew();
  await task.complete();
});

test("refusals about a pending waitpoint leave the task usable", async () => {
  const { task, passTime, client } = await claimed();
  const resumeCondition = when.signal("paid");
  const pending = await task.createPendingWaitpoint({
    waitpointKey: "other",
    expiresInMs: 500,
  });
  const unknown = { waitpointId: otherEnd(pending.waitpointId) };
  const codes = [
    await codeOf(
      task.trySuspendOnPending({
        pending: unknown as typeof pending,
        resumeCondition,
      }),
    ),
    await codeOf(task.trySuspendOnPending({ pending, resumeCondition })),
  ];
  passTime(600);
  codes.push(
    await codeOf(client.signal(pending.signalToken, { name: "x" })),
    await codeOf(task.trySuspendOnPending({ pending, resumeCondition })),
  );
  expect(codes).toEqual([
    "waitpoint_not_found",
    "invalid_input",
    "waitpoint_closed",
    "pending_waitpoint_expired",
  ]);
  expect(task.state).toBe("active");
  await task.complete();
});

test("a lost reply of a suspend is asked for again and is the first outcome", async () => {
  const { client, task, faults, stateOf, logger } = await claimed();
  faults.loseReplies("suspend", 2);

  const { details } = await task.suspend({ resumeCondition: approval });

  const sent = faults.callsOf("suspend") as { idempotencyKey: string }[];
  expect(sent).toHaveLength(3);
  expect(new Set(sent.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(
    1,
  );
  expect(await stateOf()).toBe("suspended");
  expect(await client.signal(details.signalToken, { name: "x" })).toMatchObject(
    { kind: "triggeredResume" },
  );
  expect(logger.warnings()).toEqual([]);
});

test("renewal goes on until a suspend is confirmed, and a second call finds the first", async () => {
  const { task, faults, conn } = await claimed();
  faults.loseCalls("suspend", 3);
  await expect(
    task.suspend({ resumeCondition: approval }),
  ).rejects.toMatchObject({ cause: { code: "transport" } });
  expect(task.state).toBe("active");
  await pause(1_300);
  expect(task.isLeaseHealthy).toBe(true);
  expect(conn.freePermits).toBe(1);

  // Now it arrives, and nobody hears of it; the lease ends with it.
  faults.loseReplies("suspend", 3);
  await codeOf(task.suspend({ resumeCondition: approval }));
  await pause(600);
  expect(task.signal.aborted).toBe(false);
  const { details } = await task.suspend({ resumeCondition: approval });

  const ids = faults
    .callsOf("suspend")
    .map((input) => (input as { suspensionId: string }).suspensionId);
  expect(new Set(ids)).toEqual(new Set([details.suspensionId]));
  expect(task.state).toBe("consumed");
});

test("a task that has lost its lease cannot suspend", async () => {
  const { client, task, executionId } = await claimed();
  await client.admin.revokeLease({ executionId });

  expect(await codeOf(task.suspend({ resumeCondition: approval }))).toMatch(
    /^(lease_lost|execution_not_active|lease_revoked)$/,
  );
  await until(() => task.signal.aborted);
  expect(await codeOf(task.suspend({ resumeCondition: approval }))).toMatch(
    /^(lease_lost|task_consumed)$/,
  );
});

test("a pending waitpoint whose reply was lost is made once", async () => {
  const { client, task, faults, executionId } = await claimed();
  faults.loseReplies("createWaitpoint");

  const pending = await task.createPendingWaitpoint({
    waitpointKey: "k",
    expiresInMs: DAY_MS,
  });

  const { entries } = await client.admin.listPendingWaitpoints({ executionId });
  expect(entries.map(({ waitpointId }) => waitpointId)).toEqual([
    pending.waitpointId,
  ]);
  expect(await client.signal(pending.signalToken, { name: "x" })).toMatchObject(
    { kind: "accepted" },
  );
});

test("a signal whose reply was lost is delivered once; keys and ids find the first", async () => {
  const { client, task, faults, next } = await claimed();
  const { details } = await task.suspend({
    resumeCondition: when.count({
      n: 3,
      countKind: "distinctSignals",
      waitpoints: ["a"],
    }),
  });
  const { signalToken } = details;
  faults.loseReplies("deliverSignal", 2);
  const first = await client.signal(signalToken, { name: "lost" });
  expect(first).toEqual({
    kind: "accepted",
    signalId: expect.any(String) as unknown,
  });
  const keyed = { name: "n", payload: 1, idempotencyKey: "k" };
  const second = await client.signal(signalToken, keyed);
  expect(second).toMatchObject({ effect: "appended_to_waitpoint" });
  const { signalId } = second as { signalId: string };
  expect(await client.signal(signalToken, { ...keyed, payload: 2 })).toEqual({
    kind: "duplicate",
    existingSignalId: signalId,
  });
  expect(await client.signal(signalToken, { name: "last" })).toMatchObject({
    kind: "triggeredResume",
  });
  const signals = await (await next()).resumeSignals();
  expect(signals.map(({ signalName }) => signalName)).toEqual([
    "lost",
    "n",
    "last",
  ]);
  // The payload of the first stays.
  expect(await signals[1]!.decode(z.number())).toBe(1);
});

test("distinct sources are pairs; the same one counts once", async () => {
  const { client, task } = await claimed();
  const { details } = await task.suspend({
    resumeCondition: when.count({
      n: 2,
      countKind: "distinctSources",
      waitpoints: ["vote"],
      name: "yes",
    }),
  });
  const vote = async (
    name: string,
    sourceType: string,
    sourceIdentity: string,
  ) => {
    const answer = await client.signal(details.signalToken, {
      name,
      sourceType,
      sourceIdentity,
    });
    return answer.kind === "accepted" ? answer.effect : answer.kind;
  };
  expect(await vote("yes", "user", "ada")).toBe("appended_to_waitpoint");
  expect(await vote("yes", "user", "ada")).toBe(
    "appended_to_waitpoint_duplicate",
  );
  expect(await vote("no", "user", "bob")).toBe("signal_ignored_matcher_failed");
  expect(await vote("yes", "usera", "da")).toBe("triggeredResume");
});

const timeouts = [
  [undefined, "failed"],
  ["fail", "failed"],
  ["cancel", "cancelled"],
  ["expire", "expired"],
  ["escalate", "suspended"],
  ["autoResume", "waiting"],
  ["autoResumeWithTimeoutSignal", "waiting"],
] as const;

test.each(timeouts)(
  "timeout behaviour %s ends as %s",
  async (timeoutBehavior, state) => {
    const { client, task, conn, executionId, passTime, stateOf, backend } =
      await claimed();
    const { details } = await task.suspend({
      resumeCondition: when.all(approval, when.signal("second")),
      timeoutAtMs: (await backend.serverTimeMs()) + 60_000,
      timeoutBehavior,
    });
    await client.signal(details.signalToken, { name: "half" });
    passTime(60_001);
    await backend.expireSuspension({ executionId });

    expect(await stateOf()).toBe(state);
    if (state !== "waiting") return;
    const signals = await (await conn.claimNext())!.resumeSignals();
    expect(signals.map(({ signalName }) => signalName)).toEqual(
      timeoutBehavior === "autoResume" ? [] : ["half", "timeout"],
    );
  },
);

test("a later attempt sees none of an earlier one's signals", async () => {
  const opening = await opened();
  const { client, conn } = opening;
  await client.submit({
    executionKind: "job",
    policy: {
      retryPolicy: { maxRetries: 1, backoff: { type: "fixed", delayMs: 0 } },
    },
  });
  const first = (await conn.claimNext())!;
  expect(await first.resumeSignals()).toEqual([]);
  const { details } = await first.suspend({ resumeCondition: approval });
  await client.signal(details.signalToken, { name: "x" });
  const resumed = (await conn.claimNext())!;
  expect(await resumed.resumeSignals()).toHaveLength(1);
  await resumed.fail({ reason: "again" });
  const retried = (await conn.claimNext())!;
  expect(retried.attemptIndex).toBe(1);
  expect(await retried.resumeSignals()).toEqual([]);
});

test("a portable token carries its target, fits a URL, and does not show itself", async () => {
  const { client, task, executionId } = await claimed();
  const { details } = await task.suspend({ resumeCondition: approval });
  const { signalToken, waitpointToken, waitpointId } = details;
  const text = signalToken.reveal();

  expect(text).toMatch(/^ffsig1_[A-Za-z0-9_-]+$/);
  expect(text.length).toBeLessThan(110);
  expect(SignalToken.parse(text)).toMatchObject({ executionId, waitpointId });
  expect(SignalToken.parse(text).waitpointToken.reveal()).toBe(
    waitpointToken.reveal(),
  );
  const secret = waitpointToken.reveal().split(":")[1]!;
  for (const shown of [
    String(signalToken),
    JSON.stringify({ details }),
    inspect(details, { depth: 9 }),
    inspect(signalToken, { showHidden: true }),
  ]) {
    expect(shown).toContain("<REDACTED:len=64>");
    expect(shown).not.toContain(secret);
    expect(shown).not.toContain(text);
  }
  // Given out again, by whoever may read it.
  const again = await client.signalToken({ executionId, waitpointId });
  expect(again?.reveal()).toBe(text);
});

test("what is no token is refused in one way, without I/O", async () => {
  const { client, task, faults } = await claimed();
  const { details } = await task.suspend({ resumeCondition: approval });
  const text = details.signalToken.reveal();
  faults.clear();

  const malformed = [
    "x",
    "ffsig1_",
    text.slice(0, -20).slice(0, 80),
    `${text} `,
    `${text}=`,
    `${text.slice(0, 20)}+${text.slice(21)}`,
    text.slice(1),
    details.waitpointToken.reveal(),
    text.replace("ffsig1_", "ffsig2_"),
  ];
  for (const wrong of malformed)
    await expect(client.signal(wrong, { name: "x" })).rejects.toEqual(
      engineError("invalid_token", {}),
    );
  await expect(client.signal("", { name: "x" })).rejects.toMatchObject({
    code: "missing_token",
  });
  expect(faults.callsOf("deliverSignal")).toEqual([]);
});

test("tampered, foreign and unknown are the same refusal; rotated out is told", async () => {
  const { client, conn, task, executionId, passTime, stateOf } =
    await claimed();
  const { details } = await task.suspend({ resumeCondition: approval });
  const other = await client.submit({ executionKind: "job" });
  const foreign = await (await conn.claimNext())!.suspend({
    resumeCondition: approval,
  });
  const refused = async (target: object) =>
    await client
      .signal({ ...details, executionId, ...target }, { name: "x" })
      .catch((error: unknown) => error);

  const refusals = [
    await refused({ waitpointToken: foreign.details.waitpointToken }),
    await refused({ waitpointId: foreign.details.waitpointId }),
    await refused({ executionId: other.executionId }),
    await refused({ executionId: otherEnd(executionId) }),
    await refused({
      waitpointToken: otherEnd(details.waitpointToken.reveal()),
    }),
  ];
  for (const refusal of refusals)
    expect(isEngineError(refusal, "invalid_token")).toBe(true);
  expect(new Set(refusals.map(String)).size).toBe(1);
  expect(await stateOf()).toBe("suspended");

  await client.admin.rotateWaitpointHmacSecretAll({
    newKid: "k2",
    newSecretHex: "ab".repeat(32),
    graceMs: 1_000,
  });
  passTime(1_001);
  expect(await codeOf(client.signal(details.signalToken, { name: "x" }))).toBe(
    "token_expired",
  );
});

test("a token does for every namespace", async () => {
  const { backend } = await opened();
  await using tenant = new Client({ backend, namespace: "tenant-a" });
  await tenant.submit({ executionKind: "job" });
  await using conn = await connect({ backend, namespace: "tenant-a" });
  const task = (await conn.claimNext())!;
  const { details } = await task.suspend({ resumeCondition: approval });

  await using webhook = new Client({ backend });
  expect(
    await webhook.signal(details.signalToken.reveal(), { name: "x" }),
  ).toMatchObject({ kind: "triggeredResume" });
});

test("an operator approves without a token", async () => {
  const { client, task, executionId, next } = await claimed();
  const { details } = await task.suspend({
    resumeCondition: when.signal("approval", "approved"),
  });
  const { entries } = await client.admin.listSuspended({});
  expect(entries.map((entry) => entry.executionId)).toEqual([executionId]);
  await client.admin.deliverApprovalSignal({
    executionId,
    waitpointId: details.waitpointId,
    signalName: "approved",
    idempotencySuffix: "ada",
  });
  expect(await (await next()).resumeSignals()).toMatchObject([
    {
      signalName: "approved",
      signalCategory: "approval",
      sourceType: "operator",
    },
  ]);
});

test("a bridge turns requests into signals and tells no more than it must", async () => {
  const { client, faults, task, next } = await claimed();
  const { details } = await task.suspend({
    resumeCondition: when.count({
      n: 2,
      countKind: "distinctSignals",
      waitpoints: ["a"],
    }),
  });
  const token = details.signalToken.reveal();
  const bridge = signalBridge(client);
  const post = (path: string, body?: string | Uint8Array, key?: string) =>
    bridge(
      new Request(`http://localhost/callback/${path}`, {
        method: "POST",
        ...(body === undefined ? {} : { body: body }),
        ...(key === undefined ? {} : { headers: { "idempotency-key": key } }),
      }),
    );
  const told = async (response: Response) => [
    response.status,
    await response.json(),
  ];

  expect(await told(await post(`${token}?name=paid`, '{"n":1}', "k"))).toEqual([
    200,
    { kind: "accepted" },
  ]);
  expect(await told(await post(token, "", "k"))).toEqual([
    200,
    { kind: "duplicate" },
  ]);
  const unknown = SignalToken.of({
    waitpointToken: details.waitpointToken,
    executionId: "{fp:3}:00000000-0000-4000-8000-000000000000",
    waitpointId: details.waitpointId,
  }).reveal();
  for (const wrong of ["", "x", unknown, token.slice(0, -1)])
    expect(await told(await post(wrong))).toEqual([
      401,
      { error: "unauthorized" },
    ]);
  faults.refuse(
    "deliverSignal",
    engineError("unavailable", { op: "deliverSignal" }),
  );
  await expect(post(token)).rejects.toMatchObject({ code: "unavailable" });
  for (const tooMuch of [1_048_577, 16 * 1_048_576 + 1])
    expect((await post(token, new Uint8Array(tooMuch))).status).toBe(413);
  expect((await post(`${token}?name=__x`)).status).toBe(400);

  const bytes = Uint8Array.from([0, 255, 1]);
  const header = await bridge(
    new Request("http://localhost/hook", {
      method: "POST",
      headers: { authorization: `Bearer ${token}` },
      body: bytes,
    }),
  );
  expect(header.status).toBe(200);
  expect(await told(await post(token))).toEqual([
    409,
    { error: "waitpoint_closed" },
  ]);
  const signals = await (await next()).resumeSignals();
  expect(signals.map(({ signalName }) => signalName)).toEqual([
    "paid",
    "callback",
  ]);
  expect([...signals[1]!.payload!]).toEqual([...bytes]);
});
