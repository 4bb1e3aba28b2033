import type { StreamCloseReason, TimeoutBehavior } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused, sleep, within } from "./assertions.js";
import { MINUTE_MS, OTHER_WORKER, running, taken } from "./builders.js";
import { group, type Bench } from "./harness.js";
import { append, idsOf, isLater, read, textsOf } from "./stream-builders.js";
import {
  effectOf,
  keyed,
  suspendRunning,
  type Suspended,
} from "./suspension-builders.js";

const TIMEOUT_MS = 10_000;

interface Ending {
  readonly reason: StreamCloseReason;
  readonly timeoutBehavior?: TimeoutBehavior;
  readonly deadlineMs?: number;
  readonly end: (bench: Bench, held: Suspended) => Promise<unknown>;
}

/** Whatever ends an attempt that waits for signals, at the instant of the call. */
const ENDINGS: Readonly<Record<string, Ending>> = {
  ...Object.fromEntries(
    (["fail", "cancel", "expire"] as const).map((timeoutBehavior) => [
      `a suspension timeout that is to ${timeoutBehavior}`,
      {
        reason: "suspension_timeout",
        timeoutBehavior,
        end: async ({ backend, passTime }, { executionId }) => {
          await passTime(TIMEOUT_MS);
          await backend.expireSuspension({ executionId });
        },
      } satisfies Ending,
    ]),
  ),
  "a suspension timeout found by the driver": {
    reason: "suspension_timeout",
    timeoutBehavior: "fail",
    end: async ({ backend, passTime }) => {
      await passTime(TIMEOUT_MS);
      await backend.sweep({ name: "suspension_timeout" });
    },
  },
  "a deadline": {
    reason: "expired",
    deadlineMs: MINUTE_MS,
    end: async ({ backend, passTime }, { executionId }) => {
      await passTime(MINUTE_MS);
      await backend.expireExecution({
        executionId,
        reason: "execution_deadline",
      });
    },
  },
  "a deadline found by the driver": {
    reason: "expired",
    deadlineMs: MINUTE_MS,
    end: async ({ backend, passTime }) => {
      await passTime(MINUTE_MS);
      await backend.sweep({ name: "execution_deadline" });
    },
  },
  "a cancel": {
    reason: "attempt_cancelled",
    end: ({ backend }, { executionId }) =>
      backend.cancelExecution({ executionId, reason: "r" }),
  },
};

/** Whatever lets an attempt go on that waited for signals. */
const RESUMES: Readonly<
  Record<string, (bench: Bench, held: Suspended) => Promise<unknown>>
> = {
  "a signal": ({ backend }, { target }) => effectOf(backend, target),
  "an operator": ({ backend }, { executionId }) =>
    backend.resumeExecution({ executionId }),
  "a timeout": async ({ backend, passTime }, { executionId }) => {
    await passTime(TIMEOUT_MS);
    await backend.expireSuspension({ executionId });
  },
};

/** Suspended with a timeout behind a first frame. */
async function silenced(
  { backend }: Bench,
  {
    timeoutBehavior,
    deadlineMs,
  }: Pick<Ending, "timeoutBehavior" | "deadlineMs">,
): Promise<Suspended & { readonly after: string }> {
  await keyed(backend);
  const claimed = await running(
    backend,
    deadlineMs === undefined
      ? {}
      : { policy: { timeoutPolicy: { executionDeadlineMs: deadlineMs } } },
  );
  const { streamId: after } = await append(backend, claimed, "before");
  const timeoutAtMs = (await backend.serverTimeMs()) + TIMEOUT_MS;
  const held = await suspendRunning(
    backend,
    claimed,
    timeoutBehavior === undefined ? {} : { timeoutAtMs, timeoutBehavior },
  );
  return { ...held, after };
}

