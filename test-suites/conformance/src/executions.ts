import {
  executionIdForLane,
  parseExecutionId,
  type CreateExecutionInput,
} from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import { eventTypes, expectRefused } from "./assertions.js";
import {
  bytes,
  HOUR_MS,
  submitted,
  taken,
  textOf,
  UNKNOWN_ID,
  uuid,
} from "./builders.js";
import { batchSubmissionConformance } from "./executions-batches.js";
import { duplicatesConformance } from "./executions-duplicates.js";
import { holdsConformance } from "./executions-holds.js";
import { replaysConformance } from "./executions-replays.js";
import { steeringConformance } from "./executions-steering.js";
import { transactionsConformance } from "./executions-transactions.js";
import { group, type Group } from "./harness.js";
import { reproducible, scaled } from "./settings.js";

const submission = group("submitting executions", (test) => {
  test("a submission waits in its lane with everything it named", async ({
    backend,
  }) => {
    const before = await backend.serverTimeMs();
    const answer = await backend.createExecution({
      namespace: "shop",
      laneId: "mail",
      executionKind: "send",
      inputPayload: bytes("hello"),
      priority: 7,
      creatorIdentity: "web-1",
      tags: { "order.id": "42", customer: "ada" },
      policy: {
        routingRequirements: { requiredCapabilities: ["smtp", "eu", "smtp"] },
      },
    });
    const after = await backend.serverTimeMs();

    expect(answer).toMatchObject({ kind: "created", publicState: "waiting" });
    const { executionId } = answer;
    const snapshot = await backend.describeExecution({ executionId });
    expect(snapshot).toMatchObject({
      executionId,
      namespace: "shop",
      laneId: "mail",
      executionKind: "send",
      priority: 7,
      creatorIdentity: "web-1",
      publicState: "waiting",
      stateVector: {
        lifecyclePhase: "runnable",
        ownershipState: "unowned",
        eligibilityState: "eligible_now",
        blockingReason: "waiting_for_worker",
        terminalOutcome: "none",
        attemptState: "pending_first_attempt",
      },
      leaseEpoch: 0,
      totalAttemptCount: 0,
      retryCount: 0,
      leaseReclaimCount: 0,
      leaseReclaimTotal: 0,
      replayCount: 0,
      requiredCapabilities: ["eu", "smtp"],
      operatorHold: false,
      tags: { customer: "ada", "order.id": "42" },
    });
    expect(snapshot?.createdAtMs).toBeGreaterThanOrEqual(before);
    expect(snapshot?.createdAtMs).toBeLessThanOrEqual(after);
    for (const unset of [
      "currentAttempt",
      "currentLease",
      "startedAtMs",
      "completedAtMs",
      "delayUntilMs",
      "executionDeadlineAtMs",
      "progress",
      "failureReason",
      "flowId",
    ])
      expect(snapshot).not.toHaveProperty(unset);
    expect(await eventTypes(backend, executionId)).toEqual(["created"]);
    const { inputPayload, ...context } = await backend.readExecutionContext({
      executionId,
    });
    expect(textOf(inputPayload)).toBe("hello");
    expect(context).toEqual({
      executionKind: "send",
      tags: { customer: "ada", "order.id": "42" },
    });
  });

  test("what is not named has its default", async ({ backend }) => {
    const { executionId } = await backend.createExecution({
      executionKind: "k",
    });
    expect(await backend.describeExecution({ executionId })).toMatchObject({
      namespace: "default",
      laneId: "default",
      priority: 0,
      requiredCapabilities: [],
      tags: {},
    });
    const context = await backend.readExecutionContext({ executionId });
    expect(textOf(context.inputPayload)).toBe("");
  });

  test("an id is minted on the partition of its lane, unless one is given", async ({
    backend,
  }) => {
    const minted = [];
    for (let n = 0; n < 3; n++)
      minted.push((await submitted(backend, { laneId: "same" })).executionId);
    const partitions = minted.map((id) => parseExecutionId(id)?.partition);
    expect(new Set(partitions).size).toBe(1);
    expect(new Set(minted).size).toBe(3);

    // Whoever mints an id by the store's own partitioning gets the same place.
    const { partition } = parseExecutionId(
      executionIdForLane("same", { partitions: backend.partitions }),
    )!;
    expect(partitions[0]).toBe(partition);

    const given = `{fp:3}:${uuid()}`;
    expect(await submitted(backend, { executionId: given })).toMatchObject({
      executionId: given,
    });
  });

  test("a future delay delays, a past one is ignored, the argument wins over the policy", async ({
    backend,
  }) => {
    const now = await backend.serverTimeMs();
    const stateOf = async (input: Partial<CreateExecutionInput>) => {
      const { executionId } = await submitted(backend, input);
      const { publicState, delayUntilMs, blockingReason } =
        (await backend.describeExecution({ executionId }))!;
      return { publicState, delayUntilMs, blockingReason };
    };
    const delayed = (delayUntilMs: number) => ({
      publicState: "delayed",
      delayUntilMs,
      blockingReason: "waiting_for_delay",
    });

    expect(await stateOf({ delayUntilMs: now + HOUR_MS })).toEqual(
      delayed(now + HOUR_MS),
    );
    expect(await stateOf({ policy: { delayUntilMs: now + HOUR_MS } })).toEqual(
      delayed(now + HOUR_MS),
    );
    expect(
      await stateOf({
        delayUntilMs: now + 2 * HOUR_MS,
        policy: { delayUntilMs: now + HOUR_MS },
      }),
    ).toEqual(delayed(now + 2 * HOUR_MS));
    expect(await stateOf({ delayUntilMs: now - 1 })).toMatchObject({
      publicState: "waiting",
    });
  });

  test("priorities are clamped to 0…9000, the argument wins over the policy", async ({
    backend,
  }) => {
    const priorityOf = async (input: Partial<CreateExecutionInput>) => {
      const { executionId } = await submitted(backend, input);
      return (await backend.describeExecution({ executionId }))?.priority;
    };
    expect(await priorityOf({ priority: -5 })).toBe(0);
    expect(await priorityOf({ priority: 99_999 })).toBe(9_000);
    expect(await priorityOf({ policy: { priority: 12 } })).toBe(12);
    expect(await priorityOf({ policy: { priority: 9_001 } })).toBe(9_000);
    expect(await priorityOf({ priority: 3, policy: { priority: 12 } })).toBe(3);
  });

  test("a deadline comes from the argument, else from the policy counted from creation", async ({
    backend,
  }) => {
    const policy = { timeoutPolicy: { executionDeadlineMs: HOUR_MS } };
    const relative = await submitted(backend, { policy });
    const snapshot = await backend.describeExecution(relative);
    expect(snapshot?.executionDeadlineAtMs).toBe(
      snapshot!.createdAtMs + HOUR_MS,
    );
    const at = (await backend.serverTimeMs()) + 5 * HOUR_MS;
    const absolute = await submitted(backend, {
      policy,
      executionDeadlineAtMs: at,
    });
    expect(await backend.describeExecution(absolute)).toMatchObject({
      executionDeadlineAtMs: at,
    });
  });

  test("a policy of the wrong shape is refused by name and nothing is written", async ({
    backend,
  }) => {
    const requiring = (requiredCapabilities: unknown) => ({
      routingRequirements: { requiredCapabilities },
    });
    const tokens = (count: number) =>
      Array.from({ length: count }, (_unused, n) => `t${n}`);
    const cases: [unknown, string, string][] = [
      [[], "invalid_policy_json", "malformed"],
      [7, "invalid_policy_json", "malformed"],
      [null, "invalid_policy_json", "malformed"],
      [
        { routingRequirements: null },
        "invalid_policy_json",
        "routing_requirements:not_object",
      ],
      [
        { routingRequirements: ["gpu"] },
        "invalid_policy_json",
        "routing_requirements:not_object",
      ],
      [requiring(null), "invalid_capabilities", "required:not_array"],
      [requiring({ gpu: true }), "invalid_capabilities", "required:not_array"],
      [requiring([1]), "invalid_capabilities", "required:non_string_token"],
      [requiring([""]), "invalid_capabilities", "required:empty_token"],
      [requiring(["a,b"]), "invalid_capabilities", "required:comma_in_token"],
      [
        requiring(["a b"]),
        "invalid_capabilities",
        "required:control_or_whitespace",
      ],
      [
        requiring(["a\u007f"]),
        "invalid_capabilities",
        "required:control_or_whitespace",
      ],
      [
        requiring(tokens(257)),
        "invalid_capabilities",
        "required:too_many_tokens",
      ],
      [
        requiring(["x".repeat(4_097)]),
        "invalid_capabilities",
        "required:too_many_bytes",
      ],
      [
        { retryPolicy: { maxRetries: -1 } },
        "invalid_policy_json",
        "retryPolicy.maxRetries",
      ],
      [
        { timeoutPolicy: { attemptTimeoutMs: 0 } },
        "invalid_policy_json",
        "timeoutPolicy.attemptTimeoutMs",
      ],
      [{ maxReplayCount: 1.5 }, "invalid_policy_json", "maxReplayCount"],
      [{ retries: 3 }, "invalid_policy_json", ""],
    ];
    for (const [policy, code, reason] of cases) {
      const executionId = `{fp:1}:${uuid()}`;
      await expectRefused(
        backend.createExecution({
          executionId,
          executionKind: "k",
          policy: policy as never,
        }),
        code as "invalid_policy_json",
        { reason: expect.stringContaining(reason) },
      );
      expect(
        await backend.describeExecution({ executionId }),
        JSON.stringify(policy),
      ).toBeUndefined();
    }
  });

  test("256 required tokens and 4096 bytes of them pass, as do tokens beyond ASCII", async ({
    backend,
  }) => {
    const many = Array.from({ length: 256 }, (_unused, n) => `t${n}`);
    const long = ["x".repeat(2_047), "y".repeat(2_048)];
    for (const required of [many, long, ["größe", "模型"]]) {
      const { executionId } = await submitted(backend, {
        policy: { routingRequirements: { requiredCapabilities: required } },
      });
      const snapshot = await backend.describeExecution({ executionId });
      expect(new Set(snapshot?.requiredCapabilities)).toEqual(
        new Set(required),
      );
    }
  });

  test("arguments out of bounds are refused and nothing is written", async ({
    backend,
  }) => {
    const tags = Object.fromEntries(
      Array.from({ length: 33 }, (_unused, n) => [`t${n}`, "v"]),
    );
    const cases: [Record<string, unknown>, string][] = [
      [{ laneId: "" }, "invalid_input"],
      [{ laneId: "x".repeat(65) }, "invalid_input"],
      [{ laneId: "größe" }, "invalid_input"],
      [{ executionKind: "" }, "invalid_input"],
      [{ executionKind: undefined }, "invalid_input"],
      [{ namespace: "two words" }, "invalid_input"],
      [{ priority: 1.5 }, "invalid_input"],
      [{ priority: "high" }, "invalid_input"],
      [{ delayUntilMs: -1 }, "invalid_input"],
      [{ delayUntilMs: Number.NaN }, "invalid_input"],
      [{ executionDeadlineAtMs: 0.5 }, "invalid_input"],
      [{ inputPayload: "text" }, "invalid_input"],
      [{ idempotencyKey: "x".repeat(257) }, "invalid_input"],
      [{ executionId: uuid() }, "invalid_input"],
      [{ executionId: `{fp:256}:${uuid()}` }, "invalid_input"],
      [{ tags: { Upper: "v" } }, "invalid_tag_key"],
      [{ tags: { "ff.mine": "v" } }, "invalid_tag_key"],
      [{ tags: { ["k".repeat(129)]: "v" } }, "invalid_tag_key"],
      [{ tags: { k: "v".repeat(257) } }, "invalid_input"],
      [{ tags }, "invalid_input"],
    ];
    for (const [change, code] of cases) {
      const call = backend.createExecution({ executionKind: "k", ...change });
      await expectRefused(call, code as "invalid_input");
    }
    expect(await backend.listExecutions({})).toEqual({ executions: [] });
    expect((await backend.listLanes({})).lanes).not.toContain("größe");
  });

  test("a payload may be as large as the limit and not a byte more", async ({
    backend,
  }) => {
    const limit = 1_048_576;
    const { executionId } = await submitted(backend, {
      inputPayload: new Uint8Array(limit).fill(7),
    });
    const context = await backend.readExecutionContext({ executionId });
    expect(context.inputPayload).toHaveLength(limit);
    await expectRefused(
      submitted(backend, { inputPayload: new Uint8Array(limit + 1) }),
      "payload_too_large",
      { maxBytes: limit, actualBytes: limit + 1 },
    );
  });

  test(
    "a store can be opened with another payload limit",
    { open: { maxPayloadBytes: 10 } },
    async ({ backend }) => {
      await submitted(backend, { inputPayload: new Uint8Array(10) });
      await expectRefused(
        submitted(backend, { inputPayload: new Uint8Array(11) }),
        "payload_too_large",
        { maxBytes: 10, actualBytes: 11 },
      );
    },
  );

  test("any payload comes back byte for byte", async ({ backend }) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (payload) => {
        const { executionId, laneId } = await submitted(backend, {
          inputPayload: payload,
        });
        const read = await backend.readExecutionContext({ executionId });
        expect(new Uint8Array(read.inputPayload)).toEqual(payload);
        const { context } = await taken(backend, laneId);
        expect(new Uint8Array(context.inputPayload)).toEqual(payload);
      }),
      { ...reproducible(), numRuns: scaled(50, 10) },
    );
  });

  test("an unknown id is told apart from an ended one", async ({ backend }) => {
    await expectRefused(
      backend.cancelExecution({ executionId: UNKNOWN_ID, reason: "r" }),
      "execution_not_found",
      { entity: "execution", executionId: UNKNOWN_ID },
    );
  });
});

/** Submitting and steering. */
export const executionsConformance: Group = (harness, registrar) => {
  submission(harness, registrar);
  duplicatesConformance(harness, registrar);
  batchSubmissionConformance(harness, registrar);
  transactionsConformance(harness, registrar);
  steeringConformance(harness, registrar);
  replaysConformance(harness, registrar);
  holdsConformance(harness, registrar);
};
