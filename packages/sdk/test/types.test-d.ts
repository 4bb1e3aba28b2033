import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { ExecutionId } from "@flowfabric/core";
import {
  Client,
  dataKey,
  defineExecution,
  SignalToken,
  when,
  Worker,
} from "@flowfabric/sdk";
import type {
  AppendedFrame,
  ReceivedSignal,
  ResumeCondition,
  SignalResult,
  Suspended,
  SuspensionDetails,
  StreamCloseReason,
  ClaimedTask,
  ExecutionResult,
  SubmitItemResult,
  SubmitResult,
} from "@flowfabric/sdk";
import { expectTypeOf, test } from "vitest";
import { z } from "zod";

declare const client: Client;
declare const worker: Worker;

/** With transforms on both sides, so that input and output differ everywhere. */
const Invoice = defineExecution({
  kind: "invoice",
  input: z.object({
    customer: z.string(),
    due: z.string().transform((text) => new Date(text)),
    copies: z.number().default(1),
  }),
  output: z.object({ total: z.number().transform(String) }),
});

/** Another library: written by hand, takes text and gives a number. */
const digits: StandardSchemaV1<string, number> = {
  "~standard": {
    version: 1,
    vendor: "hand",
    validate: (value) =>
      typeof value === "string" && /^\d+$/.test(value)
        ? { value: Number(value) }
        : { issues: [{ message: "digits expected" }] },
  },
};
const Count = defineExecution({ kind: "count", input: digits });
const Tick = defineExecution({
  kind: "tick",
  input: z.undefined(),
  output: z.undefined(),
});

test("submit takes what the validator takes", () => {
  expectTypeOf(
    client.submit(Invoice, { input: { customer: "c", due: "2026-01-01" } }),
  ).resolves.toEqualTypeOf<SubmitResult>();
  expectTypeOf(
    client.submit(Count, { input: "42" }),
  ).resolves.toEqualTypeOf<SubmitResult>();
  void client.submit(Tick, {});

  // @ts-expect-error the input is required
  void client.submit(Invoice, {});
  // @ts-expect-error the output side of the validator is not what is submitted
  void client.submit(Count, { input: 42 });
  // @ts-expect-error an unknown field
  void client.submit(Count, { input: "42", lane: "x" });
});

test("without a definition kind and bytes are given", () => {
  void client.submit({ executionKind: "raw", inputPayload: new Uint8Array() });

  // @ts-expect-error bytes only
  void client.submit({ executionKind: "raw", inputPayload: "text" });
  // @ts-expect-error the kind is required
  void client.submit({ inputPayload: new Uint8Array() });
});

test("each item of many is typed by its own definition", () => {
  expectTypeOf(
    client.submitMany({
      items: [
        { definition: Count, input: "1" },
        { definition: Invoice, input: { customer: "c", due: "x" } },
      ],
    }),
  ).resolves.toEqualTypeOf<SubmitItemResult[]>();
  void client.submitMany({
    items: ["1", "2"].map((input) => ({ definition: Count, input })),
  });

  void client.submitMany({
    items: [{ executionKind: "raw", inputPayload: new Uint8Array() }],
    atomicity: "allOrNothing",
  });

  void client.submitMany({
    items: [
      { definition: Count, input: "1" },
      // @ts-expect-error the other definition's input
      { definition: Invoice, input: "1" },
    ],
  });
});

test("the handler gets the output side of the input and returns the input side of the output", () => {
  worker.handle(Invoice, async (input, task, { use }) => {
    expectTypeOf(input).toEqualTypeOf<{
      customer: string;
      due: Date;
      copies: number;
    }>();
    expectTypeOf(task).toEqualTypeOf<ClaimedTask>();
    expectTypeOf(use(dataKey<bigint>("big"))).toEqualTypeOf<bigint>();
    expectTypeOf(use(Map<string, number>)).toEqualTypeOf<Map<string, number>>();
    return { total: 12 };
  });
  worker.handle(Count, (input) => {
    expectTypeOf(input).toEqualTypeOf<number>();
    return { anything: true };
  });
  worker.handle("raw", (bytes) => {
    expectTypeOf(bytes).toEqualTypeOf<Uint8Array>();
  });

  worker.handle(Invoice, (_input, task) =>
    task.suspend({ resumeCondition: when.operator() }),
  );
  worker.handle(Invoice, async (_input, task) => {
    const tried = await task.trySuspend({ resumeCondition: when.operator() });
    return tried.kind === "suspended" ? tried : { total: 12 };
  });

  // @ts-expect-error not what the output's validator takes
  worker.handle(Invoice, () => ({ total: "12" }));
});

test("a result is the output side of the output", () => {
  expectTypeOf(
    client.result(Invoice, { executionId: "x" }),
  ).resolves.toEqualTypeOf<ExecutionResult<{ total: string }>>();
  expectTypeOf(
    client.result(Count, { executionId: "x" }),
  ).resolves.toEqualTypeOf<ExecutionResult<unknown>>();
  expectTypeOf(client.result({ executionId: "x" })).resolves.toEqualTypeOf<
    ExecutionResult<Uint8Array | undefined>
  >();
});

