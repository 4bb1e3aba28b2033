/**
 * Work that goes on while something breaks: a client that submits without a pause, and worker processes that run what it
 * submits. The client does what a user would: a submission that ends in a fault of the transport is made again under the
 * same key. Knows nothing of the store behind it.
 */
import {
  Client,
  isRetryable,
  isTransport,
  type WorkerOptions,
} from "@flowfabric/sdk";
import type { EngineBackend } from "@flowfabric/core";
import { expect, onTestFinished } from "vitest";

import { findViolations, listAll } from "../../src/invariants.js";
import { openStore } from "../../src/open.js";
import { machineMs } from "../../src/reports.js";
import { allEnded, untilNone } from "../endings.js";
import { pause, Program, until } from "../fleet.js";
import { input, percentile, SLACK, tell } from "../harness.js";

export interface LoadOptions {
  /** What the workers and the client open; faults lie on this way. */
  readonly store: string;
  /** A way to the same store that no fault lies on. */
  readonly direct: string;
  readonly workers?: number;
  readonly maxConcurrentTasks?: WorkerOptions["maxConcurrentTasks"];
  readonly leaseTtlMs?: number;
  readonly perSecond?: number;
}

const TICK_MS = 50;
/** With the store out of reach no more than this many submissions wait for it. */
const SUBMISSIONS_MAX = 40;
/** Rates are told of so much time. */
const SETTLED_MS = 700;
/** Handlers run this long, at most. */
const HANDLER_MS_MAX = 20;
/** How soon after the end of a fault new work begins: pauses after errors grow to one second. */
const RECOVERY_MS = 2_000;

export class Load {
  readonly workers: readonly Program[];
  /** Submissions that ended in a fault of the transport, and were made again. */
  #transportFaults = 0;
  readonly #direct: string;
  readonly #client: Client;
  readonly #perSecond: number;
  /** When each execution was acknowledged. */
  readonly #acknowledgedAtMs = new Map<string, number>();
  /** Faults that nobody can repeat his way out of. */
  readonly #refusals: string[] = [];
  readonly #submissions = new Set<Promise<void>>();
  #submitted = 0;
  #stopped = false;
  readonly #submitting: Promise<void>;

  private constructor(
    options: LoadOptions,
    client: Client,
    workers: readonly Program[],
  ) {
    this.#direct = options.direct;
    this.#perSecond = options.perSecond ?? 60;
    this.#client = client;
    this.workers = workers;
    this.#submitting = this.#submitOn();
  }

  /** Submits and runs for a moment before this resolves, so that a fault finds everything at work. */
  static async start(options: LoadOptions): Promise<Load> {
    const backend = await openStore(options.store);
    // Behind whatever the test does to the store's address.
    onTestFinished(() => backend.close());
    const workers = await Promise.all(
      Array.from({ length: options.workers ?? 2 }, () =>
        Program.ready("worker", {
          store: options.store,
          leaseTtlMs: options.leaseTtlMs ?? 3_000,
          maxConcurrentTasks: options.maxConcurrentTasks ?? 4,
        }),
      ),
    );
    const load = new Load(options, new Client({ backend }), workers);
    onTestFinished(() => load.#stop());
    await until("work before the fault", async () =>
      workers.every((worker) => worker.all("started").length >= 10),
    );
    await pause(SETTLED_MS);
    return load;
  }

  /** Submissions that ended in a fault of the transport. */
  get transportFaults(): number {
    return this.#transportFaults;
  }

  /** Handlers begun per second, from then until now. */
  rateSince(fromMs: number): number {
    const begun = this.#starts().filter(({ atMs }) => atMs >= fromMs).length;
    return begun / ((machineMs() - fromMs) / 1_000);
  }

  /**
   * Waits until every worker has begun work that was submitted after the fault, and what had gathered is done. Tells how
   * long that took.
   * @param healedAtMs when the fault was over
   */
  async recovered(what: string, healedAtMs: number): Promise<void> {
    const boundMs = SLACK * RECOVERY_MS;
    await until(
      "new work on every worker",
      async () => {
        for (const worker of this.workers) worker.requireRunning();
        return this.#firstStarts(healedAtMs).length === this.workers.length;
      },
      boundMs,
    );
    const first = this.#firstStarts(healedAtMs).map(
      ({ atMs }) => atMs - healedAtMs,
    );
    await this.#caughtUp(machineMs());
    const caughtUpMs = machineMs() - healedAtMs;
    await pause(SETTLED_MS);
    tell(
      `${what}: new work on all workers after ${Math.max(...first).toFixed(0)} ms, backlog gone after ${caughtUpMs.toFixed(0)} ms; ` +
        `${this.rateSince(machineMs() - SETTLED_MS).toFixed(0)}/s again; ${this.#transportFaults} submissions repeated`,
    );
    expect(Math.max(...first)).toBeLessThan(boundMs);
    expect(this.rateSince(machineMs() - SETTLED_MS)).toBeGreaterThan(
      this.#perSecond / SLACK,
    );
  }

