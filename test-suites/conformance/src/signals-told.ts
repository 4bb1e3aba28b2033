import { getEventListeners, setMaxListeners } from "node:events";

import { EARLIEST, type SignalDeliveryEvent } from "@flowfabric/core";
import { expect } from "vitest";

import { eventually, expectRefused, sleep, within } from "./assertions.js";
import { running } from "./builders.js";
import { drainFeed, take } from "./feed-readers.js";
import { group } from "./harness.js";
import { scaled } from "./settings.js";
import {
  allOf,
  count,
  effectOf,
  keyed,
  signalInput,
  single,
  suspended,
  waitpointOf,
} from "./suspension-builders.js";

/** What subscribers hear of deliveries. */
export const signalFeedConformance = group("signal feed", (test) => {
  test("every accepted signal is told by what it did, and each repeated one once", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const feed = await backend.subscribeSignalDelivery({});
    const early = await waitpointOf(backend, await running(backend));
    await effectOf(backend, early, { sourceIdentity: "ann" });
    const plain = await suspended(backend, {
      resumeCondition: single("approve", "go"),
    });
    await effectOf(backend, plain.target, { signalName: "other" });
    const input = signalInput(plain.target, { idempotencyKey: "k" });
    await backend.deliverSignal(input);
    const repeats = Array.from({ length: scaled(1_000, 100) }, () =>
      backend.deliverSignal(input),
    );
    await Promise.all(repeats);
    const votes = await suspended(backend, {
      keys: ["a", "b"],
      resumeCondition: allOf(
        count(1, "distinctSources", ["a"]),
        single("b", "go"),
      ),
    });
    await effectOf(backend, votes.targets[0]!);
    await effectOf(backend, votes.targets[0]!);
    await effectOf(backend, votes.targets[1]!, { signalName: "x" });
    await expectRefused(effectOf(backend, plain.target), "waitpoint_closed");
    await effectOf(backend, votes.targets[1]!);

    const told = await take(feed, 8);
    expect(told.map(({ effect }) => effect)).toEqual([
      "buffered",
      "other(no_op)",
      "satisfied",
      "deduped",
      "other(appended_to_waitpoint)",
      "other(appended_to_waitpoint_duplicate)",
      "other(signal_ignored_matcher_failed)",
      "satisfied",
    ]);
    expect(told[0]).toMatchObject({
      kind: "signalDelivery",
      executionId: early.executionId,
      waitpointId: early.waitpointId,
      sourceIdentity: "ann",
      namespace: "default",
    });
    expect(told[1]).not.toHaveProperty("sourceIdentity");
    for (const event of [told[2], told[3]])
      expect(event).toMatchObject({
        signalId: input.signalId,
        waitpointId: plain.target.waitpointId,
      });
    // Nothing more, and the same again from the start; a cursor stands behind its event.
    const drain = (cursor: string) =>
      drainFeed<SignalDeliveryEvent>((signal) =>
        backend.subscribeSignalDelivery({ cursor, signal }),
      );
    expect(await drain(EARLIEST)).toEqual(told);
    for (const [at, { cursor }] of told.entries()) {
      const feed = await backend.subscribeSignalDelivery({ cursor });
      expect(await take(feed, told.length - at - 1)).toEqual(
        told.slice(at + 1),
      );
    }
    // A repeat is no part of the history.
    const { events } = await backend.readEvents(plain);
    expect(events.filter(({ type }) => type === "signal")).toHaveLength(2);
  });

  test("feeds that are closed leave nothing behind", async ({ backend }) => {
    const { signal } = new AbortController();
    setMaxListeners(0, signal);
    const openAndClose = async (count: number) => {
      const iterators = await Promise.all(
        Array.from({ length: count }, async () => {
          const feed = await backend.subscribeSignalDelivery({ signal });
          return feed[Symbol.asyncIterator]();
        }),
      );
      const waiting = iterators.map((one) => one.next());
      await sleep(20);
      const ends = iterators.map((one) => one.return?.());
      await within(1_000, "the ends", Promise.all([...ends, ...waiting]));
    };
    const held = () =>
      process
        .getActiveResourcesInfo()
        .filter((name) => name === "Timeout" || name.endsWith("Wrap")).length;
    // What a process opens once and keeps.
    await openAndClose(20);
    const before = held();
    await openAndClose(scaled(1_000, 100));
    expect(getEventListeners(signal, "abort")).toEqual([]);
    await eventually(
      async () => held() <= before + 5,
      2_000,
      "what the feeds held is given back",
    );
  });

  test("subscribers see what they filter for", async ({ backend }) => {
    const shop = await suspended(
      backend,
      {},
      { namespace: "shop", tags: { team: "a" } },
    );
    const other = await suspended(backend, {}, { tags: { team: "b" } });
    for (const { target } of [shop, other]) await effectOf(backend, target);
    const drain = (filter: object) =>
      drainFeed<SignalDeliveryEvent>((signal) =>
        backend.subscribeSignalDelivery({ cursor: EARLIEST, filter, signal }),
      );
    const idsOf = (events: SignalDeliveryEvent[]) =>
      events.map(({ executionId }) => executionId);
    expect(idsOf(await drain({ namespace: "shop" }))).toEqual([
      shop.executionId,
    ]);
    expect(idsOf(await drain({ instanceTag: ["team", "b"] }))).toEqual([
      other.executionId,
    ]);
    expect(
      idsOf(await drain({ namespace: "shop", instanceTag: ["team", "b"] })),
    ).toEqual([]);
    await expectRefused(
      backend.subscribeSignalDelivery({ cursor: "!!" }),
      "invalid_offset",
    );
  });
});
