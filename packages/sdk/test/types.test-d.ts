import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { ExecutionId } from "@flowfabric/core";
import { Client, dataKey, defineExecution, Worker } from "@flowfabric/sdk";
import type {
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
