/** The edge in front of every backend, before a store that only writes down what reaches it. */
import {
  canonicalJson,
  checked,
  DEFAULT_PARTITIONS,
  engineError,
  INPUTS,
  isEngineError,
  parsePolicy,
  WaitpointToken,
  type EngineBackend,
  type ResumeCondition,
} from "@flowfabric/core";
import { describe, expect, test } from "vitest";

interface Received {
  readonly name: string;
  readonly args: Record<string, unknown>;
}

function edge(
  answer: (name: string) => unknown = () => undefined,
  options: { maxPayloadBytes?: number } = {},
): { backend: EngineBackend; received: Received[] } {
  const received: Received[] = [];
  const names = [
    ...Object.keys(INPUTS),
    "ping",
    "prepare",
    "serverTimeMs",
    "backendLabel",
    "capabilities",
    "listWaitpointHmacKids",
  ];
  const operations = Object.fromEntries(
    names.map((name) => [
      name,
      (args: Record<string, unknown>) => {
        received.push({ name, args });
        return answer(name);
      },
    ]),
  );
  const backend = checked(
    {
      ...operations,
      partitions: DEFAULT_PARTITIONS,
      close: async () => undefined,
    } as never,
    {
      ...options,
      translateError: (error, operation) =>
        engineError("transport", {
          backend: "test",
          backendKind: "other",
          message: `${operation}: ${String(error)}`,
        }),
    },
  );
  return { backend, received };
}

async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    if (isEngineError(error)) return error.code;
    throw error;
  }
  return "answered";
}

const ID = "{fp:7}:01990000-0000-7000-8000-0000000000e1";

describe("the edge", () => {
  test("gives a backend parsed and defaulted arguments, and an id", async () => {
    const { backend, received } = edge();
    await backend.createExecution({ executionKind: "k" });
    expect(received[0]).toMatchObject({
      name: "createExecution",
      args: {
        executionId: expect.stringMatching(/^\{fp:\d+\}:/),
        namespace: "default",
        laneId: "default",
        tags: {},
      },
    });
  });

  test("lets nothing through that breaks a bound", async () => {
    const { backend, received } = edge();
    const calls = [
      backend.createExecution({ executionKind: "" }),
      backend.describeExecution({ executionId: "x" }),
      backend.describeExecution({ executionId: ID.replace("7", "256") }),
      backend.readEvents({ executionId: ID, limit: 1_001 }),
      backend.sweep({ name: "dusting" as never }),
    ];
    for (const call of calls) expect(await codeOf(call)).toBe("invalid_input");
    expect(received).toEqual([]);
  });

  test("names a refused field, and gives the field's own code where it has one", async () => {
    const { backend } = edge();
    const error = await backend
      .cancelExecution({ executionId: ID, reason: 7 as never })
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "invalid_input",
      detail: { field: "reason" },
    });
    expect(
      await codeOf(
        backend.createExecution({ executionKind: "k", tags: { BAD: "v" } }),
      ),
    ).toBe("invalid_tag_key");
    expect(
      await codeOf(backend.subscribeCompletion({ cursor: "not base64!" })),
    ).toBe("invalid_offset");
  });

  test("holds payloads to the store's limit", async () => {
    const { backend, received } = edge(undefined, { maxPayloadBytes: 3 });
    const four = new Uint8Array(4);
    expect(
      await codeOf(
        backend.createExecution({ executionKind: "k", inputPayload: four }),
      ),
    ).toBe("payload_too_large");
    expect(
      await codeOf(
        backend.completeExecution({ executionId: ID, resultPayload: four }),
      ),
    ).toBe("payload_too_large");
    expect(received).toEqual([]);
  });

  test("answers a batch's bad items beside its good ones", async () => {
    const { backend, received } = edge();
    await backend.submitMany({
      items: [{ executionKind: "k" }, { executionKind: "" }],
    });
    const { items } = received[0]!.args as { items: unknown[] };
    expect(items[0]).toMatchObject({ executionKind: "k" });
    expect(isEngineError(items[1], "invalid_input")).toBe(true);
  });

  test("takes a token as text or as it was given out, and refuses it by its form last", async () => {
    const { backend, received } = edge();
    const digest = "0a".repeat(32);
    const signal = {
      executionId: ID,
      waitpointId: ID.slice(7),
      signalId: ID.slice(7),
      signalName: "go",
    };
    for (const waitpointToken of [
      `k1:${digest}`,
      new WaitpointToken(`k1:${digest}`),
    ]) {
      await backend.deliverSignal({ ...signal, waitpointToken });
      expect(received.at(-1)).toMatchObject({
        args: {
          waitpointToken: { kid: "k1", digest },
          dedupTtlMs: 86_400_000,
          payloadEncoding: "json",
        },
      });
    }
    const refusal = (change: object) =>
      codeOf(
        backend.deliverSignal({ ...signal, waitpointToken: "", ...change }),
      );
    expect(await refusal({})).toBe("missing_token");
    expect(await refusal({ waitpointToken: undefined })).toBe("missing_token");
    expect(await refusal({ waitpointToken: 7 })).toBe("invalid_input");
    expect(await refusal({ waitpointToken: `k1:${digest}0` })).toBe(
      "invalid_token",
    );
    expect(await refusal({ signalName: "" })).toBe("invalid_input");
  });

  test("refuses a condition that is deeper than any stack", async () => {
    const { backend } = edge();
    let resumeCondition: ResumeCondition = { kind: "operatorOnly" };
    for (let depth = 0; depth < 50_000; depth++)
      resumeCondition = {
        kind: "composite",
        body: { kind: "allOf", members: [resumeCondition] },
      };
    const call = backend.suspendByTriple({
      executionId: ID,
      suspensionId: ID.slice(7),
      waitpoints: [],
      resumeCondition,
      reasonCode: "waiting_for_signal",
    });
    expect(await codeOf(call)).toBe("invalid_input");
  });

  test("lets one rotation through at a time, and the next when it has ended or failed", async () => {
    let end = (_error?: Error) => {};
    const { backend } = edge(
      () =>
        new Promise<void>((resolve, reject) => {
          end = (error) => (error === undefined ? resolve() : reject(error));
        }),
    );
    const rotate = () =>
      codeOf(
        backend.rotateWaitpointHmacSecretAll({
          newKid: "k",
          newSecretHex: "00",
        }),
      );
    for (const [error, outcome] of [
      [undefined, "answered"],
      [new Error("gone"), "transport"],
      [undefined, "answered"],
    ] as const) {
      const first = rotate();
      await Promise.resolve();
      expect(await rotate()).toBe("concurrency_limit_exceeded");
      end(error);
      expect(await first).toBe(outcome);
    }
  });

  test("turns whatever a driver throws into an engine error", async () => {
    const failing = edge(() => {
      throw new Error("disk on fire");
    });
    await expect(failing.backend.ping()).rejects.toMatchObject({
      code: "transport",
      detail: { message: "ping: Error: disk on fire" },
    });
    const rejecting = edge(() => Promise.reject(new Error("gone")));
    await expect(
      rejecting.backend.createExecutionInTransaction({
        executionKind: "k",
        transaction: {},
      }),
    ).rejects.toMatchObject({ code: "transport" });
    const refusing = edge(() => {
      throw engineError("stale_lease", {});
    });
    expect(
      await codeOf(refusing.backend.describeExecution({ executionId: ID })),
    ).toBe("stale_lease");
  });
});

