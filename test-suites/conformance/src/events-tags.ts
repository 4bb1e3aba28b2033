import { EARLIEST, type InstanceTagEvent } from "@flowfabric/core";
import { expect } from "vitest";

import { completed, submitted } from "./builders.js";
import { drainFeed, take } from "./feed-readers.js";
import { group } from "./harness.js";

/** What subscribers hear of tags. */
export const tagFeedConformance = group("tag feed", (test) => {
  test("tags are told as they come and go", async ({ backend }) => {
    const feed = await backend.subscribeInstanceTags({});
    await submitted(backend);
    const { executionId } = await completed(backend, {
      tags: { b: "2", a: "1" },
      policy: { streamPolicy: { retentionTtlMs: 0 } },
    });
    const set = (key: string, value: string) =>
      backend.setExecutionTag({ executionId, key, value });
    await set("c", "3");
    await set("a", "1");
    await set("a", "9");
    while ((await backend.sweep({ name: "retention_trimmer" })).more);

    const told = await take(feed, 8);
    expect(told.map(({ kind, tag }) => `${kind} ${tag}`)).toEqual([
      "attached a=1",
      "attached b=2",
      "attached c=3",
      "cleared a=1",
      "attached a=9",
      "cleared a=9",
      "cleared b=2",
      "cleared c=3",
    ]);
    expect(new Set(told.map((event) => event.executionId))).toEqual(
      new Set([executionId]),
    );
    expect(told.map(({ tags }) => tags)).toEqual([
      { a: "1", b: "2" },
      { a: "1", b: "2" },
      { a: "1", b: "2", c: "3" },
      ...Array.from({ length: 5 }, () => ({ a: "9", b: "2", c: "3" })),
    ]);
    const drain = (cursor: string) =>
      drainFeed<InstanceTagEvent>((signal) =>
        backend.subscribeInstanceTags({ cursor, signal }),
      );
    expect(await drain(EARLIEST)).toEqual(told);
    // From the midst of a step one sees all of it again; behind its last event, what is behind it.
    expect(await drain(told[1]!.cursor)).toEqual(told.slice(2));
    expect(await drain(told[3]!.cursor)).toEqual(told.slice(3));
    expect(await drain(told.at(-1)!.cursor)).toEqual([]);
  });

  test("a filter goes by the tags of that moment", async ({ backend }) => {
    const { executionId } = await submitted(backend, {
      namespace: "shop",
      tags: { team: "a" },
    });
    await backend.setExecutionTag({ executionId, key: "team", value: "b" });
    const drain = (filter: object) =>
      drainFeed<InstanceTagEvent>((signal) =>
        backend.subscribeInstanceTags({ cursor: EARLIEST, filter, signal }),
      );
    const told = (events: InstanceTagEvent[]) =>
      events.map(({ kind, tag }) => `${kind} ${tag}`);
    expect(told(await drain({ instanceTag: ["team", "a"] }))).toEqual([
      "attached team=a",
    ]);
    expect(told(await drain({ instanceTag: ["team", "b"] }))).toEqual([
      "cleared team=a",
      "attached team=b",
    ]);
    expect(await drain({ namespace: "default" })).toEqual([]);
  });
});
