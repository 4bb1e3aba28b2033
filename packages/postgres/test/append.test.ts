/** The statement that appends decides in SQL what core decides for the slow way: both must come to the same. */
import {
  compareFrameIds,
  Frame,
  FRAME_MODES,
  NEW_STREAM,
  planAppend,
  type EngineBackend,
  type FrameId,
  type FrameMode,
  type StreamMeta,
  type StreamMode,
} from "@flowfabric/core";
import { toStreamRow } from "@flowfabric/core/sql";
import { recordingPool } from "@flowfabric/postgres-testing";
import type { Client } from "pg";
import { expect, onTestFinished, test } from "vitest";

import { claim, connect, newSchema, open, url } from "./stores.js";

const KEPT = 5;
const CALLS = 120;
const STARTS_AT_MS = 2_000_000_000_000;

/** The same numbers in each run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A clock that stands still until it is told the time. */
async function stopClock(
  server: Client,
  schema: string,
): Promise<(ms: number) => Promise<unknown>> {
  await server.query(
    `CREATE SEQUENCE "${schema}".test_clock START ${STARTS_AT_MS}`,
  );
  await server.query(`SELECT nextval('"${schema}".test_clock')`);
  await server.query(`
    CREATE OR REPLACE FUNCTION "${schema}".now_ms() RETURNS BIGINT LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT pg_sequence_last_value('"${schema}".test_clock'::REGCLASS) $$`);
  return (ms) => server.query(`SELECT setval('"${schema}".test_clock', ${ms})`);
}

function someMode(below: (limit: number) => number): StreamMode {
  switch (below(3)) {
    case 0:
      return { kind: "durable" };
    case 1:
      return { kind: "durableSummary", patchKind: "jsonMergePatch" };
    default: {
      const maxlenFloor = 1 + below(4);
      return {
        kind: "bestEffortLive",
        ttlMs: 1 + below(400),
        maxlenFloor,
        maxlenCeiling: maxlenFloor + below(12),
        emaAlpha: [0.2, 0.5, 1][below(3)]!,
      };
    }
  }
}

/** What core makes of the calls so far. */
class Expected {
  meta: StreamMeta = NEW_STREAM;
  version = 0;
  readonly kept: Record<FrameMode, FrameId[]> = {
    durable: [],
    summary: [],
    best_effort: [],
  };

  append(frames: readonly Frame[], nowMs: number) {
    const plan = planAppend(
      this.meta,
      frames.map((frame) => Frame.parse(frame)),
      { nowMs, durableKept: KEPT, summaryVersion: this.version },
    );
    const trimmedThrough = { ...this.meta.trimmedThrough };
    for (const { id, mode } of plan.frames) {
      this.kept[mode].push(id);
      if (mode === "summary") this.version++;
    }
    for (const mode of FRAME_MODES)
      while (this.kept[mode].length > plan.meta.retained[mode])
        trimmedThrough[mode] = this.kept[mode].shift()!;
    this.meta = { ...plan.meta, trimmedThrough };
    return plan.outcomes;
  }
}

async function stored(server: Client, schema: string) {
  const streams = await server.query<Record<string, string | null>>(
    `SELECT * FROM "${schema}".streams`,
  );
  const { seq: _seq, attempt: _attempt, ...columns } = streams.rows[0]!;
  const { rows } = await server.query<{ mode: number; ms: string; n: string }>(
    `SELECT mode, ms, n FROM "${schema}".frames ORDER BY ms, n`,
  );
  return {
    row: Object.fromEntries(
      Object.entries(columns).map(([name, value]) => [
        name,
        value === null ? null : Number(value),
      ]),
    ),
    frames: rows.map(({ mode, ms, n }) => [mode, Number(ms), Number(n)]),
  };
}

async function running(backend: EngineBackend) {
  await backend.createExecution({
    executionKind: "k",
    policy: { streamPolicy: { retentionMaxlen: KEPT } },
  });
  const { claimed } = await backend.claimMany({
    ...claim,
    leaseTtlMs: 86_400_000,
  });
  return claimed[0]!;
}

for (const way of ["the statement", "the slow way"])
  test(`whatever is appended, ${way} does what the rules of core say`, async () => {
    const schema = newSchema();
    await using own = await open({ schema });
    const log = recordingPool({ connectionString: url, max: 2 });
    onTestFinished(() => log.pool.end());
    const server = await connect();
    const setClock = await stopClock(server, schema);
    const { handle } = await running(own);
    const below = numbers(way === "the statement" ? 7 : 8);
    const expected = new Expected();
    let backend = await open({ schema, pool: log.pool });
    let nowMs = STARTS_AT_MS;
    let seq = 0;
    let slow = 0;
    for (let call = 0; call < CALLS; call++) {
      // Back now and then, which only the ids must not show.
      nowMs += [0, 0, 1, 3, 40, 700, -5][below(7)]!;
      await setClock(nowMs);
      const isNumbered = below(3) > 0;
      const frames = Array.from({ length: 1 + below(9) }, (): Frame => ({
        bytes: Buffer.from(`{"k${below(4)}":${below(9)}}`),
        mode: someMode(below),
        ...(isNumbered ? { seq: (seq += 1 + below(3)) } : {}),
      }));
      const hasPatch = frames.some(
        ({ mode }) => mode!.kind === "durableSummary",
      );
      // A process that has just begun knows of no summary, and passes those over that patch one.
      if (way === "the slow way" && hasPatch && expected.version > 0) {
        await backend.close();
        backend = await open({ schema, pool: log.pool });
      }
      log.take();
      const outcomes = expected.append(frames, Math.max(nowMs, STARTS_AT_MS));
      expect(await backend.appendFrames({ handle, frames })).toEqual(outcomes);
      if (log.take().some(({ text }) => text.startsWith("BEGIN"))) slow++;
      const { caller } = expected.meta;
      // Nobody asks for the version where nothing is patched.
      if (isNumbered && !hasPatch && caller !== undefined)
        expected.meta = {
          ...expected.meta,
          caller: { ...caller, summaryVersion: 0 },
        };

      const all = FRAME_MODES.flatMap((mode, code) =>
        expected.kept[mode].map((id) => ({ code, id })),
      ).sort((a, b) => compareFrameIds(a.id, b.id));
      expect(await stored(server, schema)).toEqual({
        row: { ...toStreamRow(expected.meta, KEPT) },
        frames: all.map(({ code, id }) => [code, id.ms, id.n]),
      });
    }
    // The very first call meets a stream of which this process knows nothing.
    if (way === "the statement") expect(slow).toBeLessThanOrEqual(1);
    else expect(slow).toBeGreaterThan(30);
  }, 60_000);
