import type { ExecutionId, HandlePayload } from "@flowfabric/core";
import { expect } from "vitest";

import { everythingAbout, expectRefused, sleep } from "./assertions.js";
import {
  completed,
  failed,
  lapsed,
  LEASE_TTL_MS,
  parked,
  reclaimed,
  revoked,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
  uuid,
} from "./builders.js";
import { group, type Group } from "./harness.js";
import { scaled } from "./settings.js";
import {
  append,
  appendAll,
  forged,
  frame,
  frames,
  idsOf,
  isLater,
  LIVE,
  patch,
  read,
  textsOf,
} from "./stream-builders.js";
import { closingConformance } from "./streams-closing.js";
import { modesConformance } from "./streams-modes.js";
import { silencesConformance } from "./streams-suspended.js";
import { tailsConformance } from "./streams-tails.js";

/** What a handler writes in one turn does not wait for each other. */
const WRITTEN_AT_ONCE = 20;

const appending = group("appending to streams", (test) => {
  test("frames are numbered upwards, whatever the clock does", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    const ids: string[] = [];
    for (let round = 0; round < 4; round++) {
      const all = frames(scaled(25_000, 300));
      const appended = await appendAll(backend, claimed, all);
      ids.push(...appended.map(({ streamId }) => streamId));
      await passTime(round === 1 ? -10_000 : 1);
      ids.push((await append(backend, claimed, "alone")).streamId);
    }
    for (const id of ids) expect(id).toMatch(/^\d+-\d+$/);
    const first = ids.findIndex(
      (id, index) => index > 0 && !isLater(ids[index - 1]!, id),
    );
    expect(first, `${ids[first - 1]} then ${ids[first]}`).toBe(-1);
  });

  test("every append is counted, in every mode, trimmed or not", async ({
    backend,
  }) => {
    const claimed = await running(backend, {
      policy: { streamPolicy: { retentionMaxlen: 3 } },
    });
    const counts = [
      ...(await appendAll(backend, claimed, frames(5))),
      await append(backend, claimed, "{}", patch({})),
      await append(backend, claimed, "live", { mode: LIVE }),
      ...(await appendAll(backend, claimed, frames(2))),
    ].map(({ frameCount }) => frameCount);
    expect(counts).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(textsOf(await read(backend, claimed))).toEqual([
      "4",
      "{}",
      "live",
      "0",
      "1",
    ]);
  });

  test("a frame may have 65 536 bytes and no more", async ({ backend }) => {
    const claimed = await running(backend);
    const most = new Uint8Array(65_536).fill(7);
    await backend.appendFrame({
      handle: claimed.handle,
      frame: { bytes: most },
    });
    for (const bytes of [
      new Uint8Array(65_537),
      new TextEncoder().encode("€".repeat(21_846)),
    ])
      await expectRefused(
        backend.appendFrame({ handle: claimed.handle, frame: { bytes } }),
        "retention_limit_exceeded",
        { maxBytes: 65_536 },
      );
    const page = await read(backend, claimed);
    expect(page.frames).toHaveLength(1);
    expect(page.frames[0]!.payload.length).toBe(65_536);
  });

  test("bytes are kept exactly, and text is told from binary", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const every = Uint8Array.from({ length: 256 }, (_one, value) => value);
    await backend.appendFrame({
      handle: claimed.handle,
      frame: { bytes: every, kind: "blob" },
    });
    await append(backend, claimed, "grün 🦀", {
      frameType: "delta",
      correlationId: "c-1",
      seq: 9,
    });
    await append(backend, claimed, "");
    const { frames: shown } = await read(backend, claimed);
    expect(Buffer.from(shown[0]!.payload).equals(Buffer.from(every))).toBe(
      true,
    );
    expect(shown.map(({ fields }) => fields["encoding"])).toEqual([
      "base64",
      "utf8",
      "utf8",
    ]);
    expect(shown.map(({ fields }) => fields["frame_type"])).toEqual([
      "blob",
      "delta",
      "event",
    ]);
    const { payload, ...fields } = shown[1]!.fields;
    expect(Buffer.from(payload as Uint8Array).toString()).toBe("grün 🦀");
    expect(fields).toEqual({
      correlation_id: "c-1",
      encoding: "utf8",
      frame_type: "delta",
      mode: "durable",
      seq: "9",
      source: "worker",
      ts: expect.stringMatching(/^\d+$/) as unknown,
    });
    expect(shown[2]!.payload.length).toBe(0);
  });

  test("only the holder of the live lease appends", async (bench) => {
    const { backend } = bench;
    const claimed = await running(backend);
    const wrong: Partial<HandlePayload>[] = [
      { leaseId: uuid() as HandlePayload["leaseId"] },
      { leaseEpoch: 2 },
      { leaseEpoch: 0 },
      { attemptId: uuid() as HandlePayload["attemptId"] },
      { attemptIndex: 1 },
    ];
    for (const change of wrong)
      await expectRefused(
        append(backend, forged(backend, claimed, change), "x"),
        "stale_owner_cannot_append",
      );
    expect((await read(backend, claimed)).frames).toEqual([]);

    const { stale, current } = await reclaimed(bench);
    await append(backend, current, "mine");
    for (const lost of [await lapsed(bench), await revoked(bench), stale]) {
      await expectRefused(
        append(backend, lost, "x"),
        "stale_owner_cannot_append",
      );
      expect((await read(backend, lost)).frames).toEqual([]);
    }
    expect(textsOf(await read(backend, current))).toEqual(["mine"]);
  });

  test("a lease lets append until the instant it runs out", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(backend);
    await passTime(LEASE_TTL_MS - 5_000);
    await append(backend, claimed, "in time");
    await passTime(5_000);
    await expectRefused(
      append(backend, claimed, "late"),
      "stale_owner_cannot_append",
    );
    expect(textsOf(await read(backend, claimed))).toEqual(["in time"]);
  });

  test("an attempt that is over or parked takes no frames", async ({
    backend,
    passTime,
  }) => {
    const cancelled = await running(backend);
    await backend.cancelExecution({ ...cancelled, reason: "r" });
    const timedOut = await running(backend, {
      policy: { timeoutPolicy: { attemptTimeoutMs: 1_000 } },
    });
    await passTime(1_000);
    await backend.expireExecution({
      executionId: timedOut.executionId,
      reason: "attempt_timeout",
    });
    const retried = await running(backend, {
      policy: { retryPolicy: { maxRetries: 1 } },
    });
    await backend.fail({
      handle: retried.handle,
      reason: { message: "once" },
      classification: "transient",
    });
    for (const over of [
      await completed(backend),
      await failed(backend),
      await parked(backend),
      cancelled,
      timedOut,
      retried,
    ]) {
      await expectRefused(append(backend, over, "x"), "stream_closed");
      expect((await read(backend, over)).frames).toEqual([]);
    }
  });

  test("a resumed attempt goes on with its stream, a retry begins another", async ({
    backend,
    passTime,
  }) => {
    const { executionId, laneId } = await submitted(backend, {
      policy: {
        retryPolicy: { backoff: { type: "fixed", delayMs: 0 } },
      },
    });
    const first = await taken(backend, laneId);
    const one = await append(backend, first, "one");
    await backend.delay({ handle: first.handle, delayUntilMs: 1 });
    await passTime(-5_000);
    const second = await taken(backend, laneId);
    expect(second.attemptIndex).toBe(0);
    const two = await append(backend, second, "two");
    expect(isLater(one.streamId, two.streamId)).toBe(true);
    expect(two.frameCount).toBe(2);
    await backend.fail({
      handle: second.handle,
      reason: { message: "once" },
      classification: "transient",
    });
    const third = await taken(backend, laneId);
    expect(await append(backend, third, "three")).toMatchObject({
      frameCount: 1,
    });
    expect(textsOf(await read(backend, first))).toEqual(["one", "two"]);
    expect(
      textsOf(await read(backend, { executionId, attemptIndex: 1 })),
    ).toEqual(["three"]);
  });

  test("an append changes nothing but its stream, a lapse that it finds included", async (bench) => {
    const { backend } = bench;
    const claimed = await running(backend);
    const { executionId } = claimed;
    const before = await everythingAbout(backend, executionId);
    await append(backend, claimed, "x");
    await append(backend, claimed, "{}", patch({}));
    expect(await everythingAbout(backend, executionId)).toEqual(before);
    const lost = await lapsed(bench);
    const asLost = await everythingAbout(backend, lost.executionId);
    await expectRefused(
      append(backend, lost, "x"),
      "stale_owner_cannot_append",
    );
    expect(await everythingAbout(backend, lost.executionId)).toEqual(asLost);
  });

  test("with the caller's numbers a frame can be sent again", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const first = await append(backend, claimed, "a", { seq: 0 });
    expect(await append(backend, claimed, "a", { seq: 0 })).toEqual(first);
    await append(backend, claimed, "unnumbered");
    expect(await append(backend, claimed, "a", { seq: 0 })).toEqual(first);
    await append(backend, claimed, "b", { seq: 5 });
    for (const seq of [0, 4])
      await expectRefused(
        append(backend, claimed, "back", { seq }),
        "invalid_input",
        { reason: expect.stringMatching(/^seq_not_monotonic/) as unknown },
      );
    const patched = { ...patch({ n: 1 }), seq: 6 };
    const answer = await backend.appendFrame({
      handle: claimed.handle,
      frame: patched,
    });
    expect(answer.summaryVersion).toBe(1);
    expect(
      await backend.appendFrame({ handle: claimed.handle, frame: patched }),
    ).toEqual(answer);
    expect(textsOf(await read(backend, claimed))).toEqual([
      "a",
      "unnumbered",
      "b",
      '{"n":1}',
    ]);
  });

  test("a whole call can be sent again", async ({ backend }) => {
    const { handle, ...claimed } = await running(backend);
    const numbered = [
      frame("a", { seq: 3 }),
      { ...patch({ n: 1 }), seq: 4 },
      frame("b", { seq: 8, mode: LIVE }),
      { ...patch({ n: 2 }), seq: 9 },
      frame("c", { seq: 10 }),
    ];
    const appended = await backend.appendFrames({ handle, frames: numbered });
    expect(
      appended.map(({ frameCount, summaryVersion }) => [
        frameCount,
        summaryVersion,
      ]),
    ).toEqual([
      [1, undefined],
      [2, 1],
      [3, undefined],
      [4, 2],
      [5, undefined],
    ]);
    expect(await backend.appendFrames({ handle, frames: numbered })).toEqual(
      appended,
    );
    await expectRefused(
      backend.appendFrames({ handle, frames: numbered.slice(0, 2) }),
      "invalid_input",
    );
    const page = await read(backend, claimed);
    expect(idsOf(page)).toEqual(appended.map(({ streamId }) => streamId));
  });

  test("a call appends all of its frames or none", async ({ backend }) => {
    const { handle, ...claimed } = await running(backend);
    for (const wrong of [
      [frame("a"), patch({ n: 1 }), frame("[]", patch([]))],
      [frame("a"), patch({ big: "x".repeat(60_000) })].concat(
        Array.from({ length: 20 }, (_one, n) =>
          patch({ [`k${n}`]: "x".repeat(60_000) }),
        ),
      ),
    ]) {
      const refused = await backend
        .appendFrames({ handle, frames: wrong })
        .catch((error: { code: string }) => error.code);
      expect(["invalid_input", "retention_limit_exceeded"]).toContain(refused);
    }
    expect((await read(backend, claimed)).frames).toEqual([]);
    expect(await backend.readSummary(claimed)).toBeUndefined();
    for (const mixed of [
      [],
      [frame("a", { seq: 1 }), frame("b")],
      [frame("a"), frame("b", { seq: 1 })],
      [frame("a", { seq: 1 }), frame("b", { seq: 1 })],
    ])
      await expectRefused(
        backend.appendFrames({ handle, frames: mixed }),
        "invalid_input",
      );
  });

  test("appends at the same time are all there, each once", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const appended = await Promise.all(
      Array.from({ length: 100 }, (_one, n) =>
        append(backend, claimed, `${n}`),
      ),
    );
    expect(new Set(appended.map(({ streamId }) => streamId)).size).toBe(100);
    expect(
      appended.map(({ frameCount }) => frameCount).sort((a, b) => a - b),
    ).toEqual(Array.from({ length: 100 }, (_one, n) => n + 1));
    const page = await read(backend, claimed);
    expect(new Set(textsOf(page)).size).toBe(100);
  });

  test("one handler writes a thousand frames a second, kept in the order of its calls", async ({
    backend,
  }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    const count = 1_000;
    const startedAtMs = performance.now();
    for (let n = 0; n < count; n += WRITTEN_AT_ONCE)
      await Promise.all(
        Array.from({ length: WRITTEN_AT_ONCE }, (_one, at) =>
          append(backend, claimed, `${n + at}`),
        ),
      );
    const tookMs = performance.now() - startedAtMs;
    expect(textsOf(await read(backend, claimed))).toEqual(
      Array.from({ length: count }, (_one, n) => String(n)),
    );
    // A test's bound is ten times what is promised.
    expect(tookMs).toBeLessThan(10_000);
  });

  test("an append beside the end is before it or refused", async ({
    backend,
  }) => {
    for (let round = 0; round < scaled(50, 5); round++) {
      const claimed = await running(backend);
      const calls = Array.from({ length: 10 }, (_one, n) =>
        append(backend, claimed, `${n}`).then(
          ({ streamId }) => streamId,
          () => undefined,
        ),
      );
      await backend.complete({ handle: claimed.handle });
      const kept = (await Promise.all(calls)).filter((id) => id !== undefined);
      expect(new Set(idsOf(await read(backend, claimed)))).toEqual(
        new Set(kept),
      );
    }
  });

  test("what is unknown or another store's is told", async ({ backend }) => {
    const claimed = await running(backend);
    await expectRefused(
      append(
        backend,
        forged(backend, claimed, { executionId: UNKNOWN_ID as ExecutionId }),
        "x",
      ),
      "execution_not_found",
    );
    const foreign = { ...claimed.handle, backend: "elsewhere" };
    await expectRefused(
      append(backend, { handle: foreign }, "x"),
      "handle_from_other_backend",
    );
    await expectRefused(
      append(backend, claimed, "x", { mode: { kind: "other" } as never }),
      "invalid_input",
    );
    await expectRefused(
      append(backend, claimed, "x", { frameType: "x".repeat(129) }),
      "invalid_input",
    );
    await expectRefused(
      append(backend, claimed, "x", { correlationId: "x".repeat(257) }),
      "invalid_input",
    );
    expect((await read(backend, claimed)).frames).toEqual([]);
  });
});