describe("policies", () => {
  test("get their defaults", () => {
    expect(parsePolicy({ retryPolicy: {} })).toMatchObject({
      retryPolicy: {
        maxRetries: 3,
        backoff: {
          type: "exponential",
          initialDelayMs: 1_000,
          maxDelayMs: 60_000,
          multiplier: 2,
          jitter: false,
        },
        retryableCategories: [],
        nonRetryableCategories: [],
      },
      maxReplayCount: 10,
      dedupWindowMs: 86_400_000,
    });
    expect(parsePolicy(undefined)).not.toHaveProperty("retryPolicy");
    expect(
      parsePolicy({ retryPolicy: { backoff: { type: "fixed" } } }),
    ).toMatchObject({ retryPolicy: { backoff: { delayMs: 1_000 } } });
  });

  test("are refused by the path of what is wrong", () => {
    for (const [policy, reason] of [
      [{ retryPolicy: { backoff: { type: "random" } } }, "retryPolicy.backoff"],
      [{ maxReplayCount: -1 }, "maxReplayCount"],
      [{ retries: 1 }, "policy: "],
    ] as const) {
      const refused = parsePolicy(policy);
      expect(isEngineError(refused, "invalid_policy_json")).toBe(true);
      expect(
        (refused as { detail: { reason: string } }).detail.reason,
      ).toContain(reason);
    }
  });
});

test("canonical JSON sorts fields at every depth and leaves lists alone", () => {
  expect(
    canonicalJson({ b: [2, 1, { d: 1, c: undefined }], a: { z: 1, y: null } }),
  ).toBe('{"a":{"y":null,"z":1},"b":[2,1,{"d":1}]}');
});
