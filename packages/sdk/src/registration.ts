/**
 * This process in the worker registry. Advisory: leases do not depend on it, so a registry that cannot be
 * written costs a warning and nothing else.
 */
import {
  HEARTBEAT_THROTTLE_MS,
  isEngineError,
  WORKER_TTL_MS_MAX,
  type EngineBackend,
} from "@flowfabric/core";

import { ConfigError } from "./errors.js";
import { describeError } from "./logger.js";
import type { WorkerConfig } from "./worker-config.js";

/** How long a silent process counts as alive. */
export function livenessTtlMs(leaseTtlMs: number): number {
  return Math.min(Math.max(2 * leaseTtlMs, 10_000), WORKER_TTL_MS_MAX);
}

export class Registration {
  readonly #backend: EngineBackend;
  readonly #config: WorkerConfig;
  readonly #ttlMs: number;
  #timer: NodeJS.Timeout | undefined;
  #claimedAt = -Infinity;
  #beating = false;

  constructor(backend: EngineBackend, config: WorkerConfig) {
    this.#backend = backend;
    this.#config = config;
    this.#ttlMs = livenessTtlMs(config.leaseTtlMs);
  }

  /**
   * Registers and keeps registered.
   * @throws ConfigError `worker_connect`, field `worker_instance_id`, where a live process has that id
   */
  async open(): Promise<void> {
    const { logger, workerInstanceId } = this.#config;
    try {
      if (await this.#isTaken()) throw duplicate(workerInstanceId);
      const { kind } = await this.#register();
      // Between the look and the registration another process came first.
      if (kind === "refreshed") throw duplicate(workerInstanceId);
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      if (isEngineError(error, "invalid_input"))
        throw duplicate(workerInstanceId, error.detail.reason);
      logger.warn("worker could not be registered; it claims all the same", {
        workerInstanceId,
        error: describeError(error),
      });
    }
    this.#timer = setInterval(() => void this.#beat(), this.#ttlMs / 3);
    this.#timer.unref();
  }

  /** A claim call tells the registry as well as a heartbeat does. */
  claimed(): void {
    this.#claimedAt = performance.now();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    const { logger, namespace, workerInstanceId } = this.#config;
    try {
      await this.#backend.deregisterWorker({ workerInstanceId, namespace });
    } catch (error) {
      logger.warn("worker could not be deregistered; its entry lapses", {
        workerInstanceId,
        error: describeError(error),
      });
    }
  }

  #register(): Promise<{ readonly kind: "registered" | "refreshed" }> {
    const { workerId, workerInstanceId, namespace, lanes, capabilities } =
      this.#config;
    return this.#backend.registerWorker({
      workerId,
      workerInstanceId,
      namespace,
      lanes: [...lanes],
      capabilities,
      livenessTtlMs: this.#ttlMs,
    });
  }

  /** The list goes by instance id, so the one looked for stands soon after its own prefix. */
  async #isTaken(): Promise<boolean> {
    const { namespace, workerInstanceId } = this.#config;
    const prefix = Array.from(workerInstanceId).slice(0, -1).join("");
    let after = prefix === "" ? undefined : prefix;
    for (;;) {
      const page = await this.#backend.listWorkers({
        namespace,
        after,
        limit: 100,
      });
      const ids = page.entries.map((entry) => entry.workerInstanceId);
      if (ids.includes(workerInstanceId)) return true;
      const last = ids.at(-1);
      if (page.nextCursor === undefined || last === undefined) return false;
      if (Buffer.compare(Buffer.from(last), Buffer.from(workerInstanceId)) > 0)
        return false;
      after = page.nextCursor;
    }
  }

  async #beat(): Promise<void> {
    // Claims write the registry at most every 10 s; where a third of the TTL is shorter than that, they do not do.
    const quietMs = performance.now() - this.#claimedAt;
    const thirdMs = this.#ttlMs / 3;
    if (thirdMs >= HEARTBEAT_THROTTLE_MS && quietMs < thirdMs) return;
    if (this.#beating) return;
    this.#beating = true;
    const { logger, namespace, workerInstanceId } = this.#config;
    try {
      const { kind } = await this.#backend.heartbeatWorker({
        workerInstanceId,
        namespace,
      });
      if (kind === "notRegistered") await this.#register();
    } catch (error) {
      logger.debug("heartbeat failed, the next one follows", {
        workerInstanceId,
        error: describeError(error),
      });
    } finally {
      this.#beating = false;
    }
  }
}

function duplicate(workerInstanceId: string, reason?: string): ConfigError {
  return new ConfigError(
    "worker_connect",
    `${workerInstanceId} is alive already${reason === undefined ? "" : ` (${reason})`}; give each process an id of its own, or wait until the old registration lapses`,
    "worker_instance_id",
  );
}
