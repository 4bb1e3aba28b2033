import { engineError } from "@flowfabric/core";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import {
  Renewal,
  renewalPeriodMs,
  UNHEALTHY_FAILURES,
} from "../src/renewal.js";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const unreachable = () =>
  engineError("transport", {
    backend: "sqlite",
    backendKind: "transport",
    message: "gone",
  });

/** A renewal of a 3 s lease whose calls are answered by `answer`, and what it reported. */
function renewing(answer: () => Promise<unknown>, leaseTtlMs = 3_000) {
  const calls: number[] = [];
  const failures: number[] = [];
  const ended: unknown[] = [];
  let expired = 0;
  let recovered = 0;
  const startedAt = performance.now();
  const renewal = new Renewal(leaseTtlMs, startedAt, {
    renew: () => {
      calls.push(Math.round(performance.now() - startedAt));
      return answer();
    },
    failed: (_error, count) => failures.push(count),
    ended: (error) => ended.push(error),
    expired: () => expired++,
    recovered: () => recovered++,
  });
  return {
    renewal,
    calls,
    failures,
    ended,
    counts: () => ({ expired, recovered }),
  };
}

test("the period is a third of the lease, at least a millisecond", () => {
  expect([1, 2, 3, 10, 30_000].map(renewalPeriodMs)).toEqual([
    1, 1, 1, 3, 10_000,
  ]);
});

test("the first renewal comes one period after the claim, then one per period", async () => {
  const { calls, renewal } = renewing(async () => {});

  await vi.advanceTimersByTimeAsync(3_500);

  expect(calls).toEqual([1_000, 2_000, 3_000]);
  renewal.stop();
});

test("a stall of the event loop yields one renewal, not one per missed tick", async () => {
  vi.useRealTimers();
  const { calls, renewal } = renewing(async () => {}, 3_000);
  const never = new Int32Array(new SharedArrayBuffer(4));

  Atomics.wait(never, 0, 0, 3_500);
  await new Promise((resolve) => setTimeout(resolve, 50));

  expect(calls).toHaveLength(1);
  renewal.stop();
});

test("failures are counted, the third in a row is unhealthy, a success starts over", async () => {
  let reachable = false;
  const { renewal, failures } = renewing(async () => {
    if (!reachable) throw unreachable();
  }, 30_000);

  await vi.advanceTimersByTimeAsync(20_001);
  expect(renewal.consecutiveFailures).toBe(2);
  expect(renewal.consecutiveFailures).toBeLessThan(UNHEALTHY_FAILURES);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(renewal.consecutiveFailures).toBe(3);
  reachable = true;
  await vi.advanceTimersByTimeAsync(10_000);

  expect(renewal.consecutiveFailures).toBe(0);
  expect(failures).toEqual([1, 2, 3]);
  renewal.stop();
});

test.each([
  engineError("stale_lease", {}),
  engineError("lease_expired", {}),
  engineError("lease_revoked", {}),
  engineError("lease_conflict", {}),
  engineError("execution_not_active", {
    terminalOutcome: "success",
    leaseEpoch: 1,
    lifecyclePhase: "terminal",
    attemptId: "",
  }),
  engineError("execution_not_found", {
    entity: "execution",
    executionId: "{fp:0}:x",
  }),
  engineError("corruption", {
    context: "handle_codec",
    field: "magic",
    message: "",
  }),
  engineError("handle_from_other_backend", {
    expected: "sqlite",
    actual: "valkey",
  }),
])("$code ends renewal for good", async (answer) => {
  const { calls, ended, renewal } = renewing(() => Promise.reject(answer));

  await vi.advanceTimersByTimeAsync(10_000);

  expect(ended).toEqual([answer]);
  expect(calls).toEqual([1_000]);
  expect(renewal.consecutiveFailures).toBe(1);
  expect(vi.getTimerCount()).toBe(0);
});

test("the same answer ends it inside a wrapper, too", async () => {
  const wrapped = new Error("renew: lease", {
    cause: engineError("stale_lease", {}),
  });
  const { ended } = renewing(() => Promise.reject(wrapped));

  await vi.advanceTimersByTimeAsync(1_500);

  expect(ended).toEqual([wrapped]);
});

test("a call that hangs for a period counts as failed, and the next one is sent", async () => {
  const { calls, failures, renewal } = renewing(() => new Promise(() => {}));

  await vi.advanceTimersByTimeAsync(2_500);

  expect(calls).toEqual([1_000, 2_000]);
  expect(failures).toEqual([1]);
  renewal.stop();
});

test("two renewals are never in flight: one asked for joins the one under way", async () => {
  let answer = () => {};
  const { calls, renewal } = renewing(
    () => new Promise<void>((resolve) => (answer = resolve)),
  );
  await vi.advanceTimersByTimeAsync(1_000);

  const asked = renewal.now();
  answer();
  await asked;

  expect(calls).toEqual([1_000]);
  renewal.stop();
});

test("without a success for a whole lease it expires once, goes on trying and reports a recovery", async () => {
  let reachable = false;
  const { counts, calls, renewal } = renewing(async () => {
    if (!reachable) throw unreachable();
  });

  await vi.advanceTimersByTimeAsync(2_999);
  expect(counts()).toEqual({ expired: 0, recovered: 0 });
  await vi.advanceTimersByTimeAsync(1);
  expect(counts()).toEqual({ expired: 1, recovered: 0 });
  reachable = true;
  await vi.advanceTimersByTimeAsync(1_500);

  expect(counts()).toEqual({ expired: 1, recovered: 1 });
  expect(calls).toEqual([1_000, 2_000, 3_000, 4_000]);
  renewal.stop();
});

test("a success moves the local expiry to the start of its call plus the lease", async () => {
  let reachable = true;
  const { counts, renewal } = renewing(async () => {
    if (!reachable) throw unreachable();
  });
  await vi.advanceTimersByTimeAsync(1_500);
  reachable = false;

  await vi.advanceTimersByTimeAsync(2_499);
  expect(counts().expired).toBe(0);
  await vi.advanceTimersByTimeAsync(1);

  expect(counts().expired).toBe(1);
  renewal.stop();
});

test("a lease that began earlier than its answer is renewed a period after it began", async () => {
  const calls: number[] = [];
  const now = performance.now();
  const renewal = new Renewal(3_000, now - 2_500, {
    renew: async () => void calls.push(Math.round(performance.now() - now)),
    failed: () => {},
    ended: () => {},
    expired: () => {},
    recovered: () => {},
  });

  await vi.advanceTimersByTimeAsync(100);

  expect(calls).toEqual([0]);
  renewal.stop();
});

test("stopping leaves no timer, and what still comes in is ignored", async () => {
  let answer = (_error: Error) => {};
  const { renewal, ended, failures } = renewing(
    () => new Promise<void>((_resolve, reject) => (answer = reject)),
  );
  await vi.advanceTimersByTimeAsync(1_000);

  renewal.stop();
  answer(engineError("stale_lease", {}));
  await vi.advanceTimersByTimeAsync(0);

  expect(vi.getTimerCount()).toBe(0);
  expect({ ended, failures }).toEqual({ ended: [], failures: [] });
});
