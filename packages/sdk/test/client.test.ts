import {
  isEngineError,
  type ExecutionId,
  type SubmitManyInput,
} from "@flowfabric/core";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { expect, test } from "vitest";
import { z } from "zod";

import { Client } from "../src/client.js";
import type { Codec } from "../src/codec.js";
import { defineExecution } from "../src/definition.js";
import { ConfigError, PayloadDecodeError } from "../src/errors.js";
import { openStore, withFaults } from "./store.js";

const Greet = defineExecution({
  kind: "greet",
  input: z.object({ name: z.string() }),
  output: z.object({ text: z.string() }),
  laneId: "greetings",
  priority: 5,
  tags: { "app.source": "definition", "app.kind": "greet" },
  policy: { retryPolicy: { maxRetries: 1 } },
});

/** A validator of no library: takes text, gives its length, and may take its time. */
const lengthOf = (asynchronous: boolean): StandardSchemaV1<string, number> => ({
  "~standard": {
    version: 1,
    vendor: "hand",
    validate: (value) => {
      const result =
        typeof value === "string"
          ? { value: value.length }
          : { issues: [{ message: "text expected", path: ["0"] }] };
      return asynchronous ? Promise.resolve(result) : result;
    },
  },
});

test("a submission takes the definition's defaults, and the call wins", async () => {
  const { backend } = await openStore();
  await using client = new Client({ backend });

  const plain = await client.submit(Greet, { input: { name: "Ada" } });
  const chosen = await client.submit(Greet, {
    input: { name: "Ada" },
    laneId: "urgent",
    priority: 9,
    tags: { "app.source": "call" },
  });

  expect(plain).toMatchObject({ kind: "created", publicState: "waiting" });
  expect(await client.inspect(plain.executionId)).toMatchObject({
    executionKind: "greet",
    laneId: "greetings",
    priority: 5,
    tags: { "app.source": "definition", "app.kind": "greet" },
  });
  expect(await client.inspect(chosen.executionId)).toMatchObject({
    laneId: "urgent",
    priority: 9,
    tags: { "app.source": "call", "app.kind": "greet" },
  });
});

test("an input that does not fit fails before any I/O, without its content", async () => {
  const { backend: real } = await openStore();
  const { backend, calls, clear } = withFaults(real);
  await using client = new Client({ backend });
  clear();

  const submitted = client.submit(Greet, {
    input: { name: 4_711 as unknown as string },
  });

  await expect(submitted).rejects.toMatchObject({
    code: "payload_decode",
    detail: { at: "submit", issues: [{ path: "name" }] },
  });
  await expect(submitted).rejects.not.toThrow(/4711/);
  expect(calls()).toEqual([]);
});

test("a value the codec cannot write fails before any I/O", async () => {
  const { backend: real } = await openStore();
  const { backend, calls, clear } = withFaults(real);
  await using client = new Client({ backend });
  clear();
  const Anything = defineExecution({ kind: "any", input: z.unknown() });

  await expect(client.submit(Anything, { input: 1n })).rejects.toBeInstanceOf(
    PayloadDecodeError,
  );
  await expect(
    client.submit(Anything, { input: () => {} }),
  ).rejects.toBeInstanceOf(PayloadDecodeError);
  expect(calls()).toEqual([]);
});

test("validators of any library, also asynchronous ones", async () => {
  const { backend } = await openStore();
  await using client = new Client({ backend });

  for (const asynchronous of [false, true]) {
    const Length = defineExecution({
      kind: "length",
      input: lengthOf(asynchronous),
    });
    const submitted = await client.submit(Length, { input: "four" });

    const { inputPayload } = await client.admin.readExecutionContext(submitted);
    // Stored is what was given, before the transform.
    expect(new TextDecoder().decode(inputPayload)).toBe('"four"');
    await expect(
      client.submit(Length, { input: 4 as unknown as string }),
    ).rejects.toMatchObject({
      detail: { issues: [{ message: "text expected", path: "0" }] },
    });
  }
});

test("a validator that throws is a payload error, not a crash", async () => {
  const { backend } = await openStore();
  await using client = new Client({ backend });
  const broken: StandardSchemaV1<string> = {
    "~standard": {
      version: 1,
      vendor: "hand",
      validate: () => {
        throw new Error("out of order");
      },
    },
  };

  await expect(
    client.submit(defineExecution({ kind: "broken", input: broken }), {
      input: "x",
    }),
  ).rejects.toMatchObject({ code: "payload_decode" });
});

