import type { CompletionEvent, SubscribeInput } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused, sleep, within } from "./assertions.js";
import {
  completed,
  failed,
  lane,
  lapsed,
  LEASE_TTL_MS,
  OTHER_WORKER,
  reclaimed,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
  uuid,
  WORKER,
} from "./builders.js";
import {
  drainCompletions,
  drainFeed,
  drainLeases,
  take,
} from "./feed-readers.js";
import { group } from "./harness.js";

/** Of several writers at the same time. */
const EACH_WRITES = 30;
/** A store whose connections are all taken by writers may let its readers wait. */
const BUSY_MS_MAX = 15_000;

export const feedsConformance = group("feeds", (test) => {
  test("every end of every execution is one completion, in order", async (bench) => {
    const { backend } = bench;
    const done = await completed(backend, {
      namespace: "shop",
      tags: { a: "1" },
    });
    const broken = await failed(backend);
    const stopped = await submitted(backend);
    await backend.cancelExecution({ ...stopped, reason: "r" });
    const late = await submitted(backend, {
      executionDeadlineAtMs: (await backend.serverTimeMs()) + 1_000,
    });
    await bench.passTime(1_000);
    await backend.expireExecution({
      ...late,
      reason: "execution_deadline",
    });
    await backend.replayExecution(done);
    const again = await taken(backend, done.laneId);
    await backend.fail({
      handle: again.handle,
      reason: { message: "m" },
      classification: "permanent",
    });
    // No ends: a retry, a hand-back, a lapse.
    const handedBack = await running(backend);
    await backend.delay({ handle: handedBack.handle, delayUntilMs: 1 });
    await lapsed(bench);

    const events = await drainCompletions(backend);
    expect(events.map((event) => [event.executionId, event.outcome])).toEqual([
      [done.executionId, "success"],
      [broken.executionId, "failure"],
      [stopped.executionId, "cancelled"],
      [late.executionId, "expired"],
      [done.executionId, "failure"],
    ]);
    expect(events[0]).toMatchObject({
      kind: "completion",
      namespace: "shop",
      laneId: done.laneId,
      tags: { a: "1" },
      attemptIndex: 0,
    });
    expect(events[4]).toMatchObject({ attemptIndex: 1 });
    const snapshot = await backend.describeExecution(broken);
    expect(events[1]?.atMs).toBe(snapshot?.completedAtMs);
    expect(new Set(events.map((event) => event.cursor)).size).toBe(5);
  });

  test("a feed begins where it was asked for, even if nobody reads yet", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    await completed(backend);
    const feed = await backend.subscribeCompletion({});
    const mine = await completed(backend);
    const theirs = await completed(other);
    const events = await take(feed, 2);
    expect(events.map((event) => event.executionId)).toEqual([
      mine.executionId,
      theirs.executionId,
    ]);
  });

  test("a waiting feed hears of an end soon, also from another connection", async (bench) => {
    const { backend } = bench;
    for (const writer of [backend, await bench.reopen()]) {
      const waiting = take(await backend.subscribeCompletion({}), 1);
      await sleep(50);
      const { executionId } = await completed(writer);
      expect(await waiting).toMatchObject([{ executionId }]);
    }
  });

  test("a filter compares the namespace and the tags of that moment, exactly", async ({
    backend,
  }) => {
    const end = async (namespace: string, tags: Record<string, string>) =>
      (await completed(backend, { namespace, tags })).executionId;
    const a = await end("one", { team: "red" });
    const b = await end("two", { team: "red" });
    const c = await end("one", { team: "blue" });
    await end("one", {});
    await backend.setExecutionTag({
      executionId: c,
      key: "team",
      value: "red",
    });
    const ids = async (filter: SubscribeInput["filter"]) =>
      (await drainCompletions(backend, { filter })).map(
        (event) => event.executionId,
      );
    expect(await ids({ instanceTag: ["team", "red"] })).toEqual([a, b]);
    expect(
      await ids({ namespace: "one", instanceTag: ["team", "red"] }),
    ).toEqual([a]);
    expect(await ids({ namespace: "ONE" })).toEqual([]);
    expect(await ids({ instanceTag: ["team", "re"] })).toEqual([]);
    expect(await ids({ namespace: "one" })).toHaveLength(3);
  });

  test("a feed of one partition has that one only", async ({ backend }) => {
    const one = await completed(backend, {
      executionId: `{fp:1}:${uuid()}`,
    });
    const two = await completed(backend, {
      executionId: `{fp:2}:${uuid()}`,
    });
    const ids = async (input: SubscribeInput) =>
      (await drainCompletions(backend, input)).map(
        (event) => event.executionId,
      );
    expect(await ids({ partition: "{fp:2}" })).toEqual([two.executionId]);
    expect(await ids({})).toEqual([one.executionId, two.executionId]);
    await expectRefused(
      backend.subscribeCompletion({ partition: "fp:2" }),
      "invalid_input",
    );
  });

  test("a slow reader misses nothing and holds up nobody", async ({
    backend,
  }) => {
    const laneId = lane();
    const slow = await backend.subscribeCompletion({});
    const quick = await backend.subscribeCompletion({});
    const ended: string[] = [];
    // More than any buffer holds.
    for (let batch = 0; batch < 15; batch++) {
      await backend.submitMany({
        items: Array.from({ length: 100 }, () => ({
          executionKind: "k",
          laneId,
        })),
      });
      const { claimed } = await backend.claimMany({
        ...WORKER,
        lanes: [laneId],
        max: 100,
        leaseTtlMs: LEASE_TTL_MS,
      });
      await backend.completeMany({
        items: claimed.map(({ handle }) => ({ handle })),
      });
      ended.push(...claimed.map((claim) => claim.executionId));
    }
    const ids = (events: CompletionEvent[]) =>
      events.map((event) => event.executionId as string).sort();
    expect(ids(await take(quick, 1_500))).toEqual([...ended].sort());
    expect(ids(await take(slow, 1_500))).toEqual([...ended].sort());
  });

  test("what ends while many write comes exactly once", async (bench) => {
    const { backend } = bench;
    const writers = [backend, await bench.reopen(), await bench.reopen()];
    const expected = writers.length * EACH_WRITES;
    let begin = () => {};
    const begun = new Promise<void>((resolve) => (begin = resolve));
    const reading = drainFeed<CompletionEvent>(
      async (signal) => {
        const feed = await backend.subscribeCompletion({ signal });
        // From here on everything comes; on a busy machine that takes a while.
        begin();
        return feed;
      },
      1_000,
      (events) => events.length >= expected,
      BUSY_MS_MAX,
    );
    // Or it cannot be subscribed to, and says why.
    await Promise.race([begun, reading]);
    const ended = await Promise.all(
      writers.flatMap((writer) =>
        Array.from({ length: EACH_WRITES }, () => completed(writer)),
      ),
    );
    const events = await reading;
    expect(events.map((event) => event.executionId).sort()).toEqual(
      ended.map((one) => one.executionId).sort(),
    );
  });

  test("an aborted feed ends", async ({ backend }) => {
    const giveUp = new AbortController();
    const feed = await backend.subscribeCompletion({ signal: giveUp.signal });
    const reading = (async () => {
      for await (const event of feed) return event;
      return "ended";
    })();
    await sleep(20);
    giveUp.abort();
    expect(await within(5_000, "the end of the feed", reading)).toBe("ended");
  });

  test("leases are told of when acquired, lapsed, taken over, revoked and cut off", async (bench) => {
    const { backend } = bench;
    const { stale, current } = await reclaimed(bench);
    await backend.revokeLease({ executionId: current.executionId });
    const cut = await running(backend);
    await backend.cancelExecution({
      executionId: cut.executionId,
      reason: "r",
    });
    const handed = await running(backend);
    await backend.delay({ handle: handed.handle, delayUntilMs: 1 });
    const resumed = await taken(backend, handed.laneId);
    await backend.complete({ handle: resumed.handle });
    const { executionId: byHand } = await submitted(backend);
    await backend.issueGrantAndClaim({
      executionId: byHand,
      leaseTtlMs: LEASE_TTL_MS,
    });
    await backend.revokeLease({ executionId: byHand, reason: "reconciler" });

    const events = await drainLeases(backend);
    expect(events).toMatchObject([
      {
        kind: "acquired",
        executionId: stale.executionId,
        leaseId: stale.leaseId,
        leaseEpoch: 1,
        ...WORKER,
        attemptIndex: 0,
        attemptId: stale.attemptId,
        reason: "claim",
      },
      {
        kind: "expired",
        leaseId: stale.leaseId,
        prevOwner: WORKER.workerInstanceId,
      },
      {
        kind: "reclaimed",
        newLeaseId: current.leaseId,
        newOwner: OTHER_WORKER.workerInstanceId,
        attemptIndex: 1,
      },
      { kind: "revoked", leaseId: current.leaseId, revokedBy: "operator" },
      { kind: "acquired", executionId: cut.executionId },
      { kind: "revoked", leaseId: cut.leaseId },
      { kind: "acquired", executionId: handed.executionId, reason: "claim" },
      {
        kind: "acquired",
        executionId: handed.executionId,
        reason: "claim_resumed",
        leaseEpoch: 2,
      },
      {
        kind: "acquired",
        executionId: byHand,
        reason: "issue_grant_and_claim",
        workerId: "operator",
      },
      { kind: "revoked", executionId: byHand, revokedBy: "reconciler" },
    ]);
    expect(events).toHaveLength(10);
  });

  test("renewals are told of at most once in ten seconds and are no history", async ({
    backend,
    passTime,
  }) => {
    const { executionId, handle, leaseId } = await running(backend);
    const renewals = async () =>
      (await drainLeases(backend)).filter((event) => event.kind === "renewed");
    for (let n = 0; n < 3; n++) await backend.renew({ handle });
    const before = (await renewals()).length;
    expect(before).toBeLessThanOrEqual(1);
    await passTime(10_000);
    const { expiresAtMs } = await backend.renew({ handle });
    const after = await renewals();
    expect(after).toHaveLength(before + 1);
    expect(after.at(-1)).toMatchObject({ executionId, leaseId, expiresAtMs });
    const { events } = await backend.readEvents({ executionId });
    expect(events).toHaveLength(2);
  });

  test("a quiet store has a quiet feed", async ({ backend }) => {
    await submitted(backend);
    expect(await drainCompletions(backend)).toEqual([]);
    expect(await drainLeases(backend)).toEqual([]);
    expect(await backend.describeExecution({ executionId: UNKNOWN_ID })).toBe(
      undefined,
    );
  });
});
