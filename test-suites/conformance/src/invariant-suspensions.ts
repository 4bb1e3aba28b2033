/** Suspensions, waitpoints and signals against each other, on a store at rest. */
import {
  EARLIEST,
  type EngineBackend,
  type SignalDeliveryEvent,
} from "@flowfabric/core";
import { expect } from "vitest";

import { drainFeed } from "./feed-readers.js";
import type { Looked } from "./invariant-checks.js";
import type { World } from "./model.js";

/** I12, I55: what takes signals belongs to an attempt that is not over, and to the open suspension if it is active. */
export async function checkWaitpoints(
  backend: EngineBackend,
  { snapshot, events }: Looked,
): Promise<void> {
  const { executionId, publicState, currentWaitpoint } = snapshot;
  const { entries } = await backend.listPendingWaitpoints({ executionId });
  const active = entries.filter(({ state }) => state === "active");
  expect(currentWaitpoint !== undefined, "I12").toBe(
    publicState === "suspended",
  );
  if (publicState !== "suspended") expect(active, "I12").toEqual([]);
  if (snapshot.completedAtMs !== undefined) expect(entries, "I55").toEqual([]);

  // One signal at most ends a suspension, and each end is one.
  let open = false;
  for (const { type, fromState, toState } of events) {
    if (type === "suspended") {
      expect(open, "one suspension at a time").toBe(false);
      open = true;
    } else if (
      toState !== undefined &&
      fromState?.lifecyclePhase === "suspended" &&
      toState.lifecyclePhase !== "suspended"
    )
      open = false;
  }
  expect(open, "I12 by the events").toBe(publicState === "suspended");
}

/** G3, G10: every accepted signal is in the history of its execution once, with the effect it was answered with. */
export function checkSignals(
  world: World,
  looked: ReadonlyMap<string, Looked>,
): void {
  const told = new Map<unknown, unknown>();
  for (const { events } of looked.values())
    for (const { type, data } of events)
      if (type === "signal") {
        expect(told.has(data?.["signalId"]), "a signal is told once").toBe(
          false,
        );
        told.set(data?.["signalId"], data?.["effect"]);
      }
  for (const { signalId, effect } of world.signals)
    expect(told.get(signalId), "an accepted signal is an event").toBe(effect);
}

/** The feed of deliveries tells what the histories tell; repeats come once each. */
export async function checkSignalFeed(
  backend: EngineBackend,
  looked: ReadonlyMap<string, Looked>,
): Promise<void> {
  const expected = [...looked.values()].flatMap(({ events }) =>
    events.flatMap(({ type, data }) =>
      type === "signal" ? [data!["signalId"] as string] : [],
    ),
  );
  const isAccepted = ({ effect }: SignalDeliveryEvent) => effect !== "deduped";
  const feed = await drainFeed<SignalDeliveryEvent>(
    (signal) => backend.subscribeSignalDelivery({ cursor: EARLIEST, signal }),
    15,
    (events) => events.filter(isAccepted).length >= expected.length,
  );
  const idsOf = (events: readonly SignalDeliveryEvent[]) =>
    events.map(({ signalId }) => signalId as string).sort();
  expect(idsOf(feed.filter(isAccepted)), "signal feed").toEqual(
    expected.sort(),
  );
  const repeated = idsOf(feed.filter((event) => !isAccepted(event)));
  expect(new Set(repeated).size, "repeats are told once").toBe(repeated.length);
}
