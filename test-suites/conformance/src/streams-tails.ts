import { getEventListeners, setMaxListeners } from "node:events";

import type {
  EngineBackend,
  StreamFrames,
  TailStreamInput,
} from "@flowfabric/core";
import { expect } from "vitest";

import {
  countListeners,
  expectRefused,
  mostListeners,
  sleep,
  within,
} from "./assertions.js";
import {
  completed,
  LEASE_TTL_MS,
  OTHER_WORKER,
  running,
  submitted,
  taken,
  UNKNOWN_ID,
  type Taken,
} from "./builders.js";
import { group } from "./harness.js";
import { scaled } from "./settings.js";
import {
  append,
  appendAll,
  frames,
  idsOf,
  LIVE,
  read,
  textsOf,
} from "./stream-builders.js";

/** Promised are 50 ms; a test's bound is ten times that. */
const WAKES_WITHIN_MS = 500;

function tail(
  backend: EngineBackend,
  { executionId, attemptIndex }: Pick<Taken, "executionId" | "attemptIndex">,
  more: Partial<TailStreamInput> = {},
): Promise<StreamFrames> {
  return backend.tailStream({
    executionId,
    attemptIndex,
    after: "0-0",
    blockMs: 20_000,
    countLimit: 10_000,
    ...more,
  });
}

/** From before the call is made: what it does at once counts as well. */
async function timed<T>(call: () => Promise<T>): Promise<[T, number]> {
  const startedAtMs = performance.now();
  const answer = await call();
  return [answer, performance.now() - startedAtMs];
}

/** The loop of a consumer: every page until the stream has ended. */
async function toTheEnd(
  backend: EngineBackend,
  claimed: Pick<Taken, "executionId" | "attemptIndex">,
  more: Partial<TailStreamInput> = {},
): Promise<{ readonly pages: StreamFrames[]; readonly ids: string[] }> {
  const pages: StreamFrames[] = [];
  let after = more.after ?? "0-0";
  for (;;) {
    const page = await tail(backend, claimed, { ...more, after });
    pages.push(page);
    if (page.closedAtMs !== undefined && page.frames.length === 0)
      return { pages, ids: pages.flatMap(idsOf) };
    after = page.nextCursor;
  }
}

