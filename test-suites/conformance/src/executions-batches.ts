import type { CreateExecutionInput } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { bytes, lane, submitted, uuid } from "./builders.js";
import { group } from "./harness.js";

/** Many submissions in one trip. */
export const batchSubmissionConformance = group(
  "submitting many executions",
  (test) => {
    test("answers stand at the index of their item, and one refusal touches no other", async ({
      backend,
    }) => {
      const laneId = lane();
      const existing = await submitted(backend, { laneId });
      const answers = await backend.submitMany({
        items: [
          { executionKind: "a", laneId },
          { executionKind: "" },
          { executionKind: "test", ...existing },
          { executionKind: "b", laneId, tags: { Bad: "v" } },
          { executionKind: "b", laneId, policy: { maxReplayCount: -1 } },
          { executionKind: "c", laneId, delayUntilMs: 9_000_000_000_000 },
        ],
      });

      expect(answers).toMatchObject([
        { kind: "created", publicState: "waiting" },
        { kind: "rejected", code: "invalid_input" },
        {
          kind: "duplicate",
          executionId: existing.executionId,
          mismatch: false,
        },
        { kind: "rejected", code: "invalid_tag_key", detail: { key: "Bad" } },
        { kind: "rejected", code: "invalid_policy_json" },
        { kind: "created", publicState: "delayed" },
      ]);
      const { executions } = await backend.listExecutions({
        lanes: [laneId],
      });
      expect(executions).toHaveLength(3);
    });

    test("of a thousand with ten bad ones 990 are created, and a repeat creates none", async ({
      backend,
    }) => {
      const laneId = lane();
      const items = Array.from(
        { length: 1_000 },
        (_unused, n): CreateExecutionInput =>
          n % 100 === 50
            ? { executionKind: "" }
            : { executionKind: "k", laneId, idempotencyKey: `key-${n}` },
      );
      const counts = async () => {
        const answers = await backend.submitMany({ items });
        expect(answers[50]).toMatchObject({ kind: "rejected" });
        return ["created", "duplicate", "rejected"].map(
          (kind) => answers.filter((answer) => answer.kind === kind).length,
        );
      };
      expect(await counts()).toEqual([990, 0, 10]);
      expect(await counts()).toEqual([0, 990, 10]);
    });

    test("of two items with one key the second is a duplicate of the first", async ({
      backend,
    }) => {
      const laneId = lane();
      const item = { executionKind: "k", laneId, idempotencyKey: "key" };
      const [first, second, third] = await backend.submitMany({
        items: [item, item, { ...item, inputPayload: bytes("other") }],
      });
      expect(first).toMatchObject({ kind: "created" });
      const { executionId } = first as { executionId: string };
      expect([second, third]).toEqual([
        { kind: "duplicate", executionId, mismatch: false },
        { kind: "duplicate", executionId, mismatch: true },
      ]);
    });

    test("all or nothing: one rejection writes nothing and says so for the rest", async ({
      backend,
    }) => {
      const laneId = lane();
      const answers = await backend.submitMany({
        atomicity: "allOrNothing",
        items: [
          { executionKind: "a", laneId },
          { executionKind: "b", laneId, policy: { maxReplayCount: -1 } },
          { executionKind: "c", laneId },
        ],
      });
      const batchRejected = {
        kind: "rejected",
        code: "invalid_input",
        detail: { reason: expect.stringContaining("batch_rejected") },
      };
      expect(answers).toMatchObject([
        batchRejected,
        { kind: "rejected", code: "invalid_policy_json" },
        batchRejected,
      ]);
      expect(await backend.listExecutions({ lanes: [laneId] })).toEqual({
        executions: [],
      });
    });

    test("all or nothing: wrong arguments of one item reject the others", async ({
      backend,
    }) => {
      const laneId = lane();
      const existing = await submitted(backend, { laneId });
      const answers = await backend.submitMany({
        atomicity: "allOrNothing",
        items: [
          { executionKind: "test", ...existing },
          { executionKind: "a", laneId },
          { executionKind: "" },
        ],
      });
      expect(answers).toMatchObject([
        { kind: "duplicate", executionId: existing.executionId },
        {
          kind: "rejected",
          detail: { reason: expect.stringContaining("batch_rejected") },
        },
        { kind: "rejected", code: "invalid_input" },
      ]);
      const { executions } = await backend.listExecutions({ lanes: [laneId] });
      expect(executions).toHaveLength(1);
    });

    test("all or nothing: a repeat within the batch is found before its policy is looked at", async ({
      backend,
    }) => {
      const item = {
        executionKind: "k",
        laneId: lane(),
        idempotencyKey: "key",
      };
      expect(
        await backend.submitMany({
          atomicity: "allOrNothing",
          items: [item, { ...item, policy: { maxReplayCount: -1 } }],
        }),
      ).toMatchObject([
        { kind: "created" },
        { kind: "duplicate", mismatch: true },
      ]);
    });

    test("all or nothing: without a rejection all are created", async ({
      backend,
    }) => {
      const laneId = lane();
      const answers = await backend.submitMany({
        atomicity: "allOrNothing",
        items: [
          { executionKind: "a", laneId },
          { executionKind: "b", laneId },
        ],
      });
      expect(answers.map((answer) => answer.kind)).toEqual([
        "created",
        "created",
      ]);
    });

    test("all or nothing needs one partition", async ({ backend }) => {
      await expectRefused(
        backend.submitMany({
          atomicity: "allOrNothing",
          items: [1, 2].map((partition) => ({
            executionKind: "k",
            executionId: `{fp:${partition}}:${uuid()}`,
          })),
        }),
        "invalid_input",
        { reason: expect.stringContaining("cross_partition_atomic") },
      );
      expect(await backend.listExecutions({})).toEqual({ executions: [] });
    });

    test("a batch has 1 to 1000 items and at most 8 MiB of payload", async ({
      backend,
    }) => {
      const item = { executionKind: "k" };
      await expectRefused(backend.submitMany({ items: [] }), "invalid_input");
      await expectRefused(
        backend.submitMany({
          items: Array.from({ length: 1_001 }, () => item),
        }),
        "invalid_input",
        { reason: expect.stringContaining("batch_too_large") },
      );
      const megabyte = new Uint8Array(1_048_576);
      await expectRefused(
        backend.submitMany({
          items: [
            ...Array.from({ length: 8 }, () => ({
              ...item,
              inputPayload: megabyte,
            })),
            { ...item, inputPayload: bytes("x") },
          ],
        }),
        "invalid_input",
        { reason: expect.stringContaining("batch_too_large") },
      );
      expect(await backend.listExecutions({})).toEqual({ executions: [] });
    });
  },
);
