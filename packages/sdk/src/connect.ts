/** Claiming call by call, for loops, schedulers and operators of one's own. */
import { MAX_WAIT_MS_CEILING, type LaneId } from "@flowfabric/core";
import type { EngineBackend, Grant, PartitionConfig } from "@flowfabric/core";

import { ConfigError, isRetryable, WorkerDisposedError } from "./errors.js";
import {
  claimByGrant,
  claimByReclaimGrant,
  claimByResumeGrant,
  type ReclaimRequest,
  type ReclaimResult,
} from "./grant-claims.js";
import { IdlePace } from "./idle-pace.js";
import { describeError } from "./logger.js";
import { PARK_MS, Session } from "./session.js";
import type { ClaimedTask } from "./task.js";
import { abortable, type CallOptions } from "./waiting.js";
import {
  parseWorkerConfig,
  type ConnectOptions,
  type WorkerConfig,
} from "./worker-config.js";

/**
 * Registers this process with a store and gives the calls that claim work. Never dials: opening a store is its
 * factory's job.
 *
 * @throws ConfigError `worker_config` before any I/O; `worker_connect` where the store cannot claim, has other
 * partition counts, or knows a live process of the same instance id. A registry that cannot be written is a
 * warning only.
 * @example
 * await using conn = await connect({ backend, workerId: "mailers", lanes: ["mail"] });
 * await using task = await conn.claimNext();
 * if (task) await task.complete({ ok: true });
 */
export async function connect(
  options: ConnectOptions,
): Promise<WorkerConnection> {
  const config = parseWorkerConfig(options);
  return new WorkerConnection(await Session.open(options, config));
}

export interface ClaimQuery {
  /** At most this many, and at most 100. */
  readonly max: number;
  /** A selection of the configured lanes; default all. */
  readonly lanes?: readonly string[] | undefined;
  /** How long to park where there is nothing, in milliseconds; at most 30 000, default 0. */
  readonly maxWaitMs?: number | undefined;
}

/** Made by {@link connect}. Disposing it lets go of its tasks, leaves the registry and keeps the store open. */
export class WorkerConnection implements AsyncDisposable {
  readonly #session: Session;
  #scanLane = 0;
  #warnedOfScans = false;

  /** {@link connect} makes connections; a bare session has not been through its checks. */
  constructor(session: Session) {
    this.#session = session;
  }

  get backend(): EngineBackend {
    return this.#session.backend;
  }
  get config(): WorkerConfig {
    return this.#session.config;
  }
  get partitionConfig(): PartitionConfig {
    return this.#session.backend.partitions;
  }
  get freePermits(): number {
    return this.#session.permits.free;
  }

  /** Resolves once a permit is free; who asks for grants should wait here first, or they burn their time. */
  waitForPermit(options: CallOptions = {}): Promise<void> {
    return this.#session.permits.waitForFree(options.signal);
  }

