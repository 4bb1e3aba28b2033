import {
  atReclaimCap,
  backoffMs,
  checkFence,
  checkTriple,
  clampPriority,
  coverage,
  effectiveHome,
  enterRunnable,
  ExecutionPolicy,
  HOME,
  missingCapabilities,
  parseCapabilities,
  reclaimBackoffMs,
  requestFingerprint,
  retryAtMs,
  sameRequest,
  sortKey,
  type Backoff,
  type CapabilityVerdict,
  type CreateExecutionArgs,
  type FailedAttempt,
  type FenceTriple,
  type FencedRecord,
  type Home,
  type LiveWorker,
  type RunnableFacts,
} from "@flowfabric/core";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { named, present, readVectors } from "./vectors.js";

describe("the fence", () => {
  const vectors = readVectors<{
    triples: {
      name: string;
      fence: FenceTriple | null;
      mayOverride: boolean;
      refused: string | null;
    }[];
    checks: {
      name: string;
      record: Omit<FencedRecord, "home"> & { home: keyof typeof HOME };
      fence: FenceTriple | null;
      nowMs: number;
      attemptIndex?: number;
      refused: string | null;
      markLapsed?: true;
      detail?: object;
    }[];
  }>("fence");

  test.each(named(vectors.triples))("triple: %s", (_name, one) => {
    const refusal = checkTriple(one.fence ?? undefined, one.mayOverride);
    expect(refusal?.refused.code ?? null).toBe(one.refused);
  });

  test.each(named(vectors.checks))("%s", (_name, one) => {
    const record = {
      leaseId: undefined,
      attemptId: undefined,
      leaseExpiresAtMs: undefined,
      ...present(one.record),
      home: HOME[one.record.home],
    } as FencedRecord;
    const refusal = checkFence(
      record,
      one.fence ?? undefined,
      one.nowMs,
      one.attemptIndex,
    );
    expect(refusal?.refused.code ?? null).toBe(one.refused);
    expect(refusal?.markLapsed).toBe(one.markLapsed);
    if (one.detail !== undefined)
      expect(refusal?.refused.detail).toEqual(one.detail);
  });

  test("no two triples that differ pass the same record", () => {
    const part = fc.constantFrom("a", "b");
    const triple = fc.record({
      leaseId: part,
      leaseEpoch: fc.nat(2),
      attemptId: part,
    });
    fc.assert(
      fc.property(triple, triple, fc.nat(10), (held, asked, nowMs) => {
        const record: FencedRecord = {
          home: HOME.active,
          ...held,
          attemptIndex: 0,
          leaseExpiresAtMs: 5,
        };
        const passes = checkFence(record, asked, nowMs) === undefined;
        expect(passes).toBe(
          nowMs < 5 && JSON.stringify(asked) === JSON.stringify(held),
        );
      }),
    );
  });
});

describe("retries", () => {
  test.each(
    named(
      readVectors<
        {
          backoff: Backoff;
          retryCount: number;
          random: number;
          delayMs: number;
        }[]
      >("backoff"),
    ),
  )("back-off %s", (_name, { backoff, retryCount, random, delayMs }) => {
    expect(backoffMs(backoff, retryCount, () => random)).toBe(delayMs);
  });

  test.each(
    named(
      readVectors<
        {
          name: string;
          policy: object;
          failed: FailedAttempt;
          startAtMs: number | null;
        }[]
      >("retry"),
    ),
  )("%s", (_name, { policy, failed, startAtMs }) => {
    const attempt = {
      deadlineAtMs: undefined,
      ...present(failed),
    } as FailedAttempt;
    expect(retryAtMs(ExecutionPolicy.parse(policy), attempt) ?? null).toBe(
      startAtMs,
    );
  });

  test("a delay is a whole number between nothing and its limit, jitter or not", () => {
    fc.assert(
      fc.property(
        fc.record({
          initialDelayMs: fc.nat(100_000),
          maxDelayMs: fc.nat(100_000),
          multiplier: fc.double({ min: 1, max: 1_000, noNaN: true }),
          jitter: fc.boolean(),
        }),
        fc.nat(2_000),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (backoff, retryCount, random) => {
          const exponential = { type: "exponential", ...backoff } as const;
          const delay = backoffMs(exponential, retryCount, () => random);
          expect(Number.isInteger(delay)).toBe(true);
          expect(delay).toBeGreaterThanOrEqual(0);
          expect(delay).toBeLessThanOrEqual(backoff.maxDelayMs);
          if (backoff.jitter) return;
          const next = backoffMs(exponential, retryCount + 1, () => random);
          expect(next).toBeGreaterThanOrEqual(delay);
        },
      ),
    );
  });
});

describe("order", () => {
  const vectors = readVectors<{
    clampPriority: { given: number; stored: number }[];
    sortKey: { createdAtMs: number; priority: number; key: number }[];
    reclaimBackoff: { reclaims: number; delayMs: number }[];
    reclaimCap: {
      reclaims: number;
      policyCap: number | null;
      callCap: number | null;
      reached: boolean;
    }[];
  }>("order");

  test.each(named(vectors.clampPriority))("clamp %s", (_name, one) => {
    expect(clampPriority(one.given)).toBe(one.stored);
  });
  test.each(named(vectors.sortKey))("sort key %s", (_name, one) => {
    expect(sortKey(one.createdAtMs, one.priority)).toBe(one.key);
  });
  test.each(named(vectors.reclaimBackoff))("back-off %s", (_name, one) => {
    expect(reclaimBackoffMs(one.reclaims)).toBe(one.delayMs);
  });
  test.each(named(vectors.reclaimCap))("cap %s", (_name, one) => {
    expect(
      atReclaimCap(
        one.reclaims,
        one.policyCap ?? undefined,
        one.callCap ?? undefined,
      ),
    ).toBe(one.reached);
  });

  test("the key sorts by priority, then by age, and is exact", () => {
    const job = fc.record({
      createdAtMs: fc.integer({ min: 0, max: 999_999_999_999 }),
      priority: fc.integer({ min: 0, max: 9_000 }),
    });
    fc.assert(
      fc.property(job, job, (a, b) => {
        const [keyA, keyB] = [a, b].map((one) =>
          sortKey(one.createdAtMs, one.priority),
        ) as [number, number];
        expect(Number.isSafeInteger(keyA)).toBe(true);
        expect(Math.sign(keyA - keyB)).toBe(
          Math.sign(b.priority - a.priority) ||
            Math.sign(a.createdAtMs - b.createdAtMs),
        );
      }),
    );
  });
});

