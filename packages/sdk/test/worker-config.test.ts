import type { EngineBackend } from "@flowfabric/core";
import { expect, test } from "vitest";

import { connect } from "../src/connect.js";
import { ConfigError } from "../src/errors.js";
import { livenessTtlMs } from "../src/registration.js";
import {
  parseWorkerConfig,
  type ConnectOptions,
} from "../src/worker-config.js";
import { Worker } from "../src/worker.js";

/** Whoever calls anything of it has done I/O. */
const untouchable = new Proxy({} as EngineBackend, {
  get: (_target, name) =>
    name === "partitions"
      ? { flow: 256, budget: 32, quota: 32 }
      : () => {
          throw new Error(`the store was asked for ${String(name)}`);
        },
});
const parse = (options: Omit<ConnectOptions, "backend">) =>
  parseWorkerConfig({ backend: untouchable, ...options });

test("defaults", () => {
  const config = parse({});

  expect(config).toMatchObject({
    namespace: "default",
    workerId: "worker",
    lanes: ["default"],
    capabilities: [],
    leaseTtlMs: 30_000,
    maxConcurrentTasks: 1,
    claimPollIntervalMs: 1_000,
    push: true,
  });
  expect(config.workerInstanceId).toMatch(/^worker-[0-9a-f-]{36}$/);
  expect(parse({}).workerInstanceId).not.toBe(config.workerInstanceId);
});

test.each([
  [{ lanes: [] }, undefined],
  [{ lanes: ["ok", ""] }, "lanes"],
  [{ lanes: ["x".repeat(65)] }, "lanes"],
  [{ lanes: ["grün"] }, "lanes"],
  [{ workerId: "" }, "worker_id"],
  [{ workerId: "two words" }, "worker_id"],
  [{ workerId: "x".repeat(257) }, "worker_id"],
  [{ workerInstanceId: "a\tb" }, "worker_instance_id"],
  [{ namespace: "" }, "namespace"],
  [{ leaseTtlMs: 999 }, "lease_ttl_ms"],
  [{ leaseTtlMs: 1_500.5 }, "lease_ttl_ms"],
  [{ claimPollIntervalMs: 0 }, "claim_poll_interval_ms"],
  [{ maxConcurrentTasks: Number.NaN }, "max_concurrent_tasks"],
  [{ capabilities: [""] }, "capabilities"],
  [{ capabilities: ["a,b"] }, "capabilities"],
  [{ capabilities: ["a b"] }, "capabilities"],
  [{ capabilities: ["a\tb"] }, "capabilities"],
  [{ capabilities: ["a\nb"] }, "capabilities"],
  [{ capabilities: ["a\u007f"] }, "capabilities"],
] satisfies [Omit<ConnectOptions, "backend">, string | undefined][])(
  "%o is refused before any I/O",
  async (options, field) => {
    const refusal = {
      code: "config",
      detail: { context: "worker_config", ...(field && { field }) },
    };

    expect(() => new Worker({ backend: untouchable, ...options })).toThrow(
      expect.objectContaining({
        ...refusal,
        detail: expect.objectContaining(refusal.detail) as unknown,
      }) as Error,
    );
    await expect(
      connect({ backend: untouchable, ...options }),
    ).rejects.toBeInstanceOf(ConfigError);
  },
);

test("no lane at all names no field and says what is missing", () => {
  expect(() => parse({ lanes: [] })).toThrow(
    "config: worker_config: at least one lane is required",
  );
});

test("the edges of what is allowed", () => {
  expect(parse({ leaseTtlMs: 1_000 }).leaseTtlMs).toBe(1_000);
  expect(parse({ maxConcurrentTasks: 0 }).maxConcurrentTasks).toBe(1);
  expect(parse({ maxConcurrentTasks: -3 }).maxConcurrentTasks).toBe(1);
  expect(parse({ lanes: ["a", "b", "a"] }).lanes).toEqual(["a", "b"]);
  expect(parse({ lanes: ["x".repeat(64)] }).lanes).toHaveLength(1);
});

test("capabilities: printable beyond ASCII, 256 tokens, 4 096 bytes, counted after duplicates are gone", () => {
  const many = (count: number) =>
    Array.from({ length: count }, (_, index) => `t${index}`);
  const csvOf = (bytes: number) => ["x".repeat(bytes)];

  expect(parse({ capabilities: ["é", "🚀"] }).capabilities).toEqual([
    "é",
    "🚀",
  ]);
  expect(parse({ capabilities: many(256) }).capabilities).toHaveLength(256);
  expect(() => parse({ capabilities: many(257) })).toThrow(ConfigError);
  expect(
    parse({ capabilities: [...many(256), ...many(10)] }).capabilities,
  ).toHaveLength(256);
  expect(parse({ capabilities: csvOf(4_096) }).capabilities).toHaveLength(1);
  expect(() => parse({ capabilities: csvOf(4_097) })).toThrow(ConfigError);
});

test("the digest of a capability set does not depend on order or repeats", () => {
  const digest = (capabilities: string[]) =>
    parse({ capabilities }).capabilityDigest;

  expect(digest(["gpu", "eu", "gpu"])).toBe(digest(["eu", "gpu"]));
  // FNV-1a of nothing is its offset basis, cbf29ce4 xor 84222325.
  expect(digest([])).toBe("4fd0bfc1");
});

test("a registration lives for two leases, between 10 s and an hour", () => {
  expect([1_000, 5_000, 30_000, 86_400_000].map(livenessTtlMs)).toEqual([
    10_000, 10_000, 60_000, 3_600_000,
  ]);
});
