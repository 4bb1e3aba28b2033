/**
 * One process at one store: registered, with permits, told by push what it loses. `WorkerConnection` offers it
 * call by call, `Worker` runs a loop on it.
 */
import {
  CLAIM_MANY_MAX,
  MAX_WAIT_MS_CEILING,
  newUuid,
  type ClaimedExecution,
  type ClaimManyResult,
  type EngineBackend,
  type LaneId,
  type PartitionConfig,
} from "@flowfabric/core";

import type { ExecutionDefinition } from "./definition.js";
import { ConfigError, WorkerDisposedError } from "./errors.js";
import { HeldTasks } from "./held-tasks.js";
import { describeError } from "./logger.js";
import { watchNotices } from "./notices.js";
import { DirectOutcomes, type OutcomeSender } from "./outcomes.js";
import { Ownership } from "./ownership.js";
import { Permits } from "./permits.js";
import { Registration } from "./registration.js";
import { installSigningKey, signingKeyOf } from "./signing-key.js";
import { ClaimedTask } from "./task.js";
import { repeatLostReplies, underAnyOf } from "./waiting.js";
import type { ConnectOptions, WorkerConfig } from "./worker-config.js";

/** How long an idle claim parks. */
export const PARK_MS = MAX_WAIT_MS_CEILING;

/** One claim, named so that it can be repeated until its answer is known. */
export interface ClaimRequest {
  readonly requestId: string;
  readonly lanes: readonly LaneId[];
  readonly max: number;
  /** Monotonic; leases of this request began here at the earliest. */
  readonly startedAt: number;
  /** Set once a try of it may have been applied. */
  repeat: boolean;
}

export interface Arrival {
  readonly claimed: readonly ClaimedExecution[];
  /** Monotonic; what renewal and local expiry count from. */
  readonly acquiredAt: number;
  readonly nextDueInMs?: number;
}

export class Session {
  readonly backend: EngineBackend;
  readonly config: WorkerConfig;
  readonly permits: Permits;
  readonly held = new HeldTasks();
  /** Where tasks send their outcomes; a worker puts its outbox here. */
  outcomes: OutcomeSender;
  readonly #registration: Registration;
  readonly #closed = new AbortController();
  #firstLane = 0;
  #storeClock = { storeMs: Date.now(), atMs: performance.now() };

  private constructor(backend: EngineBackend, config: WorkerConfig) {
    this.backend = backend;
    this.config = config;
    this.permits = new Permits(config.maxConcurrentTasks);
    this.outcomes = new DirectOutcomes(backend);
    this.#registration = new Registration(backend, config);
  }

  /** @throws ConfigError `worker_connect`: the store cannot claim, other partition counts, instance id taken */
  static async open(
    { backend, partitionConfig, waitpointHmac }: ConnectOptions,
    config: WorkerConfig,
  ): Promise<Session> {
    const { identity, supports } = backend.capabilities();
    if (!supports.claimMany)
      throw new ConfigError(
        "worker_connect",
        `the ${identity.family} backend cannot claim`,
      );
    requireSamePartitions(backend.partitions, partitionConfig);
    const session = new Session(backend, config);
    await session.#readStoreClock();
    await installSigningKey(
      backend,
      signingKeyOf(waitpointHmac, "worker_config"),
      config.logger,
    );
    await session.#registration.open();
    if (supports.watchWorker)
      void watchNotices(
        backend,
        config.workerInstanceId,
        session.held,
        config.logger,
        session.#closed.signal,
      );
    config.logger.info("worker connected", {
      workerId: config.workerId,
      workerInstanceId: config.workerInstanceId,
      namespace: config.namespace,
      lanes: config.lanes,
      capabilities: config.capabilities,
      capabilityDigest: config.capabilityDigest,
    });
    return session;
  }

  /** The store's clock as far as it can be told from here: read once at start, carried on by the monotonic clock. */
  storeNowMs(): number {
    const { storeMs, atMs } = this.#storeClock;
    return Math.floor(storeMs + performance.now() - atMs);
  }

  /** @param lanes default: all configured; each request begins with the next of them */
  newRequest(max: number, lanes = this.config.lanes): ClaimRequest {
    const first = this.#firstLane++ % lanes.length;
    return {
      requestId: newUuid(),
      lanes: [...lanes.slice(first), ...lanes.slice(0, first)],
      max: Math.min(max, CLAIM_MANY_MAX),
      startedAt: performance.now(),
      repeat: false,
    };
  }

