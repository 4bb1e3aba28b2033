/** A store that has grown works as fast as a new one, and what is finished takes little room. */
import type { EngineBackend } from "@flowfabric/core";
import { compareRates } from "@flowfabric/test-servers";
import { valkeyBackend } from "@flowfabric/valkey";
import {
  infoField,
  openClient,
  startRestartableValkey,
  type RestartableServer,
} from "@flowfabric/valkey-testing";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";

const scale = Number(process.env["FLOWFABRIC_TEST_SCALE"] ?? "0.2");
const FINISHED = Math.max(100_000, 1_000_000 * scale * scale);
const WAITING = FINISHED / 10;
const PAYLOAD_BYTES = 100;
const BATCH = 100;
const IN_FLIGHT = 4;

/** 0.8 is what is promised; figures belong in the benchmarks, and a busy machine must not fail this. */
const LEAST = 0.6;
const BYTES_MAX = 1_024;

// Its own, for it measures what it takes up.
let server: RestartableServer;
beforeAll(async () => {
  server = await startRestartableValkey({ settings: { appendonly: "no" } });
});
afterAll(() => server.stop());

test(
  "submissions, claims and completions are as fast among many executions as among few, of which each takes a kilobyte",
  { timeout: 900_000 },
  async () => {
    const { url } = server;
    await using small = await valkeyBackend({ url, prefix: "small" });
    await using large = await valkeyBackend({ url, prefix: "large" });

    const empty = await bytesUsed(url);
    await submitMany(large, FINISHED);
    await drain(large);
    const bytes = ((await bytesUsed(url)) - empty) / FINISHED;
    console.log(
      `${bytes.toFixed(0)} bytes for each finished execution of ${PAYLOAD_BYTES} bytes`,
    );
    await submitMany(large, WAITING);
    const ratios = await compareRates({
      small,
      large,
      rounds: 9,
      least: LEAST,
      jobs: 960,
      payloadBytes: PAYLOAD_BYTES,
    });

    for (const { name, small, large, ratio } of ratios)
      console.log(
        `${name} among ${FINISHED} finished and ${WAITING} waiting: ${large.toFixed(0)} /s, among few ${small.toFixed(0)} /s: ${ratio.toFixed(2)}`,
      );
    expect(bytes).toBeLessThan(BYTES_MAX);
    for (const { name, ratio } of ratios)
      expect(ratio, name).toBeGreaterThan(LEAST);
  },
);

async function submitMany(
  backend: EngineBackend,
  count: number,
): Promise<void> {
  const items = Array.from({ length: BATCH }, () => ({
    executionKind: "rate",
    inputPayload: Buffer.alloc(PAYLOAD_BYTES, 1),
  }));
  let left = count;
  await inFlight(async () => {
    for (; left > 0; left -= BATCH) await backend.submitMany({ items });
  });
}

async function drain(backend: EngineBackend): Promise<void> {
  const claim = {
    workerId: "fill",
    workerInstanceId: "fill",
    lanes: ["default"],
    max: BATCH,
    leaseTtlMs: 600_000,
  };
  await inFlight(async () => {
    let { claimed } = await backend.claimMany(claim);
    while (claimed.length > 0) {
      const items = claimed.map(({ handle }) => ({ handle }));
      ({ claimed } = await backend.completeAndClaim({ items, claim }));
    }
  });
}

async function inFlight(work: () => Promise<void>): Promise<void> {
  await Promise.all(Array.from({ length: IN_FLIGHT }, work));
}

async function bytesUsed(url: string): Promise<number> {
  const client = openClient(url) as Redis;
  try {
    return Number(infoField(await client.info("memory"), "used_memory"));
  } finally {
    client.disconnect();
  }
}
