import type {
  EngineBackend,
  ReadStreamInput,
  StreamMode,
} from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { running, textOf, type Taken } from "./builders.js";
import { group, type Group } from "./harness.js";
import { reproducible, scaled } from "./settings.js";
import {
  append,
  appendAll,
  frame,
  frames,
  idsOf,
  LIVE,
  patch,
  PATCH,
  read,
  summaryOf,
  textsOf,
} from "./stream-builders.js";

type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json };

const SENTINEL = "__ff_null__";

/** What a patch means, written without a look at how stores do it: entries in, entries out. */
function reference(target: Json | undefined, change: Json): Json {
  if (!isRecord(change)) return desentinel(change);
  const result = new Map(isRecord(target) ? Object.entries(target) : []);
  for (const [key, value] of Object.entries(change)) {
    if (value === null) result.delete(key);
    else result.set(key, reference(result.get(key), value));
  }
  return Object.fromEntries(result);
}

function desentinel(value: Json): Json {
  if (value === SENTINEL) return null;
  if (Array.isArray(value)) return (value as readonly Json[]).map(desentinel);
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, nested]) => [key, desentinel(nested)]),
  );
}

function isRecord(value: Json | undefined): value is Record<string, Json> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `{"r":{"a":{"a":… 1 …}}}` or the same of arrays, so many levels below the root. */
function nested(levels: number, open: string, close: string): string {
  return `{"r":${open.repeat(levels)}1${close.repeat(levels)}}`;
}

