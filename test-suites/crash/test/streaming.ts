/** Output that is watched while its writer is killed, or comes back too late. */
import type { EngineBackend } from "@flowfabric/core";
import { Client, type StreamEvent } from "@flowfabric/sdk";
import { describe, expect, test } from "vitest";

import { findViolations } from "../src/invariants.js";
import { Program, until } from "./fleet.js";
import {
  createBench,
  input,
  TIMEOUT_MS,
  type CrashHarness,
} from "./harness.js";

const LEASE_TTL_MS = 1_000;
/** What the program's handler writes where it is not the first; the first writes on. */
const LAST_FRAMES = 200;

export function streamingTests(harness: CrashHarness): void {
  describe(
    `${harness.name}: output that is watched`,
    { timeout: TIMEOUT_MS },
    () => {
      test("readers see every frame of every attempt once while the writer is killed and taken over", async () => {
        const { store, open } = await createBench(harness);
        const { backend, writer, readers } = await watched(
          store,
          open,
          "stream",
        );

        await writer.kill();
        await Program.ready("worker", { store, leaseTtlMs: LEASE_TTL_MS });

        await expectWhole(backend, readers);
      });

      test("a writer that comes back after its lease adds nothing", async () => {
        const { store, open } = await createBench(harness);
        const { backend, executionId, writer, readers } = await watched(
          store,
          open,
          "stall",
        );

        await Program.ready("worker", { store, leaseTtlMs: LEASE_TTL_MS });
        await expectWhole(backend, readers);
        await until("the end of the handler", async () =>
          writer
            .all("refused")
            .some((told) => told.executionId === executionId),
        );
        expect(writer.all("refused")).toMatchObject([
          { code: expect.stringMatching(REFUSED) as unknown },
        ]);
        // Whoever reads once more sees what the readers saw.
        await expectWhole(backend, [read(backend, executionId)]);
      });
    },
  );
}

const REFUSED = /^(stale_owner_cannot_append|stream_closed|lease_lost)$/;

/** One execution whose first attempt writes without end, and readers that have seen some of it. */
async function watched(
  store: string,
  open: () => Promise<EngineBackend>,
  executionKind: "stream" | "stall",
) {
  const backend = await open();
  const other = await open();
  const writer = await Program.ready("worker", {
    store,
    leaseTtlMs: LEASE_TTL_MS,
  });
  const { executionId } = await backend.createExecution({
    executionKind,
    inputPayload: input(LAST_FRAMES),
  });
  const steady = read(backend, executionId);
  const restless = readInPieces(other, executionId);
  await until("frames", async () => steady.events.length > 300);
  return { backend, executionId, writer, readers: [steady, restless] };
}

interface Reading {
  readonly events: StreamEvent[];
  readonly done: Promise<void>;
}

function read(backend: EngineBackend, executionId: string): Reading {
  const events: StreamEvent[] = [];
  const done = (async () => {
    await using client = new Client({ backend });
    for await (const event of client.stream({ executionId }))
      events.push(event);
  })();
  return { events, done };
}

/** Comes back again and again, as a browser page does, with nothing but its last cursor. */
function readInPieces(backend: EngineBackend, executionId: string): Reading {
  const events: StreamEvent[] = [];
  const done = (async () => {
    for (let isOver = false; !isOver;) {
      await using client = new Client({ backend });
      const after = events.at(-1)?.cursor;
      isOver = true;
      let seen = 0;
      for await (const event of client.stream({ executionId, after })) {
        events.push(event);
        seen += 1;
        if (seen < 70) continue;
        isOver = false;
        break;
      }
    }
  })();
  return { events, done };
}

/** Everything of both attempts, in order, with an end behind each. */
async function expectWhole(
  backend: EngineBackend,
  readers: readonly Reading[],
): Promise<void> {
  await Promise.all(readers.map(({ done }) => done));
  for (const { events } of readers) {
    const firstEnd = events.findIndex(({ kind }) => kind === "end");
    const attempts = [
      events.slice(0, firstEnd),
      events.slice(firstEnd + 1, -1),
    ];
    for (const [attemptIndex, frames] of attempts.entries()) {
      const expected = frames.map((_frame, n) => `${attemptIndex}: ${n}`);
      expect(
        frames.map((event) =>
          event.kind === "frame"
            ? `${event.attemptIndex}: ${event.text}`
            : event.kind,
        ),
      ).toEqual(expected);
    }
    expect(attempts[0]!.length).toBeGreaterThan(300);
    expect(attempts[1]).toHaveLength(LAST_FRAMES);
    expect(events[firstEnd]).toMatchObject({
      attemptIndex: 0,
      reason: expect.stringMatching(/^(lease_expired|reclaimed)$/) as unknown,
    });
    expect(events.at(-1)).toMatchObject({
      kind: "end",
      attemptIndex: 1,
      reason: "attempt_success",
    });
  }
  expect(await findViolations(backend)).toEqual([]);
}