const reading = group("reading streams", (test) => {
  test("bounds are inclusive, and bare milliseconds mean all of them", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(backend);
    await appendAll(backend, claimed, frames(3));
    await passTime(1_000);
    const [b0, b1] = await appendAll(backend, claimed, frames(2, undefined, 3));
    await passTime(1_000);
    await appendAll(backend, claimed, frames(2, undefined, 5));
    const textsFrom = async (from: string, to: string) =>
      textsOf(await read(backend, claimed, { from, to }));
    const ms = b0!.streamId.split("-")[0]!;

    expect(await textsFrom("start", "end")).toEqual("0123456".split(""));
    expect(await textsFrom("0-0", "18446744073709551615")).toEqual(
      "0123456".split(""),
    );
    expect(await textsFrom(b0!.streamId, b1!.streamId)).toEqual(["3", "4"]);
    expect(await textsFrom(b1!.streamId, b1!.streamId)).toEqual(["4"]);
    expect(await textsFrom(ms, ms)).toEqual(["3", "4"]);
    expect(await textsFrom(ms, "end")).toEqual(["3", "4", "5", "6"]);
    for (const [from, to] of [
      ["end", "end"],
      ["start", "start"],
      ["end", "start"],
      [b1!.streamId, b0!.streamId],
    ] as const)
      expect(await textsFrom(from, to)).toEqual([]);
  });

  test("limits are refused where they are wrong, never cut", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const { executionId, attemptIndex } = claimed;
    await appendAll(backend, claimed, frames(3));
    for (const countLimit of [0, -1, 1.5, Number.NaN, 10_001]) {
      await expectRefused(
        read(backend, claimed, { countLimit }),
        "invalid_input",
      );
      await expectRefused(
        backend.tailStream({
          executionId,
          attemptIndex,
          after: "0-0",
          countLimit,
        }),
        "invalid_input",
      );
    }
    expect(textsOf(await read(backend, claimed, { countLimit: 1 }))).toEqual([
      "0",
    ]);
    expect(
      (await read(backend, claimed, { countLimit: 10_000 })).frames,
    ).toHaveLength(3);
  });

  test("cursors have a form", async ({ backend }) => {
    const claimed = await running(backend);
    await append(backend, claimed, "x");
    for (const from of ["0", "0-0", "5-3", "start", "18446744073709551615-0"])
      await read(backend, claimed, { from });
    for (const bad of [
      "",
      "-",
      "+",
      "1-",
      "-1",
      "1-2-3",
      " 1",
      "a-b",
      "٣",
      "18446744073709551616",
    ])
      for (const bound of ["from", "to"])
        await expectRefused(
          read(backend, claimed, { [bound]: bad }),
          "invalid_offset",
          { value: bad },
        );
  });

  test("pages joined by their cursors have every frame once", async ({
    backend,
  }) => {
    const claimed = await running(backend, {
      policy: { streamPolicy: { retentionMaxlen: 30_000 } },
    });
    const count = scaled(25_000, 1_500);
    await appendAll(backend, claimed, frames(count));
    const seen: (string | undefined)[] = [];
    let after = "0-0";
    for (;;) {
      const page = await backend.tailStream({
        executionId: claimed.executionId,
        attemptIndex: 0,
        after,
        countLimit: 1_000,
      });
      if (page.frames.length === 0) break;
      seen.push(...textsOf(page));
      expect(page.truncated).toBe(seen.length < count);
      after = page.nextCursor;
    }
    expect(seen).toEqual(Array.from({ length: count }, (_one, n) => String(n)));
  });

  test("a page carries at most 16 MiB", async ({ backend }) => {
    const claimed = await running(backend);
    const large = frames(300).map((one) => ({
      ...one,
      bytes: new Uint8Array(65_536),
    }));
    for (let at = 0; at < large.length; at += 100)
      await backend.appendFrames({
        handle: claimed.handle,
        frames: large.slice(at, at + 100),
      });
    const first = await read(backend, claimed);
    expect(first.frames).toHaveLength(256);
    expect(first.truncated).toBe(true);
    const { nextCursor } = first;
    const rest = await backend.tailStream({
      executionId: claimed.executionId,
      attemptIndex: 0,
      after: nextCursor,
      countLimit: 10_000,
    });
    expect(rest.frames).toHaveLength(44);
    expect(rest.truncated).toBe(false);
  });

  test("a page is filled with what may be seen, and its cursor moves past the rest", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const mixed = frames(40).map((one, n) =>
      n % 8 === 3 ? one : { ...one, mode: LIVE },
    );
    const appended = await appendAll(backend, claimed, mixed);
    const visibility = "excludeBestEffort";
    const first = await read(backend, claimed, { visibility, countLimit: 3 });
    expect(textsOf(first)).toEqual(["3", "11", "19"]);
    expect(first).toMatchObject({ truncated: true, gap: false });
    expect(first.nextCursor).toBe(appended[19]!.streamId);
    const whole = await read(backend, claimed, { visibility });
    expect(textsOf(whole)).toEqual(["3", "11", "19", "27", "35"]);
    expect(whole.nextCursor).toBe(appended[39]!.streamId);
    expect(whole.truncated).toBe(false);
  });

  test("from the end there is nothing yet, and a cursor for what comes", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const { executionId, attemptIndex } = claimed;
    await append(backend, claimed, "old");
    const { nextCursor } = await read(backend, claimed, { from: "end" });
    await append(backend, claimed, "new");
    const page = await backend.tailStream({
      executionId,
      attemptIndex,
      after: nextCursor,
      countLimit: 10,
    });
    expect(textsOf(page)).toEqual(["new"]);
  });

  test("a stream that nobody wrote is empty and open, until its attempt ends", async ({
    backend,
  }) => {
    const open = {
      frames: [],
      nextCursor: "0-0",
      gap: false,
      truncated: false,
    };
    const claimed = await running(backend);
    expect(await read(backend, claimed)).toEqual(open);
    expect(await read(backend, { ...claimed, attemptIndex: 4 })).toEqual(open);
    expect(
      await read(backend, {
        executionId: UNKNOWN_ID as ExecutionId,
        attemptIndex: 0,
      }),
    ).toEqual(open);
    await append(backend, claimed, "x");
    expect(await read(backend, claimed, { namespace: "elsewhere" })).toEqual(
      open,
    );
    const silent = await completed(backend);
    const { completedAtMs } = (await backend.describeExecution(silent))!;
    expect(await read(backend, silent)).toEqual({
      ...open,
      closedAtMs: completedAtMs,
      closedReason: "attempt_success",
    });
  });

  test("once a page says closed, no later one has more", async ({
    backend,
  }) => {
    for (let round = 0; round < scaled(20, 4); round++) {
      const claimed = await running(backend);
      const writing = (async () => {
        for (let n = 0; n < 20; n++)
          await append(backend, claimed, `${n}`).catch(() => undefined);
      })();
      const ending = backend.complete({ handle: claimed.handle });
      let page = await read(backend, claimed);
      while (page.closedAtMs === undefined) {
        await sleep(1);
        page = await read(backend, claimed);
      }
      await Promise.all([writing, ending]);
      expect(await read(backend, claimed)).toEqual(page);
    }
  });

  test("what an execution put out goes with it", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(backend, {
      policy: { streamPolicy: { retentionTtlMs: 1_000 } },
    });
    await appendAll(backend, claimed, [...frames(20), patch({ a: 1 })]);
    await backend.complete({ handle: claimed.handle });
    expect((await read(backend, claimed)).frames).toHaveLength(21);
    await passTime(1_000);
    while ((await backend.sweep({ name: "retention_trimmer" })).more);
    expect(await read(backend, claimed)).toMatchObject({ frames: [] });
    expect(await backend.readSummary(claimed)).toBeUndefined();
  });
});

/** Output of attempts. */
export const streamsConformance: Group = (harness, registrar) => {
  for (const part of [
    appending,
    reading,
    modesConformance,
    tailsConformance,
    closingConformance,
    silencesConformance,
  ])
    part(harness, registrar);
};
