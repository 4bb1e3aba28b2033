/** What a backend supplies to be crashed, and what every test here works with. */
import type { EngineBackend } from "@flowfabric/core";
import { onTestFinished } from "vitest";

import { openStore } from "../src/open.js";

export interface CrashHarness {
  /** Stands in front of the names of all tests. */
  readonly name: string;
  /** An empty store of its own for one test. */
  create(): Promise<EmptyStore>;
}

interface EmptyStore {
  /** What programs open it with. */
  readonly store: string;
  /** What the store's own check finds wrong with it; nothing where all is well. */
  damage(): Promise<string[]>;
  remove(): Promise<void>;
}

export interface Bench {
  readonly store: string;
  /** Opened by the test's own process, and closed with it. */
  open(): Promise<EngineBackend>;
  damage(): Promise<string[]>;
}

/** Removed at the end of the test, behind everything that the test starts or opens later. */
export async function createBench(harness: CrashHarness): Promise<Bench> {
  const { store, damage, remove } = await harness.create();
  onTestFinished(remove);
  return {
    store,
    damage,
    async open() {
      const backend = await openStore(store);
      onTestFinished(() => backend.close());
      return backend;
    },
  };
}

/** Share of the counts and durations; 1 is what CI runs. */
const SCALE = Number(process.env["FLOWFABRIC_TEST_SCALE"] ?? "0.2");

export function scaled(full: number, least = 1): number {
  return Math.max(least, Math.round(full * SCALE));
}

/** Processes take a while to start, and a busy machine takes longer; what hangs is noticed by each wait of its own. */
export const TIMEOUT_MS = 300_000;

/** Promises hold on a machine that has time; one that is busy with other tests gets ten times as long. */
export const SLACK = 10;

/** Figures that were seen, for whoever reads the output. */
export function tell(line: string): void {
  console.log(`  ${line}`);
}

/** Nearest rank. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

/** What work programs are given to do. */
export function input(ms: number): Uint8Array {
  return Buffer.from(JSON.stringify({ ms }));
}