/** What becomes of a stream whose attempt waits for signals. */
export const silencesConformance = group("streams of the suspended", (test) => {
  for (const [name, resume] of Object.entries(RESUMES))
    test(`${name} lets the stream go on, with larger ids and for the same readers`, async (bench) => {
      const { backend } = bench;
      const held = await silenced(bench, { timeoutBehavior: "autoResume" });
      const { before, after } = held;
      const isOpen = async () =>
        expect((await read(backend, before)).closedAtMs).toBeUndefined();
      await isOpen();
      await expectRefused(
        append(backend, before, "without a lease"),
        "stream_closed",
      );
      const { executionId, attemptIndex } = before;
      const waiting = backend.tailStream({
        executionId,
        attemptIndex,
        after,
        blockMs: 20_000,
        countLimit: 10,
      });
      await sleep(20);

      await resume(bench, held);
      await isOpen();
      const resumed = await taken(backend, held.laneId, {
        worker: OTHER_WORKER,
      });
      expect(resumed).toMatchObject({ kind: "resumed", attemptIndex });
      await expectRefused(
        append(backend, before, "with the lease of then"),
        "stale_owner_cannot_append",
      );
      const { streamId, frameCount } = await append(backend, resumed, "behind");

      expect(isLater(after, streamId)).toBe(true);
      // Counted on, not anew.
      expect(frameCount).toBe(2);
      const page = await within(500, "the tail", waiting);
      expect(textsOf(page)).toEqual(["behind"]);
      expect(page.closedAtMs).toBeUndefined();
      await backend.complete({ handle: resumed.handle });
      const all = await read(backend, before);
      expect(idsOf(all)).toEqual([after, streamId]);
      expect(all.closedReason).toBe("attempt_success");
    });

  for (const [name, ending] of Object.entries(ENDINGS))
    test(`${name} closes the stream, for readers, for tails and for good`, async (bench) => {
      const { backend, passTime } = bench;
      const held = await silenced(bench, ending);
      const { before, after } = held;
      const { executionId, attemptIndex } = before;
      expect((await read(backend, before)).closedAtMs).toBeUndefined();
      const waiting = backend.tailStream({
        executionId,
        attemptIndex,
        after,
        blockMs: 20_000,
        countLimit: 1,
      });
      await sleep(20);

      await ending.end(bench, held);

      const end = await within(500, "the tail", waiting);
      expect(end).toMatchObject({
        frames: [],
        closedReason: ending.reason,
        nextCursor: after,
      });
      const { events } = await backend.readEvents({ executionId });
      expect(end.closedAtMs).toBe(events.at(-1)!.atMs);
      const closed = await read(backend, before);
      expect(closed).toMatchObject({
        closedReason: end.closedReason,
        closedAtMs: end.closedAtMs,
      });
      expect(textsOf(closed)).toEqual(["before"]);
      await expectRefused(append(backend, before, "late"), "stream_closed");
      // Write-once: nothing that comes later changes it.
      await passTime(2 * MINUTE_MS);
      await backend.expireSuspension({ executionId });
      await backend.sweep({ name: "execution_deadline" });
      expect(await read(backend, before)).toEqual(closed);
      await backend.replayExecution({ executionId });
      const again = await taken(backend, held.laneId);
      await append(backend, again, "of another attempt");
      await backend.complete({ handle: again.handle });
      expect(await read(backend, before)).toEqual(closed);
    });

  test("an escalation leaves the stream open", async (bench) => {
    const { backend, passTime } = bench;
    const held = await silenced(bench, { timeoutBehavior: "escalate" });
    await passTime(TIMEOUT_MS);
    await backend.expireSuspension(held);
    const page = await read(backend, held.before);
    expect(page.closedAtMs).toBeUndefined();
    expect(textsOf(page)).toEqual(["before"]);

    await effectOf(backend, held.target);
    const resumed = await taken(backend, held.laneId);
    const { streamId } = await append(backend, resumed, "behind");
    expect(isLater(held.after, streamId)).toBe(true);
  });

  test("an attempt that wrote nothing ends for its readers as well", async (bench) => {
    const { backend, passTime } = bench;
    await keyed(backend);
    const claimed = await running(backend);
    const timeoutAtMs = (await backend.serverTimeMs()) + TIMEOUT_MS;
    await suspendRunning(backend, claimed, {
      timeoutAtMs,
      timeoutBehavior: "expire",
    });
    await passTime(TIMEOUT_MS);
    const { executionId } = claimed;
    await backend.expireSuspension({ executionId });
    expect(await read(backend, claimed)).toMatchObject({
      frames: [],
      closedReason: "suspension_timeout",
    });
  });
});
