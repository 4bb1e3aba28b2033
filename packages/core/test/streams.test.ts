import {
  archiveEnd,
  checkAppend,
  checkCallerSeq,
  compareFrameIds,
  endAttempt,
  endOfArchived,
  endOfAttempt,
  FIRST_FRAME_ID,
  HOME,
  isEngineError,
  isFrameVisible,
  isRefusal,
  justBefore,
  lowerBound,
  NEW_STREAM,
  nextFrameId,
  parseFrameCursor,
  patchDocument,
  planAppend,
  repeatedOutcomes,
  sizeBestEffort,
  toStreamFrames,
  upperBound,
  type AttemptEnd,
  type AttemptLifecycle,
  type AttemptStanding,
  type FencedRecord,
  type FrameId,
  type FrameMode,
  type ParsedFrame,
  type StreamCloseReason,
  type TailVisibility,
} from "@flowfabric/core";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { named, present, readVectors } from "./vectors.js";

type BestEffort = Extract<ParsedFrame["mode"], { kind: "bestEffortLive" }>;
type Home = keyof typeof HOME;

const vectors = readVectors<{
  nextFrameId: {
    name: string;
    last: FrameId | null;
    nowMs: number;
    next: FrameId;
  }[];
  cursors: { text: string; lower: FrameId | null; upper: FrameId | null }[];
  justBefore: { id: FrameId; before: FrameId }[];
  sizeBestEffort: {
    name: string;
    mode: BestEffort;
    appends: { gapMs: number; rateHz: number; kept: number }[];
  }[];
  checkCallerSeq: {
    name: string;
    last: number | null;
    seqs: (number | null)[];
    verdict: string;
  }[];
  checkAppend: {
    name: string;
    record: Omit<FencedRecord, "home"> & { home: Home };
    own: {
      leaseId: string;
      leaseEpoch: number;
      attemptId: string;
      attemptIndex: number;
    };
    nowMs: number;
    refused: string | null;
  }[];
  planAppend: {
    name: string;
    retained: number;
    kept: number;
    frames: number;
    retainedAfter: number;
    excess: number;
  }[];
  endOfAttempt: {
    name: string;
    attempt: { home: Home };
    nowMs: number;
    end: AttemptEnd | null;
  }[];
  endAttempt: {
    name: string;
    earlier: AttemptEnd | null;
    reason: StreamCloseReason;
    nowMs: number;
    end: AttemptEnd;
  }[];
  archivedEnds: {
    name: string;
    state: AttemptLifecycle;
    endedAtMs: number;
    end: AttemptEnd;
    kept: object;
  }[];
  pages: {
    name: string;
    after: FrameId;
    to: FrameId;
    lastId: FrameId | null;
    page: FrameId[];
    truncated: boolean;
    nextCursor: string;
  }[];
  gaps: {
    name: string;
    after: FrameId;
    visibility: TailVisibility;
    trimmed: Partial<Record<FrameMode, FrameId>>;
    gap: boolean;
  }[];
  isFrameVisible: {
    atMs: number;
    ttlMs: number | null;
    nowMs: number;
    visible: boolean;
  }[];
}>("streams");

function frame(extra: Partial<ParsedFrame> = {}): ParsedFrame {
  return {
    mode: { kind: "durable" },
    bytes: new Uint8Array(3),
    frameType: "event",
    ...extra,
  };
}

function stored(id: FrameId) {
  return {
    id,
    mode: "durable" as const,
    frameType: "event",
    payload: new Uint8Array(),
  };
}

describe("frame ids", () => {
  test.each(named(vectors.nextFrameId))("%s", (_name, one) => {
    expect(nextFrameId(one.last ?? undefined, one.nowMs)).toEqual(one.next);
  });

  test("rise whatever the clock does", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 50 })), (clock) => {
        let last: FrameId | undefined;
        for (const nowMs of clock) {
          const next = nextFrameId(last, nowMs);
          if (last !== undefined)
            expect(compareFrameIds(last, next)).toBeLessThan(0);
          last = next;
        }
      }),
    );
  });

  test.each(vectors.justBefore)("before $id", ({ id, before }) => {
    expect(justBefore(id)).toEqual(before);
  });
});