test("a codec can be replaced, for the client and for one definition", async () => {
  const { backend } = await openStore();
  const reversed: Codec = {
    encoding: "reversed",
    encode: (value) =>
      new TextEncoder().encode([...JSON.stringify(value)].reverse().join("")),
    decode: (bytes) =>
      JSON.parse([...new TextDecoder().decode(bytes)].reverse().join("")),
  };
  const Own = defineExecution({
    kind: "own",
    input: z.string(),
    codec: { ...reversed, encode: () => Uint8Array.of(7), decode: () => "own" },
  });
  await using client = new Client({ backend, codec: reversed });
  const Plain = defineExecution({ kind: "plain", input: z.string() });

  const plain = await client.submit(Plain, { input: "ab" });
  const own = await client.submit(Own, { input: "ab" });

  const bytes = async (id: ExecutionId) =>
    (await client.admin.readExecutionContext({ executionId: id })).inputPayload;
  expect(new TextDecoder().decode(await bytes(plain.executionId))).toBe('"ba"');
  expect([...(await bytes(own.executionId))]).toEqual([7]);
});

test("the untyped form carries bytes as they are", async () => {
  const { backend } = await openStore();
  await using client = new Client({ backend });
  const all = Uint8Array.from({ length: 256 }, (_, index) => index);

  const { executionId } = await client.submit({
    executionKind: "raw",
    inputPayload: all,
  });

  const context = await client.admin.readExecutionContext({ executionId });
  expect([...context.inputPayload]).toEqual([...all]);
  expect(context.executionKind).toBe("raw");
});

test("the same key is the same execution; other content is a mismatch", async () => {
  const { backend } = await openStore();
  await using client = new Client({ backend });
  const submit = (name: string) =>
    client.submit(Greet, { input: { name }, idempotencyKey: "greet:1" });

  const first = await submit("Ada");

  expect(await submit("Ada")).toEqual({
    kind: "duplicate",
    executionId: first.executionId,
    mismatch: false,
  });
  expect(await submit("Bob")).toMatchObject({
    kind: "duplicate",
    mismatch: true,
  });
});

test("a submission whose reply was lost is one execution and created", async () => {
  const { backend: real } = await openStore();
  const faults = withFaults(real);
  await using client = new Client({ backend: faults.backend });
  faults.loseReplies("createExecution", 2);

  const submitted = await client.submit(Greet, {
    input: { name: "Ada" },
    delayUntilMs: Date.now() + 60_000,
  });

  expect(submitted).toMatchObject({ kind: "created", publicState: "delayed" });
  expect((await client.list()).executions).toEqual([submitted.executionId]);
  expect(faults.callsOf("createExecution")).toHaveLength(3);
});

test("with a key, the echo of its own lost call is created, too", async () => {
  const { backend: real } = await openStore();
  const faults = withFaults(real);
  await using client = new Client({ backend: faults.backend });
  faults.loseReplies("createExecution");

  const submission = { input: { name: "Ada" }, idempotencyKey: "k" };
  const first = await client.submit(Greet, submission);
  faults.loseReplies("createExecution");
  const second = await client.submit(Greet, submission);

  expect(first.kind).toBe("created");
  expect(second).toEqual({
    kind: "duplicate",
    executionId: first.executionId,
    mismatch: false,
  });
});

test("after three tries the fault surfaces; one that no repeat cures at once", async () => {
  const { backend: real } = await openStore();
  const faults = withFaults(real);
  await using client = new Client({ backend: faults.backend });

  faults.loseCalls("createExecution", Infinity);
  await expect(
    client.submit(Greet, { input: { name: "Ada" } }),
  ).rejects.toThrow("while calling the store");
  expect(faults.callsOf("createExecution")).toHaveLength(3);

  faults.heal("createExecution");
  faults.clear();
  await expect(
    client.submit(Greet, { input: { name: "Ada" }, laneId: "grün" }),
  ).rejects.toSatisfy((error) => isEngineError(error, "invalid_input"));
  expect(faults.callsOf("createExecution")).toHaveLength(1);
});