test("results are branched on by kind", async () => {
  const end = await client.result(Invoice, { executionId: "x" });
  switch (end.kind) {
    case "completed":
      expectTypeOf(end.output.total).toEqualTypeOf<string>();
      break;
    case "failed":
      expectTypeOf(end.reason).toEqualTypeOf<string>();
      break;
    case "pending":
      expectTypeOf(end.publicState).toBeString();
      break;
    case "cancelled":
    case "expired":
    case "skipped":
      // @ts-expect-error only a completed execution has an output
      void end.output;
  }
});

test("inside a better-sqlite3 transaction the answer is there at once", () => {
  const db = { inTransaction: true, prepare: (_sql: string) => ({}) };
  const pg = { query: async (_sql: string) => ({ rows: [] }) };

  expectTypeOf(
    client.submitInTransaction(db, Count, { input: "1" }),
  ).toEqualTypeOf<SubmitResult>();
  expectTypeOf(
    client.submitInTransaction(pg, Count, { input: "1" }),
  ).toEqualTypeOf<SubmitResult | Promise<SubmitResult>>();
});

test("a task decodes by validator or definition", () => {
  const task = null as unknown as ClaimedTask;

  expectTypeOf(task.input(digits)).resolves.toEqualTypeOf<number>();
  expectTypeOf(task.input(Invoice)).resolves.toHaveProperty("due");
  void task.complete(Invoice, { total: 1 });
  void task.complete({ anything: true });
});

test("what a task writes and what a reader gets", async () => {
  const { stream } = null as unknown as ClaimedTask;

  expectTypeOf(stream.write("x")).resolves.toEqualTypeOf<AppendedFrame>();
  void stream.write(new Uint8Array(), {
    mode: { kind: "bestEffortLive", ttlMs: 5_000 },
  });
  expectTypeOf(stream.writable()).toExtend<
    WritableStream<string | Uint8Array>
  >();
  // @ts-expect-error a best-effort frame needs its time
  void stream.write("x", { mode: { kind: "bestEffortLive" } });
  // @ts-expect-error how a patch is kept is given
  void stream.patch({}, { mode: { kind: "durable" } });

  for await (const event of client.stream({ executionId: "x" })) {
    expectTypeOf(event.cursor).toEqualTypeOf<string>();
    if (event.kind === "frame")
      expectTypeOf(event.payload).toEqualTypeOf<Uint8Array>();
    // @ts-expect-error only an end has a reason
    else void event.reason;
    if (event.kind === "end")
      expectTypeOf(event.reason).toEqualTypeOf<StreamCloseReason>();
  }
});

test("suspending tells whether the task goes on", async () => {
  const task = null as unknown as ClaimedTask;
  const resumeCondition = when.signal("approval", "approved");
  expectTypeOf(resumeCondition).toEqualTypeOf<ResumeCondition>();

  expectTypeOf(
    task.suspend({ resumeCondition, timeoutBehavior: "escalate" }),
  ).resolves.toEqualTypeOf<Suspended>();
  const tried = await task.trySuspend({ resumeCondition });
  expectTypeOf(tried.details).toEqualTypeOf<SuspensionDetails>();
  if (tried.kind === "alreadySatisfied")
    expectTypeOf(tried.task).toEqualTypeOf<ClaimedTask>();
  // @ts-expect-error a task that was suspended does not go on
  else void tried.task;
  const pending = await task.createPendingWaitpoint({
    waitpointKey: "k",
    expiresInMs: 1_000,
  });
  void task.trySuspendOnPending({ pending, resumeCondition });

  // @ts-expect-error the condition is required
  void task.suspend({});
  // @ts-expect-error no such behaviour
  void task.suspend({ resumeCondition, timeoutBehavior: "retry" });
  // @ts-expect-error the waitpoint is required
  void task.trySuspendOnPending({ resumeCondition });
  // @ts-expect-error sources, signals or waitpoints are counted
  when.count({ n: 1, countKind: "distinctNames", waitpoints: ["a"] });
});

test("signals are sent with a token, and read decoded", async () => {
  const task = null as unknown as ClaimedTask;
  const token = null as unknown as SignalToken;

  expectTypeOf(
    client.signal("token", { name: "paid", payload: { any: "value" } }),
  ).resolves.toEqualTypeOf<SignalResult>();
  void client.signal(token, { name: "paid" });
  const { executionId, waitpointId, waitpointToken } = token;
  void client.signal(
    { executionId, waitpointId, waitpointToken },
    { name: "" },
  );
  // @ts-expect-error signals have names
  void client.signal(token, {});
  // @ts-expect-error the credential is missing
  void client.signal({ executionId, waitpointId }, { name: "paid" });

  const signals = await task.resumeSignals();
  expectTypeOf(signals).toEqualTypeOf<ReceivedSignal[]>();
  expectTypeOf(signals[0]!.decode(digits)).resolves.toEqualTypeOf<number>();
});

test("admin operations carry the contract's types, the namespace being optional", () => {
  expectTypeOf(client.admin.listLanes({})).resolves.toHaveProperty("lanes");
  expectTypeOf(client.admin.ping()).resolves.toEqualTypeOf<void>();
  expectTypeOf(client.list()).resolves.toEqualTypeOf<{
    readonly executions: ExecutionId[];
    readonly nextCursor?: string;
  }>();
  void client.admin.deregisterWorker({ workerInstanceId: "w-1" });

  // @ts-expect-error maintenance is not for users
  void client.admin.sweep({ name: "unblock" });
  // @ts-expect-error nor are fenced worker operations
  void client.admin.renew;
});