test.each(vectors.cursors)("cursor $text", ({ text, lower, upper }) => {
  const cursor = parseFrameCursor(text);
  expect(cursor === undefined ? null : lowerBound(cursor)).toEqual(lower);
  expect(cursor === undefined ? null : upperBound(cursor)).toEqual(upper);
});

test.each(named(vectors.sizeBestEffort))(
  "best-effort sizing: %s",
  (_name, { mode, appends }) => {
    let state: ReturnType<typeof sizeBestEffort> | undefined;
    let nowMs = 1_700_000_000_000;
    for (const { gapMs, rateHz, kept } of appends) {
      nowMs += gapMs;
      state = sizeBestEffort(state, mode, nowMs);
      expect(state.rateHz).toBeCloseTo(rateHz, 6);
      expect(state.kept).toBe(kept);
    }
  },
);

test.each(named(vectors.checkCallerSeq))(
  "caller's numbers: %s",
  (_name, { last, seqs, verdict }) => {
    const answer = checkCallerSeq(
      last ?? undefined,
      seqs.map((seq) => ({ seq: seq ?? undefined })),
    );
    expect(isRefusal(answer) ? answer.refused.code : answer).toBe(verdict);
  },
);

test.each(named(vectors.checkAppend))(
  "may append: %s",
  (_name, { record, own, nowMs, refused }) => {
    const fenced = {
      leaseExpiresAtMs: undefined,
      ...present(record),
      home: HOME[record.home],
    } as FencedRecord;
    expect(checkAppend(fenced, own, nowMs)?.refused.code ?? null).toBe(refused);
  },
);

describe("an append", () => {
  test.each(named(vectors.planAppend))("trims: %s", (_name, one) => {
    const meta = {
      ...NEW_STREAM,
      retained: { ...NEW_STREAM.retained, durable: one.retained },
    };
    const plan = planAppend(
      meta,
      Array.from({ length: one.frames }, () => frame()),
      { nowMs: 5, durableKept: one.kept, summaryVersion: 0 },
    );
    expect(plan.meta.retained).toEqual({
      durable: one.retainedAfter,
      summary: 0,
      best_effort: 0,
    });
    expect(plan.excess.durable).toBe(one.excess);
  });

  test("of many frames does what as many appends would do", () => {
    const facts = { nowMs: 7, durableKept: 4 };
    const mode = fc.constantFrom<ParsedFrame["mode"]>(
      { kind: "durable" },
      { kind: "durableSummary", patchKind: "jsonMergePatch" },
      {
        kind: "bestEffortLive",
        ttlMs: 40,
        maxlenFloor: 2,
        maxlenCeiling: 6,
        emaAlpha: 0.5,
      },
    );
    fc.assert(
      fc.property(fc.array(mode, { minLength: 1, maxLength: 20 }), (modes) => {
        const frames = modes.map((one, seq) => frame({ mode: one, seq }));
        const together = planAppend(NEW_STREAM, frames, {
          ...facts,
          summaryVersion: 3,
        });
        let meta = NEW_STREAM;
        let summaryVersion = 3;
        const outcomes = frames.map((one) => {
          const plan = planAppend(meta, [one], { ...facts, summaryVersion });
          ({ meta } = plan);
          if (one.mode.kind === "durableSummary") summaryVersion += 1;
          return plan.outcomes[0];
        });
        expect(together.meta).toEqual(meta);
        expect(together.outcomes).toEqual(outcomes);
        expect(repeatedOutcomes(together.meta.caller!, frames)).toEqual(
          outcomes,
        );
      }),
    );
  });
});

describe("the end of an attempt", () => {
  test.each(named(vectors.endOfAttempt))(
    "%s",
    (_name, { attempt, nowMs, end }) => {
      const standing = {
        ...present(attempt),
        home: HOME[attempt.home],
      } as unknown as AttemptStanding;
      expect(endOfAttempt(standing, nowMs) ?? null).toEqual(end);
    },
  );

  test.each(named(vectors.endAttempt))("%s", (_name, one) => {
    expect(endAttempt(one.earlier ?? undefined, one.reason, one.nowMs)).toEqual(
      one.end,
    );
  });

  test.each(named(vectors.archivedEnds))(
    "archived: %s",
    (_name, { state, endedAtMs, end, kept }) => {
      expect(archiveEnd(end, { state, endedAtMs })).toEqual(kept);
      expect(endOfArchived({ state, endedAtMs, ...kept })).toEqual(end);
    },
  );
});

