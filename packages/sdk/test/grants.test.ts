import { isEngineError, type ExecutionId, type Grant } from "@flowfabric/core";
import { expect, test } from "vitest";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import { ConfigError, WorkerAtCapacityError } from "../src/errors.js";
import { openStore, withFaults } from "./store.js";

async function open() {
  const store = await openStore();
  const faults = withFaults(store.backend);
  const client = new Client({ backend: store.backend });
  const conn = await connect({
    backend: faults.backend,
    workerId: "pool",
    maxConcurrentTasks: 2,
  });
  const grantFor = async (
    executionId: ExecutionId,
    workerId = "pool",
  ): Promise<Grant> => {
    const { grant } = await client.admin.issueClaimGrant({
      executionId,
      workerId,
      workerInstanceId: "scheduler",
      workerCapabilities: [],
      grantTtlMs: 5_000,
    });
    return grant;
  };
  const submit = async () =>
    (await client.submit({ executionKind: "job" })).executionId;
  return { ...store, faults, client, conn, grantFor, submit };
}

test("a grant for the pool is used by any instance of it, once", async () => {
  const { conn, grantFor, submit } = await open();
  const grant = await grantFor(await submit());

  await using task = await conn.claimFromGrant(grant);

  expect(task).toMatchObject({
    executionId: grant.executionId,
    handleKind: "fresh",
    attemptIndex: 0,
  });
  expect(conn.freePermits).toBe(1);
  await expect(conn.claimFromGrant(grant)).rejects.toThrow();
  expect(conn.freePermits).toBe(1);
  await task.complete();
});

test("a lost reply gets the same lease", async () => {
  const { conn, client, faults, grantFor, submit } = await open();
  const grant = await grantFor(await submit());
  faults.loseReplies("claimExecution", 2);

  await using task = await conn.claimFromGrant(grant);

  expect(task.leaseEpoch).toBe(1);
  expect((await client.inspect(task.executionId))?.currentLease?.leaseId).toBe(
    task.leaseId,
  );
  await task.complete();
});

test("at capacity the grant is untouched, and works once a permit is free", async () => {
  const { conn, faults, grantFor, submit } = await open();
  for (let i = 0; i < 2; i++) await submit();
  const held = await conn.claimMany({ max: 2 });
  const grant = await grantFor(await submit());
  faults.clear();

  await expect(conn.claimFromGrant(grant)).rejects.toBeInstanceOf(
    WorkerAtCapacityError,
  );
  await expect(conn.claimFromResumeGrant(grant)).rejects.toBeInstanceOf(
    WorkerAtCapacityError,
  );
  await expect(conn.claimFromReclaimGrant({ grant })).rejects.toBeInstanceOf(
    WorkerAtCapacityError,
  );
  expect(faults.calls()).toEqual([]);

  const waiting = conn.waitForPermit();
  await held[0]?.complete();
  await waiting;
  await using task = await conn.claimFromGrant(grant);
  expect(task.executionId).toBe(grant.executionId);
  await task.complete();
  await held[1]?.complete();
});

test("a grant is checked before it is sent", async () => {
  const { conn, faults, passTime, grantFor, submit } = await open();
  const grant = await grantFor(await submit());
  faults.clear();

  await expect(
    conn.claimFromGrant({ ...grant, partitionKey: "fp:1" }),
  ).rejects.toMatchObject({
    detail: { context: "claim_from_grant", field: "partition_key" },
  });
  await expect(
    conn.claimFromGrant({ ...grant, laneId: "elsewhere" as never }),
  ).rejects.toMatchObject({
    detail: { context: "claim_from_grant", field: "lane_id" },
  });
  await expect(
    conn.claimFromGrant({ ...grant, expiresAtMs: Date.now() - 1 }),
  ).rejects.toSatisfy((e) => isEngineError(e, "claim_grant_expired"));
  expect(faults.calls()).toEqual([]);
  expect(conn.freePermits).toBe(2);

  passTime(6_000);
  await expect(conn.claimFromGrant(grant)).rejects.toThrow();
  expect(conn.freePermits).toBe(2);
});

test("another pool's grant is refused", async () => {
  const { conn, grantFor, submit } = await open();
  const grant = await grantFor(await submit(), "others");

  await expect(conn.claimFromGrant(grant)).rejects.toSatisfy((e) =>
    isEngineError(e, "invalid_claim_grant"),
  );
});

