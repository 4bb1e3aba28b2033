/** The one kind of work that is measured, and who does it. */
import { randomBytes } from "node:crypto";

import type {
  ClaimedExecution,
  ClaimManyInput,
  EngineBackend,
} from "@flowfabric/core";

export const PAYLOAD_BYTES = 4_096;
export const IN_FLIGHT = 16;

const LANE = "default";

export function jobOf(payload: Uint8Array) {
  return { laneId: LANE, executionKind: "bench", inputPayload: payload };
}

export function payloadOf(bytes: number): Uint8Array {
  return randomBytes(bytes);
}

export function claimOf(max: number, maxWaitMs = 0): ClaimManyInput {
  return {
    workerId: "bench",
    workerInstanceId: `bench-${process.pid}`,
    lanes: [LANE],
    max,
    leaseTtlMs: 60_000,
    maxWaitMs,
  };
}

/** Puts work there without measuring it. */
export async function fill(
  backend: EngineBackend,
  count: number,
  payload: Uint8Array,
): Promise<void> {
  for (let left = count; left > 0; left -= 500) {
    const items = Array.from({ length: Math.min(500, left) }, () =>
      jobOf(payload),
    );
    await backend.submitMany({ items });
  }
}

/** What a claim must find, for the work was put there before. */
export async function claimSome(
  backend: EngineBackend,
  max: number,
): Promise<ClaimedExecution[]> {
  const { claimed } = await backend.claimMany(claimOf(max));
  if (claimed.length === 0) throw new Error("A claim found no work.");
  return claimed;
}

/** The first refusal, or that less was done than there is work for, ends a benchmark: its figures would be wrong. */
export function insist(done: boolean, what: string): asserts done {
  if (!done) throw new Error(`The benchmark did not do its work: ${what}.`);
}