const summaries = group("summaries", (test) => {
  const appendPatch = (backend: EngineBackend, claimed: Taken, text: string) =>
    append(backend, claimed, text, { mode: PATCH });

  test("patches merge as JSON Merge Patch says, and the sentinel stores null", async ({
    backend,
  }) => {
    // Each step on the document that the one before made.
    const steps: readonly (readonly [patch: string, document: Json])[] = [
      ['{"a":1,"b":{"c":1,"d":2}}', { a: 1, b: { c: 1, d: 2 } }],
      ["{}", { a: 1, b: { c: 1, d: 2 } }],
      ['{"b":{}}', { a: 1, b: { c: 1, d: 2 } }],
      ['{"b":{"c":null,"e":3}}', { a: 1, b: { d: 2, e: 3 } }],
      ['{"missing":null}', { a: 1, b: { d: 2, e: 3 } }],
      ['{"a":{"x":null,"y":1}}', { a: { y: 1 }, b: { d: 2, e: 3 } }],
      ['{"b":[1,null,{"z":null}]}', { a: { y: 1 }, b: [1, null, { z: null }] }],
      ['{"b":[],"a":[2]}', { a: [2], b: [] }],
      ['{"b":{},"a":{}}', { a: {}, b: {} }],
      [
        `{"a":"${SENTINEL}","b":{"c":["${SENTINEL}",{"d":"${SENTINEL}"}]}}`,
        { a: null, b: { c: [null, { d: null }] } },
      ],
      [
        `{"a":null,"b":null,"${SENTINEL}":{"${SENTINEL}":1}}`,
        { [SENTINEL]: { [SENTINEL]: 1 } },
      ],
    ];
    const claimed = await running(backend);
    for (const [index, [text, document]] of steps.entries()) {
      const { summaryVersion } = await appendPatch(backend, claimed, text);
      expect(summaryVersion).toBe(index + 1);
      expect(await summaryOf(backend, claimed), text).toEqual({
        document,
        version: index + 1,
      });
    }
    const page = await read(backend, claimed);
    expect(textsOf(page)).toEqual(steps.map(([text]) => text));
    expect(page.frames.map(({ fields }) => fields["summary_version"])).toEqual(
      steps.map((_step, index) => String(index + 1)),
    );
  });

  test("whatever is patched, the document is what the patches make", async ({
    backend,
  }) => {
    const leaf = fc.oneof(
      fc.constantFrom<Json>(null, SENTINEL, "", true, 0.1, 1e300, -0.5),
      fc.maxSafeInteger(),
      fc.string(),
    );
    const key = fc.constantFrom("a", "b", "__proto__", "constructor", SENTINEL);
    const { value } = fc.letrec<{ value: Json; object: Json }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 4, withCrossShrink: true },
        leaf,
        tie("object"),
        fc.array(tie("value"), { maxLength: 3 }),
      ),
      object: fc.dictionary(key, tie("value"), {
        maxKeys: 3,
        noNullPrototype: true,
      }),
    }));
    const document = fc.dictionary(key, value, { maxKeys: 3 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(document, { minLength: 1, maxLength: 6 }),
        async (patches) => {
          const claimed = await running(backend);
          let expected: Json = {};
          for (const one of patches) {
            const text = JSON.stringify(one);
            await appendPatch(backend, claimed, text);
            expected = reference(expected, JSON.parse(text) as Json);
          }
          const summary = await summaryOf(backend, claimed);
          expect(summary).toEqual({
            document: expected,
            version: patches.length,
          });
        },
      ),
      { ...reproducible(), numRuns: scaled(150, 15) },
    );
  });

  test("a refused patch leaves document, version and frames as they were", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    await appendPatch(backend, claimed, '{"a":1}');
    const before = [
      await backend.readSummary(claimed),
      await read(backend, claimed),
    ];
    for (const text of ["[]", "[1]", '"a"', "1", "true", "null", "", "{", "{]"])
      await expectRefused(appendPatch(backend, claimed, text), "invalid_input");
    await expectRefused(
      backend.appendFrame({
        handle: claimed.handle,
        frame: { bytes: Uint8Array.of(0x7b, 0xff, 0x7d), mode: PATCH },
      }),
      "invalid_input",
    );
    await expectRefused(
      append(backend, claimed, "{}", {
        mode: { kind: "durableSummary", patchKind: "other" } as never,
      }),
      "invalid_input",
    );
    expect([
      await backend.readSummary(claimed),
      await read(backend, claimed),
    ]).toEqual(before);
    expect((await append(backend, claimed, "next")).frameCount).toBe(2);
  });

  test("values survive patches that do not concern them", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const kept =
      '{"max":9007199254740991,"min":-9007199254740991,"tenth":0.1,"huge":1e+300,"list":[],"object":{},' +
      '"deep":[[],{},[[1,[2]]]],"text":"grün 🦀 \\u0000","keys":{"":1,"ключ":2}}';
    await appendPatch(backend, claimed, kept);
    for (let n = 0; n < 3; n++)
      await appendPatch(backend, claimed, `{"other":${n}}`);
    const { documentJson } = (await backend.readSummary(claimed))!;
    expect(JSON.parse(textOf(documentJson)!)).toEqual({
      ...(JSON.parse(kept) as object),
      other: 2,
    });
  });

  test("keys are data, whatever they are called", async ({ backend }) => {
    const claimed = await running(backend);
    await appendPatch(
      backend,
      claimed,
      '{"__proto__":{"x":1},"constructor":{"prototype":{"y":1}},"a":{"__proto__":{"z":1}}}',
    );
    await appendPatch(backend, claimed, '{"__proto__":{"w":2}}');
    const { documentJson } = (await backend.readSummary(claimed))!;
    const document = JSON.parse(textOf(documentJson)!) as Record<string, Json>;
    expect(
      Object.fromEntries(
        Object.entries(document).map(([key, value]) => [
          `key ${key}`,
          JSON.stringify(value),
        ]),
      ),
    ).toEqual({
      "key __proto__": '{"x":1,"w":2}',
      "key constructor": '{"prototype":{"y":1}}',
      "key a": '{"__proto__":{"z":1}}',
    });
    expect(({} as { x?: unknown }).x).toBeUndefined();
  });

  test("nesting has bounds", async ({ backend }) => {
    const claimed = await running(backend);
    for (const good of [nested(16, '{"a":', "}"), nested(32, "[", "]")])
      await appendPatch(backend, claimed, good);
    for (const bad of [nested(17, '{"a":', "}"), nested(33, "[", "]")])
      await expectRefused(appendPatch(backend, claimed, bad), "invalid_input", {
        reason: expect.stringMatching(/^patch_depth_exceeded/) as unknown,
      });
  });

  test("a summary outlives its frames and its attempt", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    await appendAll(
      backend,
      claimed,
      Array.from({ length: 10 }, (_one, n) => patch({ n })),
    );
    const { firstAppliedMs } = (await backend.readSummary(claimed))!;
    await passTime(1_000);
    await appendAll(
      backend,
      claimed,
      Array.from({ length: 190 }, (_one, n) => patch({ n: n + 10 })),
    );
    await backend.complete({ handle: claimed.handle });
    const summary = (await backend.readSummary(claimed))!;
    expect(summary).toMatchObject({
      version: 200,
      patchKind: "jsonMergePatch",
      firstAppliedMs,
    });
    expect(summary.lastUpdatedMs).toBeGreaterThanOrEqual(
      firstAppliedMs + 1_000,
    );
    expect(textOf(summary.documentJson)).toBe('{"n":199}');
    expect(await backend.readSummary({ ...claimed, attemptIndex: 1 })).toBe(
      undefined,
    );
  });

  test("a document may have a mebibyte and no more", async ({ backend }) => {
    const claimed = await running(backend);
    // 17 patches of 61 KiB make a little less than a mebibyte.
    const part = (n: number) => patch({ [`p${n}`]: "x".repeat(61_000) });
    await appendAll(
      backend,
      claimed,
      Array.from({ length: 17 }, (_one, n) => part(n)),
    );
    const { documentJson } = (await backend.readSummary(claimed))!;
    const room = 1_048_576 - documentJson.length - ',"z":""'.length;
    await expectRefused(
      backend.appendFrame({
        handle: claimed.handle,
        frame: patch({ z: "x".repeat(room + 1) }),
      }),
      "retention_limit_exceeded",
      { maxBytes: 1_048_576 },
    );
    await backend.appendFrame({
      handle: claimed.handle,
      frame: patch({ z: "x".repeat(room) }),
    });
    const full = (await backend.readSummary(claimed))!;
    expect(full.documentJson.length).toBe(1_048_576);
    expect(full.version).toBe(18);
  });
});