  /**
   * Claims up to `max` executions, as many as there are free permits: fresh, resumed and taken-over work alike.
   * Without a free permit `[]`, and nothing is sent.
   *
   * Repeat: after a lost reply the same request is sent again, up to three tries, and gets the same leases.
   * @throws EngineError of the claim; the permits are free again
   */
  async claimMany(
    query: ClaimQuery,
    options: CallOptions = {},
  ): Promise<ClaimedTask[]> {
    this.#requireOpen();
    options.signal?.throwIfAborted();
    const lanes = this.#selectLanes(query.lanes);
    const permits = this.#session.permits.take(Math.min(query.max, 100));
    if (permits.length === 0) return [];
    try {
      const { claimed, acquiredAt } = await this.#session.claim(
        this.#session.newRequest(permits.length, lanes),
        Math.min(query.maxWaitMs ?? 0, MAX_WAIT_MS_CEILING),
        options.signal,
      );
      if (claimed.length === 0) options.signal?.throwIfAborted();
      const owned = claimed.map((execution) => {
        const ownership = this.#session.own(execution, acquiredAt);
        const permit = permits.pop();
        if (permit !== undefined) ownership.holdPermit(permit);
        return ownership;
      });
      if (!this.#session.closed)
        return owned.map((ownership) => this.#session.handOver(ownership));
      // Disposed meanwhile: nobody is there to run what came.
      await Promise.all(
        owned.map((ownership) => this.#session.handBack(ownership)),
      );
      return [];
    } finally {
      for (const permit of permits) permit.release();
    }
  }

  /** {@link claimMany} for one. Nothing where there is no work or no free permit. */
  async claimNext(
    query: Omit<ClaimQuery, "max"> = {},
    options: CallOptions = {},
  ): Promise<ClaimedTask | undefined> {
    const [task] = await this.claimMany({ ...query, max: 1 }, options);
    return task;
  }

  /**
   * Work without end, one task after the other, each as soon as a permit is free; ends when `signal` aborts or the
   * connection is disposed. Each task is the caller's to end and dispose. Claims that fail and may succeed later are
   * tried again.
   */
  async *tasks(
    options: CallOptions = {},
  ): AsyncGenerator<ClaimedTask, void, undefined> {
    const { config } = this.#session;
    const { signal } = options;
    const pace = new IdlePace(config);
    const ended = () => signal?.aborted === true || this.#session.closed;
    while (!ended()) {
      const startedAt = performance.now();
      let task: ClaimedTask | undefined;
      try {
        await this.waitForPermit(options);
        const maxWaitMs = config.push ? PARK_MS : 0;
        task = await this.claimNext({ maxWaitMs }, options);
      } catch (error) {
        if (ended()) return;
        if (!isRetryable(error)) throw error;
        config.logger.warn("claim failed, trying again", {
          error: describeError(error),
        });
      }
      if (task === undefined) {
        await pace.afterNothing(performance.now() - startedAt, signal);
      } else {
        pace.foundWork();
        yield task;
      }
    }
  }

  /**
   * Development and benches: claims from one lane, the next of the rotation, without admission by budgets or quotas
   * and from any namespace. Nothing where that lane has nothing, or no permit is free.
   */
  async scanNext(options: CallOptions = {}): Promise<ClaimedTask | undefined> {
    this.#requireOpen();
    const { config, backend, permits } = this.#session;
    if (!this.#warnedOfScans) {
      this.#warnedOfScans = true;
      config.logger.warn(
        "scanNext passes over budgets and quotas; use claimNext in production",
      );
    }
    const [permit] = permits.take(1);
    if (permit === undefined) return undefined;
    const laneId = config.lanes[this.#scanLane++ % config.lanes.length]!;
    const acquiredAt = performance.now();
    try {
      const claimed = await abortable(
        backend.claim({
          laneId,
          capabilities: { tokens: config.capabilities },
          policy: {
            workerId: config.workerId,
            workerInstanceId: config.workerInstanceId,
            leaseTtlMs: config.leaseTtlMs,
          },
        }),
        options.signal,
      );
      if (claimed === undefined) {
        permit.release();
        return undefined;
      }
      const ownership = this.#session.own(claimed, acquiredAt);
      ownership.holdPermit(permit);
      return this.#session.handOver(ownership);
    } catch (error) {
      permit.release();
      throw error;
    }
  }

  /**
   * Uses a grant of any kind that a scheduler received for this worker id.
   *
   * Repeat: after a lost reply with the same lease id, up to three tries while the grant lives.
   * @throws WorkerAtCapacityError without a free permit; the grant is untouched
   * @throws ConfigError `claim_from_grant`, fields `partition_key`, `lane_id`
   * @throws EngineError `claim_grant_expired`, `invalid_claim_grant`, `execution_not_leaseable`, …
   */
  claimFromGrant(
    grant: Grant,
    options: CallOptions = {},
  ): Promise<ClaimedTask> {
    this.#requireOpen();
    return claimByGrant(this.#session, grant, options);
  }

  /**
   * Uses a grant of kind `resume`: the same attempt goes on. Nothing where the execution is gone or no longer
   * resumable; otherwise as {@link claimFromGrant}.
   */
  claimFromResumeGrant(
    grant: Grant,
    options: CallOptions = {},
  ): Promise<ClaimedTask | undefined> {
    this.#requireOpen();
    return claimByResumeGrant(this.#session, grant, options);
  }

  /**
   * Uses a grant of kind `reclaim`: takes over lost work as a new attempt. Workers get such work from
   * {@link claimMany} by themselves.
   *
   * @throws WorkerAtCapacityError without a free permit; the grant is untouched
   * @throws ConfigError `claim_from_reclaim_grant`, fields `execution_id`, `lane_id`, `expires_at_ms`, `kind`, checked
   * in this order before any I/O
   */
  claimFromReclaimGrant(
    request: ReclaimRequest,
    options: CallOptions = {},
  ): Promise<ReclaimResult> {
    this.#requireOpen();
    return claimByReclaimGrant(this.#session, request, options);
  }

  /** Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.close();
  }

  #requireOpen(): void {
    if (this.#session.closed)
      throw new WorkerDisposedError("the connection was disposed");
  }

  #selectLanes(
    lanes: readonly string[] | undefined,
  ): readonly LaneId[] | undefined {
    if (lanes === undefined) return undefined;
    const known = this.config.lanes;
    for (const lane of lanes)
      if (!(known as readonly string[]).includes(lane))
        throw new ConfigError(
          "claim_many",
          `'${lane}' is not one of this connection's lanes`,
          "lanes",
        );
    if (lanes.length === 0)
      throw new ConfigError("claim_many", "at least one lane is required");
    return lanes as readonly LaneId[];
  }
}