test("many in one trip, answers at the index of their item", async () => {
  const { backend: real } = await openStore();
  const faults = withFaults(real);
  await using client = new Client({ backend: faults.backend });
  faults.loseReplies("submitMany");

  const answers = await client.submitMany({
    items: [
      { definition: Greet, input: { name: "a" }, idempotencyKey: "k" },
      { definition: Greet, input: { name: 1 as unknown as string } },
      { definition: Greet, input: { name: "a" }, idempotencyKey: "k" },
      { definition: Greet, input: { name: "b" }, laneId: "grün" },
      { definition: Greet, input: { name: "b" } },
    ],
  });

  const [first] = answers;
  expect(answers).toMatchObject([
    { kind: "created" },
    { kind: "rejected", code: "payload_decode" },
    { kind: "duplicate", mismatch: false },
    { kind: "rejected", code: "invalid_input" },
    { kind: "created", publicState: "waiting" },
  ]);
  expect(answers[2]).toMatchObject({
    executionId: first?.kind === "created" ? first.executionId : "",
  });
  expect((await client.list()).executions).toHaveLength(2);
});

test("where the replies of some items are lost, those are repeated, and the others stand", async () => {
  const { backend: real } = await openStore();
  const calls: number[] = [];
  const backend = new Proxy(real, {
    get(target, name) {
      if (name !== "submitMany") return Reflect.get(target, name) as unknown;
      return async (input: SubmitManyInput) => {
        calls.push(input.items.length);
        const answers = await real.submitMany(input);
        return calls.length > 1
          ? answers
          : answers.map((answer, place) =>
              place === 1
                ? { kind: "rejected", code: "transport", detail: {} }
                : answer,
            );
      };
    },
  });
  await using client = new Client({ backend });

  const answers = await client.submitMany({
    items: ["a", "b", "c"].map((name) => ({
      definition: Greet,
      input: { name },
    })),
  });

  expect(calls).toEqual([3, 1]);
  expect(answers).toMatchObject([
    { kind: "created" },
    { kind: "created" },
    { kind: "created" },
  ]);
  expect((await client.list()).executions).toHaveLength(3);
});

test("all or nothing: one input that does not fit, and nothing is sent", async () => {
  const { backend: real } = await openStore();
  const faults = withFaults(real);
  await using client = new Client({ backend: faults.backend });
  faults.clear();

  const answers = await client.submitMany({
    atomicity: "allOrNothing",
    items: [
      { definition: Greet, input: { name: "a" } },
      { definition: Greet, input: { name: 1 as unknown as string } },
    ],
  });

  expect(answers).toMatchObject([
    {
      kind: "rejected",
      code: "invalid_input",
      detail: { reason: "batch_rejected" },
    },
    { kind: "rejected", code: "payload_decode" },
  ]);
  expect(faults.calls()).toEqual([]);
});

test("cancel ends an execution; a second time tells how it ended", async () => {
  const { backend: real } = await openStore();
  const faults = withFaults(real);
  await using client = new Client({ backend: faults.backend });
  const { executionId } = await client.submit(Greet, { input: { name: "A" } });

  faults.loseReplies("cancelExecution");
  const request = { executionId, reason: "not needed" };
  expect(await client.cancel(request)).toEqual({
    kind: "cancelled",
    publicState: "cancelled",
  });
  expect(await client.cancel(request)).toEqual({
    kind: "alreadyTerminal",
    publicState: "cancelled",
  });
  expect(await client.inspect(executionId)).toMatchObject({
    cancellationReason: "not needed",
    cancelledBy: "operator_override",
  });
});

test("replay runs a finished execution again, and is never repeated by itself", async () => {
  const { backend: real } = await openStore();
  const faults = withFaults(real);
  await using client = new Client({ backend: faults.backend });
  const { executionId } = await client.submit(Greet, { input: { name: "A" } });
  await client.cancel({ executionId, reason: "oops" });

  expect(await client.replay({ executionId, reason: "again" })).toEqual({
    kind: "replayed",
    publicState: "waiting",
  });
  await client.cancel({ executionId, reason: "oops" });
  faults.clear();
  faults.loseReplies("replayExecution");
  await expect(client.replay({ executionId })).rejects.toThrow();
  expect(faults.callsOf("replayExecution")).toHaveLength(1);
});