const retention = group("retention of frames", (test) => {
  const ofMode = async (backend: EngineBackend, claimed: Taken, mode: string) =>
    (await read(backend, claimed)).frames.filter(
      ({ fields }) => fields["mode"] === mode,
    );

  test("exactly the newest durable frames stay", async ({ backend }) => {
    const usual = await running(backend, {}, { leaseTtlMs: 600_000 });
    const appended = await appendAll(backend, usual, frames(10_050));
    const page = await read(backend, usual);
    expect(idsOf(page)).toEqual(
      appended.slice(50).map(({ streamId }) => streamId),
    );
    expect(page.gap).toBe(true);

    const small = await running(backend, {
      policy: { streamPolicy: { retentionMaxlen: 10 } },
    });
    for (let n = 0; n < 25; n++) await append(backend, small, `${n}`);
    expect(textsOf(await read(backend, small))).toEqual(
      Array.from({ length: 10 }, (_one, n) => String(15 + n)),
    );
  });

  test("trimming one mode never touches another", async ({ backend }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    await appendAll(backend, claimed, frames(30));
    await appendAll(
      backend,
      claimed,
      Array.from({ length: 200 }, (_one, n) => patch({ n })),
    );
    await appendAll(
      backend,
      claimed,
      frames(scaled(10_000, 1_000), { ...LIVE, maxlenCeiling: 100 }),
    );
    await append(backend, claimed, "last");
    const durable = await ofMode(backend, claimed, "durable");
    expect(durable.map(({ payload }) => textOf(payload))).toEqual([
      ...Array.from({ length: 30 }, (_one, n) => String(n)),
      "last",
    ]);
    const patches = await ofMode(backend, claimed, "summary");
    expect(patches.map(({ payload }) => textOf(payload))).toEqual(
      Array.from({ length: 64 }, (_one, n) => `{"n":${136 + n}}`),
    );
    expect(await ofMode(backend, claimed, "best_effort")).toHaveLength(100);
  });

  test("a reader behind what was trimmed is told, of what it may see only", async ({
    backend,
  }) => {
    const claimed = await running(backend, {
      policy: { streamPolicy: { retentionMaxlen: 5 } },
    });
    const { executionId, attemptIndex } = claimed;
    const appended = await appendAll(backend, claimed, frames(8));
    const after = (id: string) =>
      backend.tailStream({
        executionId,
        attemptIndex,
        after: id,
        countLimit: 9,
      });
    expect(await after("0-0")).toMatchObject({ gap: true });
    expect(textsOf(await after("0-0"))).toEqual(["3", "4", "5", "6", "7"]);
    expect((await after(appended[1]!.streamId)).gap).toBe(true);
    expect((await after(appended[2]!.streamId)).gap).toBe(false);

    const live = await running(backend);
    await append(backend, live, "kept");
    await appendAll(
      backend,
      live,
      frames(30, { ...LIVE, maxlenFloor: 5, maxlenCeiling: 5 }),
    );
    expect((await read(backend, live)).gap).toBe(true);
    const visibility = "excludeBestEffort";
    expect((await read(backend, live, { visibility })).gap).toBe(false);
  });

  test("a reader that asks is told how many frames are retained", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(
      backend,
      { policy: { streamPolicy: { retentionMaxlen: 5 } } },
      { leaseTtlMs: 600_000 },
    );
    const retainedCount = async (more: Partial<ReadStreamInput> = {}) =>
      (await read(backend, claimed, { withRetainedCount: true, ...more }))
        .retainedCount;
    expect(await retainedCount()).toBe(0);

    await appendAll(backend, claimed, frames(8));
    await appendAll(
      backend,
      claimed,
      Array.from({ length: 70 }, (_one, n) => patch({ n })),
    );
    const live = { ...LIVE, ttlMs: 100, maxlenFloor: 3, maxlenCeiling: 3 };
    const last = (await appendAll(backend, claimed, frames(4, live))).at(-1)!;
    expect(last.frameCount).toBe(82);
    const visibility = "excludeBestEffort";
    expect(await retainedCount()).toBe(5 + 64 + 3);
    expect(await retainedCount({ visibility })).toBe(5 + 64);
    // Of the whole stream, whatever is read of it.
    expect(await retainedCount({ from: "end", countLimit: 1 })).toBe(72);
    expect(await read(backend, claimed)).not.toHaveProperty("retainedCount");

    // Nobody sees them any more; they are there until others come.
    await passTime(500);
    expect((await read(backend, claimed)).frames).toHaveLength(69);
    expect(await retainedCount()).toBe(72);
  });
});