/** Waiting for frames. */
export const tailsConformance = group("tails of streams", (test) => {
  test("a tail returns with the frame it waited for", async ({ backend }) => {
    const claimed = await running(backend);
    for (let n = 0; n < 5; n++) {
      const { nextCursor } = await read(backend, claimed);
      const waiting = tail(backend, claimed, { after: nextCursor });
      await sleep(20);
      const [, tookMs] = await timed(() =>
        append(backend, claimed, `${n}`).then(() => waiting),
      );
      const page = await waiting;
      expect(textsOf(page)).toEqual([`${n}`]);
      expect(page.closedAtMs).toBeUndefined();
      expect(tookMs).toBeLessThan(WAKES_WITHIN_MS);
    }
  });

  test("a tail hears what another connection appends and ends", async ({
    backend,
    reopen,
  }) => {
    const other = await reopen();
    const claimed = await running(backend);
    const silent = await running(backend);
    const both = Promise.all([tail(other, claimed), tail(other, silent)]);
    await sleep(50);
    await append(backend, claimed, "far");
    await backend.complete({ handle: silent.handle });
    const [page, end] = await within(2_000, "both tails", both);
    expect(textsOf(page)).toEqual(["far"]);
    expect(end).toMatchObject({ frames: [], closedReason: "attempt_success" });
  });

  test("an execution that is still to come can be waited for", async ({
    backend,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    const waiting = tail(backend, { executionId, attemptIndex: 1 });
    const first = await taken(backend, laneId);
    await append(backend, first, "of the first attempt");
    await backend.revokeLease({ executionId });
    const second = await taken(backend, laneId, { worker: OTHER_WORKER });
    await append(backend, second, "mine");
    expect(textsOf(await within(2_000, "the tail", waiting))).toEqual(["mine"]);
  });

  test("the end is told at once, to who waits and to who comes later", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const last = await append(backend, claimed, "x");
    const waiting = tail(backend, claimed, { after: last.streamId });
    await sleep(20);
    const [, tookMs] = await timed(() =>
      backend.complete({ handle: claimed.handle }).then(() => waiting),
    );
    expect(tookMs).toBeLessThan(WAKES_WITHIN_MS);
    expect(await waiting).toMatchObject({
      frames: [],
      closedReason: "attempt_success",
      nextCursor: last.streamId,
    });
    const [again, tookAgainMs] = await timed(() =>
      tail(backend, claimed, { after: last.streamId }),
    );
    expect(again.closedReason).toBe("attempt_success");
    expect(tookAgainMs).toBeLessThan(WAKES_WITHIN_MS);
    expect(textsOf(await tail(backend, claimed))).toEqual(["x"]);
  });

  test("a lease that runs out ends the waiting, written down or not", async ({
    backend,
  }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 400 });
    const [page, tookMs] = await timed(() => tail(backend, claimed));
    expect(page.closedReason).toBe("lease_expired");
    expect(tookMs).toBeLessThan(400 + WAKES_WITHIN_MS);
  });

  test("nobody waits longer than asked", async ({ backend }) => {
    const claimed = await running(backend);
    for (const ref of [
      claimed,
      { executionId: UNKNOWN_ID as Taken["executionId"], attemptIndex: 0 },
    ]) {
      const [page, tookMs] = await timed(() =>
        tail(backend, ref, { blockMs: 150 }),
      );
      expect(page).toEqual({
        frames: [],
        nextCursor: "0-0",
        gap: false,
        truncated: false,
      });
      expect(tookMs).toBeGreaterThanOrEqual(140);
      expect(tookMs).toBeLessThan(150 + 1_000);
    }
    const [, peekedMs] = await timed(() =>
      tail(backend, claimed, { blockMs: 0 }),
    );
    expect(peekedMs).toBeLessThan(WAKES_WITHIN_MS);
  });

  test("a wait ends where its signal aborts", async ({ backend }) => {
    const claimed = await running(backend);
    const abort = new AbortController();
    const waiting = tail(backend, claimed, { signal: abort.signal });
    await sleep(20);
    abort.abort();
    expect((await within(WAKES_WITHIN_MS, "the tail", waiting)).frames).toEqual(
      [],
    );
    const aborted = tail(backend, claimed, { signal: abort.signal });
    await within(WAKES_WITHIN_MS, "the next", aborted);
    // Whoever waits again and again with one signal leaves nothing at it.
    const { signal } = new AbortController();
    const heard = tail(backend, claimed, { signal });
    await append(backend, claimed, "x");
    await heard;
    await tail(backend, claimed, { signal });
    const { nextCursor: after } = await read(backend, claimed);
    await tail(backend, claimed, { signal, after, blockMs: 20 });
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  test("tails under one signal put one listener on it, which goes with the last", async ({
    backend,
  }) => {
    const { signal } = new AbortController();
    const claims = await Promise.all(
      Array.from({ length: 20 }, () => running(backend)),
    );
    const waiting = claims.map((claimed) => tail(backend, claimed, { signal }));
    const ofAll = await mostListeners(signal);
    for (const claimed of claims.slice(1)) await append(backend, claimed, "go");
    await within(5_000, "all but one", Promise.all(waiting.slice(1)));
    const ofTheLast = await mostListeners(signal);
    await append(backend, claims[0]!, "go");
    await within(WAKES_WITHIN_MS, "the last", waiting[0]!);
    expect([ofAll, ofTheLast, countListeners(signal)]).toEqual([1, 1, 0]);
  });

  test("frames that are not seen end no wait", async ({ backend }) => {
    const claimed = await running(backend);
    let ended = false;
    const waiting = tail(backend, claimed, {
      visibility: "excludeBestEffort",
    }).then((page) => {
      ended = true;
      return page;
    });
    for (let n = 0; n < scaled(500, 50); n++)
      await append(backend, claimed, "live", { mode: LIVE });
    await sleep(50);
    expect(ended).toBe(false);
    await append(backend, claimed, "seen");
    expect(textsOf(await within(2_000, "the tail", waiting))).toEqual(["seen"]);

    const timedOut = await tail(backend, claimed, {
      after: (await read(backend, claimed)).nextCursor,
      visibility: "excludeBestEffort",
      blockMs: 0,
    });
    expect(timedOut.frames).toEqual([]);
  });

  test("a wait that ends empty has moved past what is not seen", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const live = await append(backend, claimed, "live", { mode: LIVE });
    const page = await tail(backend, claimed, {
      visibility: "excludeBestEffort",
      blockMs: 50,
    });
    expect(page).toMatchObject({ frames: [], nextCursor: live.streamId });
  });

  test("only concrete cursors and times are taken", async ({ backend }) => {
    const claimed = await running(backend);
    for (const after of ["start", "end", "", "-", "+", "1-", "a-b"])
      await expectRefused(tail(backend, claimed, { after }), "invalid_offset", {
        value: after,
      });
    for (const blockMs of [30_001, -1, 1.5])
      await expectRefused(tail(backend, claimed, { blockMs }), "invalid_input");
    for (const after of ["0-0", "5", "5-3"])
      await tail(backend, claimed, { after, blockMs: 0 });
  });

  test("no frame between look and wait is missed, on whichever connection", async ({
    backend,
    reopen,
  }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    const count = scaled(1_000, 100);
    const readers = [backend, await reopen()].map((connection) =>
      toTheEnd(connection, claimed),
    );
    const appended: string[] = [];
    for (let n = 0; n < count; n++) {
      appended.push((await append(backend, claimed, `${n}`)).streamId);
      if (n % 7 === 0) await sleep(n % 3);
    }
    await backend.complete({ handle: claimed.handle });
    // A wake-up that is lost for good would cost the whole of a wait.
    for (const { ids } of await within(
      5_000,
      "the readers",
      Promise.all(readers),
    ))
      expect(ids).toEqual(appended);
  });

  test("many wait at once, each for its own stream, and delay nobody", async ({
    backend,
  }) => {
    const count = scaled(1_000, 100);
    const claims: Taken[] = [];
    for (let n = 0; n < count; n++)
      claims.push(await running(backend, {}, { leaseTtlMs: 600_000 }));
    const crowded = claims[0]!;
    const started = await append(backend, crowded, "start");
    const ownTails = claims.map((claimed) =>
      tail(backend, claimed, {
        blockMs: 30_000,
        ...(claimed === crowded ? { after: started.streamId } : {}),
      }),
    );
    const crowd = claims.map(() =>
      tail(backend, crowded, { blockMs: 30_000, after: started.streamId }),
    );
    let woken = 0;
    for (const one of [...ownTails, ...crowd]) void one.then(() => woken++);
    await sleep(100);

    const [, othersMs] = await timed(async () => {
      for (let n = 0; n < 20; n++) await completed(backend);
    });
    expect(othersMs / 20).toBeLessThan(500);
    expect(woken).toBe(0);

    await append(backend, crowded, "go");
    await Promise.all(
      claims.slice(1).map((claimed) => append(backend, claimed, "go")),
    );
    const pages = await within(
      10_000,
      "all tails",
      Promise.all([...ownTails, ...crowd]),
    );
    expect(pages.every((page) => textsOf(page).join() === "go")).toBe(true);
  });

  test("parked tails take nothing from plain reads", async ({ backend }) => {
    const claimed = await running(backend);
    const abort = new AbortController();
    setMaxListeners(0, abort.signal);
    const waiting = Array.from({ length: scaled(5_000, 300) }, () =>
      tail(backend, claimed, { blockMs: 30_000, signal: abort.signal }),
    );
    await sleep(50);
    for (let n = 0; n < 100; n++)
      expect((await read(backend, claimed)).frames).toEqual([]);
    abort.abort();
    await within(10_000, "all tails", Promise.all(waiting));
  });

  test("read to its end, a stream gives every frame once", async ({
    backend,
    passTime,
  }) => {
    const { executionId, laneId } = await submitted(backend);
    const first = await taken(backend, laneId);
    const readers = [0, 1].map((attemptIndex) =>
      toTheEnd(backend, { executionId, attemptIndex }, { countLimit: 7 }),
    );
    const ofFirst = await appendAll(backend, first, frames(30));
    await passTime(LEASE_TTL_MS);
    const second = await taken(backend, laneId, { worker: OTHER_WORKER });
    await expectRefused(
      append(backend, first, "stale"),
      "stale_owner_cannot_append",
    );
    const ofSecond = await appendAll(backend, second, frames(20));
    await backend.complete({ handle: second.handle });
    const [one, two] = await within(
      20_000,
      "both readers",
      Promise.all(readers),
    );
    expect(one!.ids).toEqual(ofFirst.map(({ streamId }) => streamId));
    expect(two!.ids).toEqual(ofSecond.map(({ streamId }) => streamId));
    expect(["lease_expired", "reclaimed"]).toContain(
      one!.pages.at(-1)!.closedReason,
    );
    expect(two!.pages.at(-1)!.closedReason).toBe("attempt_success");
  });

  test("before shutdown tails end and new ones are refused, reads go on", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const waiting = tail(backend, claimed);
    await sleep(20);
    await backend.shutdownPrepare({ graceMs: 5_000 });
    expect(await within(2_000, "the tail", waiting)).toMatchObject({
      frames: [],
    });
    await expectRefused(tail(backend, claimed), "unavailable", {
      op: "shutdown",
    });
    await append(backend, claimed, "x");
    expect(textsOf(await read(backend, claimed))).toEqual(["x"]);
  });

  test("a store that closes lets its tails go", async ({ fresh }) => {
    const { backend, close } = await fresh();
    const claimed = await running(backend);
    const waiting = tail(backend, claimed).then(
      ({ frames: seen }) => seen,
      () => [],
    );
    await sleep(20);
    await close();
    expect(await within(2_000, "the tail", waiting)).toEqual([]);
  });
});