describe("a page", () => {
  test.each(named(vectors.pages))("goes on: %s", (_name, one) => {
    const page = toStreamFrames(
      { after: one.after, to: one.to, visibility: "all" },
      one.lastId === null ? undefined : { ...NEW_STREAM, lastId: one.lastId },
      undefined,
      one.page.map(stored),
      one.truncated,
    );
    expect(page.nextCursor).toBe(one.nextCursor);
  });

  test.each(named(vectors.gaps))("gap: %s", (_name, one) => {
    const page = toStreamFrames(
      { after: one.after, to: FIRST_FRAME_ID, visibility: one.visibility },
      {
        ...NEW_STREAM,
        trimmedThrough: { ...NEW_STREAM.trimmedThrough, ...one.trimmed },
      },
      undefined,
      [],
      false,
    );
    expect(page.gap).toBe(one.gap);
  });

  test("shows fields in sorted order, and text from binary", () => {
    const { frames } = toStreamFrames(
      { after: FIRST_FRAME_ID, to: FIRST_FRAME_ID, visibility: "all" },
      undefined,
      { closedAtMs: 4, closedReason: "reclaimed" },
      [
        {
          ...stored({ ms: 5, n: 1 }),
          mode: "best_effort",
          correlationId: "c",
          seq: 3,
          ttlMs: 9,
        },
        { ...stored({ ms: 5, n: 2 }), payload: new Uint8Array([0xff]) },
      ],
      false,
    );
    expect(Object.keys(frames[0]!.fields)).toEqual(
      Object.keys(frames[0]!.fields).sort(),
    );
    expect(frames[0]!.fields).toMatchObject({
      correlation_id: "c",
      encoding: "utf8",
      mode: "best_effort",
      seq: "3",
      source: "worker",
      ts: "5",
      ttl_ms: "9",
    });
    expect(frames[1]!.fields["encoding"]).toBe("base64");
  });
});

test.each(vectors.isFrameVisible)(
  "visible $ttlMs ms at $nowMs: $visible",
  ({ atMs, ttlMs, nowMs, visible }) => {
    const id = { ms: atMs, n: 0 };
    expect(isFrameVisible({ id, ttlMs: ttlMs ?? undefined }, nowMs)).toBe(
      visible,
    );
  },
);

describe("summaries", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const cases = readVectors<
    {
      name: string;
      document: string | null;
      patches: string[];
      result: string | null;
      refused: string | null;
    }[]
  >("merge-patch");

  test.each(named(cases))(
    "%s",
    (_name, { document, patches, result, refused }) => {
      let reason: string | null = null;
      let patched: unknown = null;
      try {
        patched = JSON.parse(
          patchDocument(document ?? undefined, patches.map(bytes)),
        );
      } catch (error) {
        if (!isEngineError(error, "invalid_input")) throw error;
        ({ reason } = error.detail);
      }
      expect(patched).toEqual(result === null ? null : JSON.parse(result));
      if (refused === null) expect(reason).toBeNull();
      else expect(reason).toMatch(new RegExp(`^${refused}`));
    },
  );

  test("prototypes stay as they are", () => {
    patchDocument("{}", [bytes('{"__proto__":{"polluted":1}}')]);
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });

  test("no patch is anything but UTF-8", () => {
    const patch = new Uint8Array([...bytes('{"a":"'), 0xff, ...bytes('"}')]);
    expect(() => patchDocument(undefined, [patch])).toThrow("invalid_input");
  });

  test("an unreadable document is corruption", () => {
    for (const document of ["", "{", "[]", "1", "null"])
      expect(() => patchDocument(document, [bytes("{}")])).toThrow(
        "corruption",
      );
  });

  test("a document may have a mebibyte and no more", () => {
    const text = (length: number) =>
      bytes(JSON.stringify({ a: "x".repeat(length) }));
    const fits = patchDocument(undefined, [text(1_048_576 - 8)]);
    expect(fits).toHaveLength(1_048_576);
    expect(() => patchDocument(undefined, [text(1_048_576 - 7)])).toThrow(
      "retention_limit_exceeded",
    );
  });
});
