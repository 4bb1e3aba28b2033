import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { completed, MINUTE_MS } from "./builders.js";
import { drainCompletions, drainLeases, take } from "./feed-readers.js";
import { group } from "./harness.js";

/** Going on where one has stopped. */
export const cursorsConformance = group("positions in feeds", (test) => {
  test("from any event's cursor the feed goes on behind it", async ({
    backend,
  }) => {
    for (let n = 0; n < 6; n++) await completed(backend);
    const all = await drainCompletions(backend);
    expect(all).toHaveLength(6);
    for (const [index, event] of all.entries()) {
      const feed = await backend.subscribeCompletion({
        cursor: event.cursor,
      });
      expect(await take(feed, all.length - index - 1)).toEqual(
        all.slice(index + 1),
      );
    }
  });

  test("a cursor of another family is a position all the same", async ({
    backend,
  }) => {
    const first = await completed(backend);
    const second = await completed(backend);
    const acquired = (await drainLeases(backend)).filter(
      (event) => event.executionId === second.executionId,
    );
    const feed = await backend.subscribeCompletion({
      cursor: acquired[0]!.cursor,
    });
    const events = await take(feed, 1);
    expect(events).toMatchObject([{ executionId: second.executionId }]);
    expect(events[0]?.executionId).not.toBe(first.executionId);
  });

  test("a cursor that was not made here is refused at the call", async ({
    backend,
  }) => {
    const base64 = (...bytes: number[]) =>
      Buffer.from(bytes).toString("base64url");
    for (const cursor of [
      "not base64url!",
      base64(0xff),
      base64(0x7e, 1, 2, 3),
      base64(0x00, 0x00),
      "a".repeat(300),
    ])
      await expectRefused(
        backend.subscribeCompletion({ cursor }),
        "invalid_offset",
      );
  });

  test(
    "behind what is kept a cursor is refused with the earliest one that is good",
    { open: { feedRetentionMs: MINUTE_MS } },
    async ({ backend, passTime }) => {
      await completed(backend);
      await completed(backend);
      const [old] = await drainCompletions(backend);
      await passTime(2 * MINUTE_MS);
      await completed(backend);
      while ((await backend.sweep({ name: "event_trimmer" })).more);

      const error = await expectRefused(
        backend.subscribeCompletion({ cursor: old!.cursor }),
        "cursor_expired",
      );
      const kept = await drainCompletions(backend, {
        cursor: error.detail.earliest,
      });
      expect(kept).toHaveLength(1);
      expect(await drainCompletions(backend)).toEqual(kept);
    },
  );
});