  /** The request as the backend takes it. */
  claimInput(request: ClaimRequest, maxWaitMs: number, signal?: AbortSignal) {
    const { workerId, workerInstanceId, namespace, capabilities, leaseTtlMs } =
      this.config;
    return {
      workerId,
      workerInstanceId,
      namespace,
      capabilities,
      leaseTtlMs,
      lanes: [...request.lanes],
      max: request.max,
      requestId: request.requestId,
      repeat: request.repeat,
      maxWaitMs,
      signal,
    };
  }

  /** Sends a request, three times while replies are lost. Aborting ends the wait and drops nothing. */
  async claim(
    request: ClaimRequest,
    maxWaitMs: number,
    signal?: AbortSignal,
  ): Promise<Arrival> {
    this.#registration.claimed();
    const answer = await underAnyOf([signal, this.#closed.signal], (ended) =>
      repeatLostReplies((attempt) => {
        if (attempt > 1) request.repeat = true;
        return this.backend.claimMany(
          this.claimInput(request, maxWaitMs, ended),
        );
      }),
    );
    return this.arrival(request, answer, maxWaitMs > 0);
  }

  arrival(
    request: ClaimRequest,
    answer: ClaimManyResult,
    parked: boolean,
  ): Arrival {
    const { claimed, nextDueInMs } = answer;
    // A lease of a call that parked began just before the answer; one of a repeated call perhaps with its first try.
    const acquiredAt =
      parked && !request.repeat ? performance.now() : request.startedAt;
    return {
      claimed,
      acquiredAt,
      ...(nextDueInMs === undefined ? {} : { nextDueInMs }),
    };
  }

  /** The lease is ours from here on: renewed, and aborted when it is lost. */
  own(claimed: ClaimedExecution, acquiredAt: number): Ownership {
    return new Ownership(
      {
        backend: this.backend,
        logger: this.config.logger,
        leaseTtlMs: this.config.leaseTtlMs,
        held: this.held,
      },
      claimed,
      acquiredAt,
    );
  }

  /** For a caller who may forget it; then it is disposed. */
  handOver(ownership: Ownership): ClaimedTask {
    const task = this.task(ownership);
    forgotten.register(task, ownership);
    return task;
  }

  /** For a handler: whoever runs it disposes it. */
  task(ownership: Ownership, definition?: ExecutionDefinition): ClaimedTask {
    return new ClaimedTask(
      {
        backend: this.backend,
        codec: this.config.codec,
        outcomes: this.outcomes,
        logger: this.config.logger,
      },
      ownership,
      definition,
    );
  }

  /** Gives work back that was not finished: the same attempt goes to the next worker at once. Never rejects. */
  async handBack(ownership: Ownership): Promise<boolean> {
    const { handle, executionId } = ownership.claimed;
    try {
      await ownership.end("delay", () =>
        this.backend.delay({ handle, delayUntilMs: this.storeNowMs() }),
      );
      return true;
    } catch (error) {
      this.config.logger.warn(
        "task could not be handed back; its lease runs out and another owner takes over",
        { executionId, error: describeError(error) },
      );
      return false;
    }
  }

  get closed(): boolean {
    return this.#closed.signal.aborted;
  }

  /** Lets go of every task, leaves the registry; the store stays open. Idempotent. */
  async close(quiet = false): Promise<void> {
    if (this.closed) return;
    this.#closed.abort();
    for (const ownership of this.held.all())
      ownership.dispose(new WorkerDisposedError(), quiet);
    await this.#registration.close();
  }

  async #readStoreClock(): Promise<void> {
    const before = performance.now();
    try {
      const storeMs = await this.backend.serverTimeMs();
      this.#storeClock = { storeMs, atMs: (before + performance.now()) / 2 };
    } catch (error) {
      this.config.logger.debug(
        "store clock unreadable, the local one is used",
        {
          error: describeError(error),
        },
      );
    }
  }
}

/** Tasks nobody can end any more: without this they would be renewed for as long as the process lives. */
const forgotten = new FinalizationRegistry<Ownership>((ownership) => {
  ownership.dispose();
});

function requireSamePartitions(
  stored: PartitionConfig,
  wanted: PartitionConfig | undefined,
): void {
  if (wanted === undefined) return;
  for (const family of ["flow", "budget", "quota"] as const)
    if (stored[family] !== wanted[family])
      throw new ConfigError(
        "worker_connect",
        `this store has ${stored[family]} ${family} partitions, not ${wanted[family]}; the count is fixed when a store is created`,
        "partition_config",
      );
}