  /** Stops submitting, waits for the end of everything, and looks at what there is. */
  async finish(): Promise<void> {
    await this.#stop();
    const backend = await openStore(this.#direct);
    onTestFinished(() => backend.close());
    await allEnded(backend);
    for (const worker of this.workers) worker.requireRunning();

    expect(this.#refusals).toEqual([]);
    const acknowledged = [...this.#acknowledgedAtMs.keys()].sort();
    expect(acknowledged).toHaveLength(this.#submitted);
    await expectEndedOnce(backend, acknowledged);
    const delays = this.#delays();
    tell(
      `${acknowledged.length} executions, each ended once; submitted to started p50 ${percentile(delays, 0.5).toFixed(1)} ms, longest ${percentile(delays, 1).toFixed(0)} ms`,
    );
  }

  async #submitOn(): Promise<void> {
    let due = 0;
    let lastMs = performance.now();
    while (!this.#stopped) {
      await pause(TICK_MS);
      const nowMs = performance.now();
      due += (this.#perSecond * (nowMs - lastMs)) / 1_000;
      lastMs = nowMs;
      for (; due >= 1; due--)
        if (this.#submissions.size < SUBMISSIONS_MAX) this.#submit();
    }
  }

  #submit(): void {
    const submission = this.#submitOne(`key-${this.#submitted++}`);
    this.#submissions.add(submission);
    void submission.finally(() => this.#submissions.delete(submission));
  }

  async #submitOne(idempotencyKey: string): Promise<void> {
    for (;;) {
      try {
        const { executionId } = await this.#client.submit({
          executionKind: "work",
          inputPayload: input(Math.random() * HANDLER_MS_MAX),
          idempotencyKey,
        });
        this.#acknowledgedAtMs.set(executionId, machineMs());
        return;
      } catch (error) {
        if (!isTransport(error) || !isRetryable(error)) {
          this.#refusals.push(String(error));
          return;
        }
        this.#transportFaults++;
        await pause(TICK_MS);
      }
    }
  }

  async #stop(): Promise<void> {
    this.#stopped = true;
    await this.#submitting;
    await Promise.all(this.#submissions);
  }

  #starts() {
    return this.workers.flatMap((worker) => worker.all("started"));
  }

  /** Of each worker that has one: the first start of something acknowledged after that time. */
  #firstStarts(afterMs: number) {
    return this.workers.flatMap(
      (worker) =>
        worker
          .all("started")
          .find(
            ({ executionId }) =>
              (this.#acknowledgedAtMs.get(executionId) ?? 0) > afterMs,
          ) ?? [],
    );
  }

  /** Waits until all that was acknowledged before that time has begun. @throws with what is known of the rest */
  async #caughtUp(acknowledgedMs: number): Promise<void> {
    const gathered = [...this.#acknowledgedAtMs]
      .filter(([, atMs]) => atMs < acknowledgedMs)
      .map(([executionId]) => executionId);
    await using backend = await openStore(this.#direct);
    const waiting = async () => {
      const begun = new Set(this.#starts().map((start) => start.executionId));
      return gathered.filter((executionId) => !begun.has(executionId));
    };
    await untilNone(
      "the end of the backlog",
      backend,
      waiting,
      SLACK * RECOVERY_MS,
    );
  }

  /** From the acknowledgement to the first start; a start that overtook the acknowledgement counts as none. */
  #delays(): number[] {
    const seen = new Set<string>();
    return this.#starts().flatMap(({ executionId, atMs }) => {
      if (seen.has(executionId)) return [];
      seen.add(executionId);
      return Math.max(0, atMs - this.#acknowledgedAtMs.get(executionId)!);
    });
  }
}

/** The store holds these and no others; each was completed, and its events tell of one end. */
export async function expectEndedOnce(
  backend: EngineBackend,
  executionIds: readonly string[],
): Promise<void> {
  const due = [...executionIds].sort();
  expect((await listAll(backend)).sort()).toEqual(due);
  expect((await listAll(backend, ["completed"])).sort()).toEqual(due);
  // Among much else: each history has exactly one end, and the feed of completions told it once.
  expect(await findViolations(backend)).toEqual([]);
}
