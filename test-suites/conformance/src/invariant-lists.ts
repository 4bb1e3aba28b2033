/** Lists, scans and feeds against what a look at each execution tells (04 §6, 00 D54). */
import {
  EARLIEST,
  type CompletionEvent,
  type EngineBackend,
  type LeaseHistoryEvent,
} from "@flowfabric/core";
import { expect } from "vitest";

import { drainFeed } from "./feed-readers.js";
import { lookAt, type Looked } from "./invariant-checks.js";
import type { World } from "./model.js";
import { homeOf } from "./states.js";

/** Every execution; side by side, for most of the suite's time goes by here. */
export async function looksNow(
  backend: EngineBackend,
  world: World,
): Promise<Looked[]> {
  return await Promise.all(
    [...world.ids].map((executionId) => lookAt(backend, executionId)),
  );
}

/**
 * I14, I15, I54 of D54: every list agrees with looking at each execution. Time moves while it is looked, so whatever changed
 * between a look before and a look after is left out.
 */
export async function checkLists(
  backend: EngineBackend,
  world: World,
): Promise<void> {
  const before = await looksNow(backend, world);
  const lists = {
    all: await backend.listExecutions({ limit: 1_000 }),
    active: await backend.listExecutions({
      limit: 1_000,
      publicStates: ["active"],
    }),
    waiting: await backend.listExecutions({
      limit: 1_000,
      publicStates: ["waiting", "rate_limited"],
      lanes: [world.lanes[0]!],
      namespace: "default",
    }),
  };
  const tagQuery = { match: { any: [{ key: "team", value: "1" }] } };
  const tagged = await backend.searchByTags({ ...tagQuery, limit: 1_000 });
  const taggedCount = await backend.countByTags(tagQuery);
  const scan = await backend.scanEligibleExecutions({
    laneId: world.lanes[1]!,
    limit: 1_000,
  });
  const suspended = await backend.listSuspended({ limit: 1_000 });
  const lapsedBefore = await backend.serverTimeMs();
  const lapsed = await backend.listExpiredLeases({});
  const after = await looksNow(backend, world);

  const steady = new Set<string>();
  const moving = new Set<string>();
  for (const [index, { snapshot }] of before.entries()) {
    const same =
      homeOf(snapshot.stateVector) ===
      homeOf(after[index]!.snapshot.stateVector);
    (same ? steady : moving).add(snapshot.executionId);
  }
  const agree = (
    what: string,
    listed: readonly string[],
    belongs: (look: Looked) => boolean,
  ) => {
    const expected = after
      .filter(belongs)
      .map(({ snapshot }) => snapshot.executionId as string)
      .filter((executionId) => steady.has(executionId));
    const seen = listed.filter((executionId) => !moving.has(executionId));
    expect([...seen].sort(), what).toEqual([...expected].sort());
    return seen;
  };
  agree("the whole list", lists.all.executions, () => true);
  const order = new Map<string, number>(
    lists.all.executions.map((executionId, index) => [executionId, index]),
  );
  for (const list of [lists.active, lists.waiting]) {
    const places = list.executions.map((executionId) =>
      order.get(executionId)!,
    );
    expect(places, "lists keep the order of creation").toEqual(
      [...places].sort((a, b) => a - b),
    );
  }
  agree(
    "active ones",
    lists.active.executions,
    ({ snapshot }) => snapshot.publicState === "active",
  );
  agree(
    "waiting ones of a lane and namespace",
    lists.waiting.executions,
    ({ snapshot }) =>
      ["waiting", "rate_limited"].includes(snapshot.publicState) &&
      snapshot.laneId === world.lanes[0] &&
      snapshot.namespace === "default",
  );
  const listed = agree(
    "suspended ones",
    suspended.entries.map((entry) => entry.executionId),
    ({ snapshot }) => snapshot.publicState === "suspended",
  );
  expect(
    suspended.entries.map((entry) => entry.suspendedAtMs),
    "by the time they suspended",
  ).toEqual(
    suspended.entries.map((entry) => entry.suspendedAtMs).sort((a, b) => a - b),
  );
  expect(listed.length, "no suspended one twice").toBe(new Set(listed).size);
  const found = tagged.entries.map((entry) => entry.executionId);
  agree("tagged ones", found, ({ snapshot }) => snapshot.tags["team"] === "1");
  expect(taggedCount, "countByTags").toBe(found.length);

  const eligible = new Map(
    after
      .filter(
        ({ snapshot }) =>
          snapshot.laneId === world.lanes[1] &&
          homeOf(snapshot.stateVector) === "RE",
      )
      .map((look) => [look.snapshot.executionId as string, look]),
  );
  // A grant leaves no trace in a snapshot, so granted ones are looked at from the other side only. Past its deadline
  // nothing is begun.
  const now = await backend.serverTimeMs();
  const certain = [...eligible.values()].filter(
    ({ snapshot }) =>
      world.grantOf(snapshot.executionId) === undefined &&
      (snapshot.executionDeadlineAtMs ?? Infinity) > now,
  );
  for (const executionId of scan)
    if (steady.has(executionId))
      expect(eligible.has(executionId), "scans list eligible ones only").toBe(
        true,
      );
  for (const { snapshot } of certain)
    if (steady.has(snapshot.executionId))
      expect(scan, "scans list every eligible one").toContain(
        snapshot.executionId,
      );
  const keys = scan
    .filter((executionId) => eligible.has(executionId))
    .map((executionId) => eligible.get(executionId)!.snapshot);
  expect(
    keys.map((snapshot) => snapshot.executionId),
    "scans are in claim order",
  ).toEqual(
    [...keys]
      .sort(
        (a, b) =>
          b.priority - a.priority ||
          a.createdAtMs - b.createdAtMs ||
          (a.executionId < b.executionId ? -1 : 1),
      )
      .map((snapshot) => snapshot.executionId),
  );

  const lapsedIds = new Set<string>(
    lapsed.entries.map((entry) => entry.executionId),
  );
  for (const { snapshot } of after) {
    if (!steady.has(snapshot.executionId)) continue;
    const isLapsed = homeOf(snapshot.stateVector) === "AX";
    if (lapsedIds.has(snapshot.executionId))
      expect(isLapsed, "listExpiredLeases lists lapsed ones only").toBe(true);
    else if (isLapsed)
      expect(
        snapshot.currentLease!.expiresAtMs,
        "listExpiredLeases lists every lapsed one",
      ).toBeGreaterThan(lapsedBefore);
  }
}

