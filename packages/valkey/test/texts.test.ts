/** Texts on their way into the server and back. */
import type { EngineBackend } from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import { openClient, removeKeys } from "@flowfabric/valkey-testing";
import { afterEach, beforeEach, expect, inject, test } from "vitest";

const url = inject("valkeyUrl");
const prefix = `texts-${process.pid}`;
let backend: EngineBackend;
beforeEach(async () => {
  backend = await valkeyBackend({ url, prefix });
});
afterEach(async () => {
  await backend.close();
  const client = openClient(url);
  await removeKeys(client, prefix);
  client.disconnect();
});

test("half of a surrogate pair breaks no call, and what was asked is recognised when asked again", async () => {
  const half = "a\uD800b";
  const whole = "a\uFFFDb";
  const input = {
    executionKind: "k",
    executionId: "{fp:7}:01990000-0000-7000-8000-0000000000e1",
    creatorIdentity: half,
    tags: { key: half },
    policy: {
      maxReplayCount: 1,
      retryPolicy: { nonRetryableCategories: [half] },
      routingRequirements: { isolationLevel: half },
    },
  };
  const worker = { workerId: "w", workerInstanceId: "w1" };
  expect(await backend.createExecution(input)).toMatchObject({
    kind: "created",
  });
  expect(await backend.createExecution(input)).toMatchObject({
    kind: "duplicate",
    mismatch: false,
  });
  const { executionId } = input;
  const {
    claimed: [claimed],
  } = await backend.claimMany({
    ...worker,
    lanes: ["default"],
    max: 1,
    leaseTtlMs: 10_000,
  });
  expect(claimed?.context.tags).toEqual({ key: whole });
  expect(
    await backend.fail({
      handle: claimed!.handle,
      reason: { message: half },
      classification: "transient",
    }),
  ).toMatchObject({ kind: "retryScheduled" });
  await backend.cancelExecution({ executionId, reason: half });
  await backend.replayExecution({
    executionId,
    reason: half,
    requestedBy: half,
  });
  await backend.issueClaimGrant({
    executionId,
    ...worker,
    workerCapabilities: [half],
    admissionSummary: half,
    grantTtlMs: 1_000,
  });
  expect(await backend.describeExecution({ executionId })).toMatchObject({
    creatorIdentity: whole,
    tags: { key: whole },
  });
});