describe("homes", () => {
  const vectors = readVectors<{
    enterRunnable: {
      name: string;
      facts: RunnableFacts;
      delayReason: "waiting_for_delay";
      nowMs: number;
      home: Home;
      score: number;
      reason: string;
    }[];
    effective: {
      home: Home;
      dueAtMs: number;
      nowMs: number;
      effective: Home;
    }[];
  }>("home");

  test.each(named(vectors.enterRunnable))("%s", (_name, one) => {
    const facts = {
      delayUntilMs: undefined,
      ...present(one.facts),
    } as RunnableFacts;
    expect(enterRunnable(facts, one.delayReason, one.nowMs)).toEqual({
      home: one.home,
      score: one.score,
      reason: one.reason,
    });
  });
  test.each(named(vectors.effective))("in effect %s", (_name, one) => {
    expect(effectiveHome(one.home, one.dueAtMs, one.nowMs)).toBe(one.effective);
  });
});

describe("capabilities", () => {
  const vectors = readVectors<{
    parse: { list: unknown; tokens?: string[]; reason?: string }[];
    limits: {
      name: string;
      count: number;
      length: number;
      refused: string | null;
    }[];
    match: { required: string[]; offered: string[]; missing: string[] }[];
    coverage: {
      required: string[];
      laneId: string;
      live: LiveWorker[];
      verdict: CapabilityVerdict;
    }[];
  }>("capabilities");
  const outcomeOf = (list: unknown, side: "required" | "worker") => {
    const parsed = parseCapabilities(list, side);
    return Array.isArray(parsed) ? parsed : parsed.detail.reason;
  };

  test.each(named(vectors.parse))("reads %s", (_name, one) => {
    for (const side of ["required", "worker"] as const)
      expect(outcomeOf(one.list, side)).toEqual(
        one.tokens ?? `${side}:${one.reason}`,
      );
  });
  test.each(named(vectors.limits))("%s", (_name, one) => {
    const list = Array.from({ length: one.count }, (_unused, n) =>
      one.length === 1
        ? String.fromCodePoint(0x4e00 + n).slice(0, 1)
        : `${n}`.padStart(one.length, "x"),
    );
    const outcome = outcomeOf(list, "worker");
    expect(typeof outcome === "string" ? outcome : null).toBe(
      one.refused === null ? null : `worker:${one.refused}`,
    );
  });
  test.each(named(vectors.match))("matches %s", (_name, one) => {
    expect(missingCapabilities(one.required, new Set(one.offered))).toEqual(
      one.missing,
    );
  });
  test.each(named(vectors.coverage))("covers %s", (_name, one) => {
    const live = one.live.map((worker, index) => ({
      ...worker,
      workerInstanceId: `w${index}`,
    }));
    expect(coverage(one.required, one.laneId, live)).toBe(one.verdict);
  });

  test("reading a list again changes nothing", () => {
    const token = fc.string({ minLength: 1, maxLength: 8, unit: "grapheme" });
    fc.assert(
      fc.property(fc.array(token, { maxLength: 20 }), (list) => {
        const once = parseCapabilities(list, "worker");
        if (!Array.isArray(once)) return;
        expect(parseCapabilities(once, "worker")).toEqual(once);
        expect(new Set(once)).toEqual(new Set(list));
      }),
    );
  });
});

describe("repeated requests", () => {
  const vectors = readVectors<{
    fingerprints: { name: string; args: object; text: string | null }[];
    same: {
      name: string;
      stored: {
        inputPayload?: string;
        policyJson?: string;
        fingerprint?: string;
      };
      asked: object & { inputPayload?: string };
      same: boolean;
    }[];
  }>("requests");
  const scope = {
    namespace: "default",
    laneId: "default",
    executionKind: "k",
  };
  const argsOf = (change: object): CreateExecutionArgs =>
    ({
      executionId: "{fp:7}:01990000-0000-7000-8000-0000000000e1",
      ...scope,
      tags: {},
      ...change,
    }) as never;

  test.each(named(vectors.fingerprints))("%s", (_name, one) => {
    expect(requestFingerprint(argsOf(one.args)) ?? null).toBe(one.text);
  });
  test.each(named(vectors.same))("%s", (_name, { stored, asked, same }) => {
    const payload = (hex = "") => new Uint8Array(Buffer.from(hex, "hex"));
    expect(
      sameRequest(
        {
          ...scope,
          inputPayload: payload(stored.inputPayload),
          policyJson: stored.policyJson,
          fingerprint: stored.fingerprint,
        },
        argsOf({
          ...asked,
          ...(asked.inputPayload === undefined
            ? {}
            : { inputPayload: payload(asked.inputPayload) }),
        }),
      ),
    ).toBe(same);
  });
});