test("a resume grant goes on with the same attempt, by either call", async () => {
  const { conn, grantFor, submit } = await open();
  const executionId = await submit();
  const first = (await conn.claimNext())!;
  await first.delay({ delayUntilMs: 1 });

  const grant = await grantFor(executionId);
  expect(grant.kind).toBe("resume");
  const second = (await conn.claimFromResumeGrant(grant))!;
  expect(second).toMatchObject({
    attemptIndex: 0,
    attemptId: first.attemptId,
    leaseEpoch: 2,
    handleKind: "resumed",
  });
  await second.delay({ delayUntilMs: 1 });
  await using third = await conn.claimFromGrant(await grantFor(executionId));
  expect(third).toMatchObject({ leaseEpoch: 3, handleKind: "resumed" });
  await third.complete();
});

test("a resume grant for what is gone is nothing", async () => {
  const { conn, grantFor, submit } = await open();
  const executionId = await submit();
  await (await conn.claimNext())?.delay({ delayUntilMs: 1 });
  const grant = await grantFor(executionId);

  const missing = "{fp:0}:01900000-0000-7000-8000-000000000000" as ExecutionId;
  expect(
    await conn.claimFromResumeGrant({ ...grant, executionId: missing }),
  ).toBeUndefined();
  expect(conn.freePermits).toBe(2);
});

/** Work whose lease has lapsed, and the grant to take it over. */
async function lostWork() {
  const opened = await open();
  const { client, conn, passTime, submit } = opened;
  const executionId = await submit();
  const task = (await conn.claimNext())!;
  passTime(31_000);
  const issue = await client.admin.issueReclaimGrant({
    executionId,
    workerId: "pool",
    workerInstanceId: conn.config.workerInstanceId,
    workerCapabilities: [],
    grantTtlMs: 5_000,
  });
  if (issue.kind !== "granted") expect.unreachable(issue.kind);
  await task[Symbol.asyncDispose]();
  return { ...opened, executionId, grant: issue.grant };
}

test("a reclaim grant takes lost work over as a full task", async () => {
  const { conn, grant, client } = await lostWork();

  const result = await conn.claimFromReclaimGrant({ grant });

  if (result.kind !== "claimed") expect.unreachable(result.kind);
  expect(result.task).toMatchObject({
    handleKind: "reclaimed",
    attemptIndex: 1,
    attemptType: "reclaim",
    leaseEpoch: 2,
  });
  expect(conn.freePermits).toBe(1);
  await result.task.renew();
  await result.task.complete();
  expect(await client.inspect(grant.executionId)).toMatchObject({
    publicState: "completed",
    leaseReclaimTotal: 1,
  });
});

test("its cross-checks fail one by one, in order, before any I/O", async () => {
  const { conn, grant, faults } = await lostWork();
  faults.clear();
  const other = "{fp:0}:01900000-0000-7000-8000-000000000000";
  const wrong = {
    executionId: other,
    laneId: "elsewhere",
    grant: { ...grant, expiresAtMs: 1, kind: "claim" as const },
  };

  const fields: string[] = [];
  for (const request of [
    wrong,
    { ...wrong, executionId: grant.executionId },
    { ...wrong, executionId: undefined, laneId: grant.laneId },
    { grant: { ...grant, kind: "claim" as const } },
  ]) {
    const error: unknown = await conn
      .claimFromReclaimGrant(request)
      .catch((refusal: unknown) => refusal);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).detail.context).toBe(
      "claim_from_reclaim_grant",
    );
    fields.push((error as ConfigError).detail.field ?? "");
  }

  expect(fields).toEqual(["execution_id", "lane_id", "expires_at_ms", "kind"]);
  expect(faults.calls()).toEqual([]);
});

test("the other answers of a reclaim are results", async () => {
  const used = await lostWork();
  const first = await used.conn.claimFromReclaimGrant({ grant: used.grant });
  expect(first.kind).toBe("claimed");
  expect(
    await used.conn.claimFromReclaimGrant({ grant: used.grant }),
  ).toMatchObject({ kind: "notReclaimable" });

  const capped = await lostWork();
  expect(
    await capped.conn.claimFromReclaimGrant({
      grant: capped.grant,
      maxReclaimCount: 0,
    }),
  ).toMatchObject({ kind: "reclaimCapExceeded", reclaimCount: 0 });
  expect(await capped.client.inspect(capped.executionId)).toMatchObject({
    publicState: "failed",
  });
  expect(capped.conn.freePermits).toBe(2);
});
