/** A cluster that loses a master for which there is no replica: the others go on without it, and it comes back with all it had. */
import { randomUUID } from "node:crypto";

import { crc16, type EngineBackend } from "@flowfabric/core";
import { isTransport } from "@flowfabric/sdk";
import {
  masterOf,
  OUTLIVING,
  startOwnCluster,
  type OwnCluster,
} from "@flowfabric/valkey-testing";
import {
  afterAll,
  beforeAll,
  describe,
  expect,
  onTestFinished,
  test,
} from "vitest";

import { openStore } from "../../src/open.js";
import { machineMs } from "../../src/reports.js";
import { allEnded } from "../endings.js";
import { pause, Program, until } from "../fleet.js";
import {
  input,
  percentile,
  scaled,
  SLACK,
  tell,
  TIMEOUT_MS,
} from "../harness.js";
import { expectEndedOnce } from "./load.js";

const STARTED_MS_MAX = 60_000;
const CELLS = 16;
/** Not the one that has the first cell, which tells whoever opens the store what it was made with. */
const LOST = 1;
const WORKERS = 2;
const PER_SECOND = 60;
/** From submission to start, with the lost node retried beside. */
const PICKUP_MS = 100;

export function valkeyLostShardTests(): void {
  describe(
    "valkey: a cluster with a shard that is lost",
    { timeout: TIMEOUT_MS },
    () => {
      let cluster: OwnCluster;
      beforeAll(async () => {
        cluster = await startOwnCluster({ settings: OUTLIVING });
      }, STARTED_MS_MAX);
      afterAll(() => cluster.stop());

      test("work of the others goes on while it is away, and its own when it is back", async () => {
        const prefix = `faults_${randomUUID().replaceAll("-", "")}`;
        const store = `${cluster.url}?prefix=${prefix}`;
        const backend = await openStore(store);
        onTestFinished(() => backend.close());
        const workers = await Promise.all(
          Array.from({ length: WORKERS }, () =>
            Program.ready("worker", {
              store,
              leaseTtlMs: 3_000,
              maxConcurrentTasks: 4,
            }),
          ),
        );
        const work = new SpreadWork(backend, workers);
        await work.submitFor(1_000);
        expect(work.unsubmitted).toEqual([]);
        await work.allStarted("work before the fault", 0);

        await cluster.servers[LOST]!.shutDown("crash");
        const lostAtMs = machineMs();
        await work.submitFor(scaled(20_000, 5_000));
        expect(work.unsubmitted.length).toBeGreaterThan(0);
        expect(work.unsubmitted.every(isLost)).toBe(true);
        await work.allStarted("work of the other shards", lostAtMs);
        const delays = work.delaysSince(lostAtMs);
        tell(
          `a shard lost: ${delays.length} of the others' started after p50 ${percentile(delays, 0.5).toFixed(1)} ms, longest ${percentile(delays, 1).toFixed(0)} ms; ${work.unsubmitted.length} refused`,
        );
        expect(percentile(delays, 0.5)).toBeLessThan(SLACK * PICKUP_MS);
        // They complete as well, or the permits of the workers would have been used up long ago.
        expect(delays.length).toBeGreaterThan(WORKERS * 4 * 2);

        await cluster.servers[LOST]!.start();
        const backAtMs = machineMs();
        await until("its return", async () => {
          await work.submitAgain();
          return work.unsubmitted.length === 0;
        });
        await allEnded(backend);
        tell(
          `a shard back: all ended after ${(machineMs() - backAtMs).toFixed(0)} ms`,
        );
        for (const worker of workers) worker.requireRunning();
        await expectEndedOnce(backend, work.acknowledged);
      });
    },
  );
}

/** Submissions to all cells in turn, each tried once until {@link submitAgain}. */
class SpreadWork {
  unsubmitted: string[] = [];
  readonly #acknowledgedAtMs = new Map<string, number>();
  readonly #backend: EngineBackend;
  readonly #workers: readonly Program[];
  #count = 0;

  constructor(backend: EngineBackend, workers: readonly Program[]) {
    this.#backend = backend;
    this.#workers = workers;
  }

  get acknowledged(): string[] {
    return [...this.#acknowledgedAtMs.keys()];
  }

  async submitFor(ms: number): Promise<void> {
    const endsAtMs = machineMs() + ms;
    const submissions: Promise<void>[] = [];
    while (machineMs() < endsAtMs) {
      submissions.push(
        this.#submit(`{fp:${this.#count++ % CELLS}}:${randomUUID()}`),
      );
      await pause(1_000 / PER_SECOND);
    }
    await Promise.all(submissions);
  }

  async submitAgain(): Promise<void> {
    await Promise.all(
      this.unsubmitted
        .splice(0)
        .map((executionId) => this.#submit(executionId)),
    );
  }

  /** All that was acknowledged since then, and can be reached. */
  async allStarted(what: string, sinceMs: number): Promise<void> {
    await until(what, async () => {
      for (const worker of this.#workers) worker.requireRunning();
      const started = this.#startedAtMs();
      return [...this.#acknowledgedAtMs].every(
        ([executionId, atMs]) =>
          atMs < sinceMs || isLost(executionId) || started.has(executionId),
      );
    });
  }

  /** From the acknowledgement to the start, of those that can be reached. */
  delaysSince(sinceMs: number): number[] {
    const started = this.#startedAtMs();
    return [...this.#acknowledgedAtMs].flatMap(([executionId, atMs]) =>
      atMs < sinceMs || isLost(executionId)
        ? []
        : Math.max(0, started.get(executionId)! - atMs),
    );
  }

  async #submit(executionId: string): Promise<void> {
    try {
      await this.#backend.createExecution({
        executionId,
        executionKind: "work",
        inputPayload: input(Math.random() * 20),
      });
      this.#acknowledgedAtMs.set(executionId, machineMs());
    } catch (error) {
      if (!isTransport(error)) throw error;
      this.unsubmitted.push(executionId);
    }
  }

  #startedAtMs(): Map<string, number> {
    const started = new Map<string, number>();
    for (const { executionId, atMs } of this.#workers.flatMap((worker) =>
      worker.all("started"),
    ))
      started.set(
        executionId,
        Math.min(atMs, started.get(executionId) ?? Infinity),
      );
    return started;
  }
}

/** Whether it lies where the lost master was. */
function isLost(executionId: string): boolean {
  const partition = Number(/^\{fp:(\d+)\}/.exec(executionId)![1]);
  return masterOf(crc16(Buffer.from(String(partition % CELLS)))) === LOST;
}
