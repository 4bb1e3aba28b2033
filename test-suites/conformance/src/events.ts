import type { EngineBackend, ExecutionEvent } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused, sleep, within } from "./assertions.js";
import {
  completed,
  HOUR_MS,
  LEASE_TTL_MS,
  OTHER_WORKER,
  submitted,
  taken,
  UNKNOWN_ID,
} from "./builders.js";
import { cursorsConformance } from "./events-cursors.js";
import { tagFeedConformance } from "./events-tags.js";
import { feedsConformance } from "./events-feeds.js";
import { group, type Group } from "./harness.js";

const history = group("the history of an execution", (test) => {
  /** A life with most kinds of events in it. */
  const eventful = async (
    backend: EngineBackend,
    passTime: (ms: number) => Promise<void>,
  ) => {
    const retryPolicy = { backoff: { type: "fixed", delayMs: 100 } } as const;
    const { executionId, laneId } = await submitted(backend, {
      policy: { retryPolicy },
      delayUntilMs: (await backend.serverTimeMs()) + 1_000,
    });
    const ref = { executionId };
    await backend.holdExecution(ref);
    await backend.unholdExecution(ref);
    await passTime(1_000);
    await backend.changePriority({ ...ref, newPriority: 4 });
    await backend.blockExecutionForAdmission({
      ...ref,
      reason: "waiting_for_quota",
    });
    await backend.unblockExecution(ref);
    const first = await taken(backend, laneId);
    await backend.delay({ handle: first.handle, delayUntilMs: 1 });
    const second = await taken(backend, laneId);
    await backend.fail({
      handle: second.handle,
      reason: { message: "once" },
      classification: "transient",
    });
    await passTime(100);
    await taken(backend, laneId);
    await passTime(LEASE_TTL_MS);
    await taken(backend, laneId, { worker: OTHER_WORKER });
    await backend.revokeLease(ref);
    await passTime(1_000);
    const last = await taken(backend, laneId);
    await backend.complete({ handle: last.handle });
    await backend.replayExecution(ref);
    await backend.cancelExecution({ ...ref, reason: "r" });
    return executionId;
  };

  test("every transition is one event, numbered from 1 without gaps", async ({
    backend,
    passTime,
  }) => {
    const executionId = await eventful(backend, passTime);
    const { events } = await backend.readEvents({ executionId });
    expect(events.map((event) => event.type)).toEqual([
      "created",
      "held",
      "released_hold",
      "promoted",
      "priority_changed",
      "blocked",
      "unblocked",
      "claimed",
      "delayed",
      "resumed",
      "retry_scheduled",
      "promoted",
      "claimed",
      "lease_expired",
      "reclaimed",
      "lease_revoked",
      "reclaimed",
      "completed",
      "replayed",
      "cancelled",
    ]);
    expect(events.map((event) => event.seq)).toEqual(
      events.map((_event, index) => index + 1),
    );
    const times = events.map((event) => event.atMs);
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });

  test("played back, the events lead from state to state to the present one", async ({
    backend,
    passTime,
  }) => {
    const executionId = await eventful(backend, passTime);
    const { events } = await backend.readEvents({ executionId });
    let state: ExecutionEvent["toState"];
    for (const event of events) {
      expect(event.fromState, `before ${event.type}`).toEqual(
        event.toState === undefined ? undefined : state,
      );
      state = event.toState ?? state;
    }
    const snapshot = await backend.describeExecution({ executionId });
    expect(state).toEqual(snapshot?.stateVector);
  });

  test("an event tells who caused it, in which attempt, under which epoch", async ({
    backend,
    passTime,
  }) => {
    const executionId = await eventful(backend, passTime);
    const { events } = await backend.readEvents({ executionId });
    const actorOf = (type: string) =>
      new Set(
        events
          .filter((event) => event.type === type)
          .map((event) => event.actor),
      );
    for (const [type, actor] of [
      ["created", "client"],
      ["claimed", "worker"],
      ["resumed", "worker"],
      ["reclaimed", "worker"],
      ["delayed", "worker"],
      ["completed", "worker"],
      ["held", "operator"],
      ["cancelled", "operator"],
      ["lease_revoked", "operator"],
      ["promoted", "engine"],
      ["lease_expired", "engine"],
    ] as const)
      expect(actorOf(type), type).toEqual(new Set([actor]));

    const leases = events
      .filter((event) =>
        ["claimed", "resumed", "reclaimed"].includes(event.type),
      )
      .map((event) => [event.leaseEpoch, event.attemptIndex]);
    expect(leases).toEqual([
      [1, 0],
      [2, 0],
      [3, 1],
      [4, 2],
      [5, 3],
    ]);
  });

  test("the history is read in pages", async (bench) => {
    const { backend } = bench;
    const executionId = await eventful(backend, bench.passTime);
    const { events } = await backend.readEvents({ executionId });
    const paged: ExecutionEvent[] = [];
    for (;;) {
      const page = await backend.readEvents({
        executionId,
        after: paged.at(-1)?.seq ?? 0,
        limit: 3,
      });
      if (page.events.length === 0) break;
      expect(page.events.length).toBeLessThanOrEqual(3);
      paged.push(...page.events);
    }
    expect(paged).toEqual(events);
    for (const input of [{ after: -1 }, { limit: 0 }, { limit: 1_001 }])
      await expectRefused(
        backend.readEvents({ executionId, ...input }),
        "invalid_input",
      );
  });

  test("an unknown execution has no history", async ({ backend }) => {
    expect(await backend.readEvents({ executionId: UNKNOWN_ID })).toEqual({
      events: [],
    });
    const { executionId } = await submitted(backend, { namespace: "mine" });
    expect(
      await backend.readEvents({ executionId, namespace: "yours" }),
    ).toEqual({ events: [] });
  });

  test("a tail answers what is there, waits for what is not, and can be given up", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    const { executionId } = await submitted(backend);
    const seen = await backend.tailEvents({ executionId, blockMs: 30_000 });
    expect(seen.events).toHaveLength(1);

    for (const [index, writer] of [backend, other].entries()) {
      const { events } = await backend.readEvents({ executionId });
      const waiting = backend.tailEvents({
        executionId,
        after: events.length,
        blockMs: 30_000,
      });
      await sleep(20);
      await writer.setExecutionTag({ executionId, key: "a", value: "b" });
      await writer.changePriority({ executionId, newPriority: index + 1 });
      const tail = await within(10_000, "the tail", waiting);
      expect(tail.events.map((event) => event.type)).toEqual([
        "priority_changed",
      ]);
    }

    const giveUp = new AbortController();
    const waiting = backend.tailEvents({
      executionId,
      after: 3,
      blockMs: 30_000,
      signal: giveUp.signal,
    });
    await sleep(20);
    giveUp.abort();
    expect(await within(5_000, "the abort", waiting)).toEqual({ events: [] });
    expect(
      await backend.tailEvents({ executionId, after: 3, blockMs: 50 }),
    ).toEqual({ events: [] });
    await expectRefused(
      backend.tailEvents({ executionId, blockMs: 30_001 }),
      "invalid_input",
    );
  });

  test("of a long history the newest thousand stay, and creation and ends, with a mark for the rest", async ({
    backend,
    passTime,
  }) => {
    const { executionId, laneId } = await completed(backend);
    await backend.replayExecution({ executionId });
    for (let n = 0; n < 600; n++) {
      await backend.holdExecution({ executionId });
      await backend.unholdExecution({ executionId });
    }
    await taken(backend, laneId);
    // Past any age at which a trimmer might begin.
    await passTime(HOUR_MS);
    while ((await backend.sweep({ name: "event_trimmer" })).more);

    const events: ExecutionEvent[] = [];
    for (;;) {
      const page = await backend.readEvents({
        executionId,
        after: events.at(-1)?.seq ?? 0,
      });
      const fresh = page.events.filter(
        (event) => event.seq > (events.at(-1)?.seq ?? 0),
      );
      if (fresh.length === 0) break;
      events.push(...fresh);
    }
    const total = 1_205;
    expect(events.at(-1)).toMatchObject({ seq: total, type: "claimed" });
    expect(events[0]).toMatchObject({ seq: 1, type: "created" });
    expect(events).toContainEqual(
      expect.objectContaining({ seq: 3, type: "completed" }),
    );
    const newest = events.filter((event) => event.seq > total - 1_000);
    expect(newest).toHaveLength(1_000);
    expect(events.length).toBeLessThan(1_010);

    // Events and marks together leave no number out.
    let next = 1;
    for (const event of events) {
      if (event.type === "trimmed") {
        expect(event.data).toEqual({ fromSeq: next, toSeq: event.seq });
        next = event.seq + 1;
      } else {
        expect(event.seq).toBe(next);
        next += 1;
      }
    }
    expect(next).toBe(total + 1);
  });
});

/** History of one execution, and feeds over all of them. */
export const eventsConformance: Group = (harness, registrar) => {
  history(harness, registrar);
  feedsConformance(harness, registrar);
  cursorsConformance(harness, registrar);
  tagFeedConformance(harness, registrar);
};