/** I54: one completion per end, and the lease feed tells what the histories tell. */
export async function checkFeeds(
  backend: EngineBackend,
  looked: ReadonlyMap<string, Looked>,
): Promise<void> {
  const ends: string[] = [];
  const acquired: string[] = [];
  for (const [executionId, { events }] of looked) {
    for (const event of events) {
      if (event.toState?.lifecyclePhase === "terminal")
        ends.push(`${executionId} ${event.toState.terminalOutcome}`);
      if (["claimed", "resumed", "reclaimed"].includes(event.type))
        acquired.push(executionId);
    }
  }
  const completions = await drainFeed<CompletionEvent>(
    (signal) => backend.subscribeCompletion({ cursor: EARLIEST, signal }),
    15,
    (events) => events.length >= ends.length,
  );
  expect(
    completions
      .map(
        ({ executionId, outcome }) =>
          `${executionId} ${outcome === "failure" ? "failed" : outcome}`,
      )
      .sort(),
    "I54",
  ).toEqual(ends.sort());
  const leases = await drainFeed<LeaseHistoryEvent>(
    (signal) => backend.subscribeLeaseHistory({ cursor: EARLIEST, signal }),
    15,
    (events) => events.filter(isAcquisition).length >= acquired.length,
  );
  expect(
    leases
      .filter(isAcquisition)
      .map(({ executionId }) => executionId)
      .sort(),
    "lease feed",
  ).toEqual(acquired.sort());
}

function isAcquisition({ kind }: LeaseHistoryEvent): boolean {
  return kind === "acquired" || kind === "reclaimed";
}