const bestEffort = group("best-effort frames", (test) => {
  const retained = async (backend: EngineBackend, claimed: Taken) =>
    (await read(backend, claimed)).frames.length;

  test("a burst fills up to the ceiling, and idleness lowers what is kept", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    const mode = {
      ...LIVE,
      ttlMs: 600_000,
      maxlenFloor: 20,
      maxlenCeiling: 300,
      emaAlpha: 1,
    };
    for (let round = 0; round < 4; round++) {
      await appendAll(backend, claimed, frames(200, mode));
      expect(await retained(backend, claimed)).toBe(
        Math.min(300, 200 * (round + 1)),
      );
    }
    // A frame every 40 s would bring 30 in twice the time to live, one every 100 s brings 12; the floor is 20.
    await passTime(40_000);
    await append(backend, claimed, "slow", { mode });
    // The store's clock has gone on a little by itself.
    const slow = await retained(backend, claimed);
    expect(slow).toBeGreaterThan(25);
    expect(slow).toBeLessThanOrEqual(30);
    await passTime(100_000);
    await append(backend, claimed, "slower", { mode });
    expect(await retained(backend, claimed)).toBe(20);
  });

  test("a frame is there for its time and not for more than twice that", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    const { executionId, attemptIndex } = claimed;
    const mode: StreamMode = { ...LIVE, ttlMs: 20_000 };
    await append(backend, claimed, "durable");
    await append(backend, claimed, "live", { mode });
    await append(backend, claimed, "{}", { mode: PATCH });
    const seen = async () => [
      textsOf(await read(backend, claimed)),
      textsOf(
        await backend.tailStream({
          executionId,
          attemptIndex,
          after: "0-0",
          countLimit: 10,
        }),
      ),
    ];
    // Stores have clocks that go on while the test runs.
    await passTime(18_000);
    expect(await seen()).toEqual([
      ["durable", "live", "{}"],
      ["durable", "live", "{}"],
    ]);
    await passTime(22_001);
    expect(await seen()).toEqual([
      ["durable", "{}"],
      ["durable", "{}"],
    ]);
    await passTime(86_400_000);
    expect((await seen())[0]).toEqual(["durable", "{}"]);
  });

  test("frames end one by one, a newer one keeps no older", async ({
    backend,
    passTime,
  }) => {
    const claimed = await running(backend, {}, { leaseTtlMs: 600_000 });
    await append(backend, claimed, "short", {
      mode: { ...LIVE, ttlMs: 5_000 },
    });
    await append(backend, claimed, "long", {
      mode: { ...LIVE, ttlMs: 60_000 },
    });
    await passTime(10_001);
    await append(backend, claimed, "new", { mode: { ...LIVE, ttlMs: 5_000 } });
    expect(textsOf(await read(backend, claimed))).toEqual(["long", "new"]);
  });

  test("numbers that make no sense are moved to ones that do", async ({
    backend,
  }) => {
    for (const emaAlpha of [0, 2, -1, Number.NaN]) {
      const claimed = await running(backend);
      const mode = { ...LIVE, maxlenFloor: 7, maxlenCeiling: 3, emaAlpha };
      await appendAll(backend, claimed, frames(20, mode));
      expect(await retained(backend, claimed)).toBe(7);
    }
    const claimed = await running(backend);
    const mode = { ...LIVE, ttlMs: 1_000, maxlenFloor: -5, maxlenCeiling: 0 };
    await appendAll(backend, claimed, [
      frame("first", { mode: { ...mode, emaAlpha: 1e-9 } }),
      ...frames(99, { ...mode, emaAlpha: 1e-9 }),
    ]);
    expect(await retained(backend, claimed)).toBe(65);
    for (const ttlMs of [0, -1, 1.5, 86_400_001])
      await expectRefused(
        append(backend, claimed, "x", { mode: { ...LIVE, ttlMs } }),
        "invalid_input",
      );
  });
});

/** What each mode keeps. */
export const modesConformance: Group = (harness, registrar) => {
  for (const part of [summaries, retention, bestEffort])
    part(harness, registrar);
};