test("list pages through everything, listAll does so by itself, search goes by tag", async () => {
  const { backend } = await openStore();
  await using client = new Client({ backend });
  const submitted = await client.submitMany({
    items: ["a", "b", "c"].map((name) => ({
      definition: Greet,
      input: { name },
      laneId: name,
      tags: { "app.name": name },
    })),
  });
  const ids = submitted.map((answer) =>
    answer.kind === "created" ? answer.executionId : undefined,
  );

  const first = await client.list({ limit: 2 });
  const second = await client.list({ limit: 2, cursor: first.nextCursor });
  const all: ExecutionId[] = [];
  for await (const id of client.listAll()) all.push(id);

  expect([...first.executions, ...second.executions]).toEqual(ids);
  expect(all).toEqual(ids);
  expect((await client.list({ lanes: ["b"] })).executions).toEqual([ids[1]]);
  const found = await client.search({
    match: { all: [{ key: "app.name", value: "c" }] },
  });
  expect(found.entries.map(({ executionId }) => executionId)).toEqual([ids[2]]);
});

test("a client sees its own namespace only, unless a call names another", async () => {
  const { backend } = await openStore();
  await using ours = new Client({ backend, namespace: "ours" });
  await using theirs = new Client({ backend, namespace: "theirs" });
  const { executionId } = await ours.submit(Greet, { input: { name: "A" } });

  expect(await ours.inspect(executionId)).toBeDefined();
  expect(await theirs.inspect(executionId)).toBeUndefined();
  expect((await theirs.list()).executions).toEqual([]);
  expect((await theirs.list({ namespace: "ours" })).executions).toEqual([
    executionId,
  ]);
  await expect(
    theirs.cancel({ executionId, reason: "not mine" }),
  ).rejects.toSatisfy((e) => isEngineError(e, "execution_not_found"));
  await expect(
    theirs.admin.changePriority({ executionId, newPriority: 1 }),
  ).rejects.toSatisfy((e) => isEngineError(e, "execution_not_found"));
});

test("admin offers what the contract has for users, and nothing of maintenance", async () => {
  const { backend } = await openStore();
  await using client = new Client({ backend });
  const { executionId } = await client.submit(Greet, { input: { name: "A" } });

  await client.admin.ping();
  await client.admin.setExecutionTag({
    executionId,
    key: "app.x",
    value: "1",
  });
  expect(await client.admin.holdExecution({ executionId })).toEqual({
    kind: "held",
  });
  expect(await client.admin.unholdExecution({ executionId })).toEqual({
    kind: "released",
  });
  expect(
    await client.admin.countByTags({
      match: { all: [{ key: "app.x", value: "1" }] },
    }),
  ).toBe(1);
  expect((await client.admin.listLanes({})).lanes).toEqual(["greetings"]);
  expect(
    (await client.admin.readEvents({ executionId })).events.map(
      ({ type }) => type,
    ),
  ).toEqual(["created", "held", "released_hold"]);
  expect(client.admin.capabilities().supports.claimMany).toBe(true);
  expect(Object.keys(client.admin)).not.toContain("sweep");
  expect(Object.keys(client.admin)).not.toContain("complete");
});

test("every call takes a signal, whose reason it rejects with", async () => {
  const { backend: real } = await openStore();
  const faults = withFaults(real);
  await using client = new Client({ backend: faults.backend });
  const reason = new Error("changed my mind");

  const aborted = AbortSignal.abort(reason);
  await expect(client.inspect("{fp:0}:x", { signal: aborted })).rejects.toBe(
    reason,
  );
  await expect(
    client.submit(Greet, { input: { name: "A" } }, { signal: aborted }),
  ).rejects.toBe(reason);
  faults.hang("listExecutions");
  const abort = new AbortController();
  const hanging = client.list({}, { signal: abort.signal });
  abort.abort(reason);
  await expect(hanging).rejects.toBe(reason);
});

test("wrong options are refused", async () => {
  const { backend } = await openStore();

  expect(() => new Client({ backend, namespace: "two words" })).toThrow(
    ConfigError,
  );
  expect(() => new Client({ backend: {} as never })).toThrow(ConfigError);
});

test("a disposed client leaves the store open", async () => {
  const { backend } = await openStore();
  const client = new Client({ backend });
  await client[Symbol.asyncDispose]();
  await client[Symbol.asyncDispose]();

  await expect(backend.ping()).resolves.toBeUndefined();
});
