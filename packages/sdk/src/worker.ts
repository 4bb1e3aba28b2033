/** Handlers by kind, and a loop that feeds them. */
import type { EngineBackend, PartitionConfig } from "@flowfabric/core";

import {
  isDefinition,
  type ExecutionDefinition,
  type HandlerInputOf,
  type HandlerOutputOf,
} from "./definition.js";
import { ConfigError, WorkerDisposedError } from "./errors.js";
import { Handlers, type DataKey, type Handler } from "./handlers.js";
import {
  integer,
  parseWorkerConfig,
  type ConnectOptions,
  type WorkerConfig,
} from "./worker-config.js";
import {
  WorkerRun,
  type WorkerReport,
  type WorkerStats,
} from "./worker-run.js";

export type { WorkerReport, WorkerStats } from "./worker-run.js";

export interface WorkerOptions extends ConnectOptions {
  /**
   * How many tasks to hold beyond those whose handlers run: claimed ahead, to have them at hand, or with an outcome on its
   * way. For short handlers: they need not wait for each other's outcomes, and more of these leave together. Default 0, at
   * most 1 000.
   */
  readonly prefetch?: number | undefined;
  /** Whether spare time goes into housekeeping of the store; default `true`. Nothing depends on it. */
  readonly maintenance?: boolean | undefined;
  /** How long running handlers may take after a stop, in milliseconds; default 30 000. */
  readonly drainTimeoutMs?: number | undefined;
}

export interface RunOptions {
  /** Process signals that stop the worker; default `SIGTERM` and `SIGINT`, `[]` for none. */
  readonly stopOn?: readonly NodeJS.Signals[] | undefined;
  /** Default: the worker's. */
  readonly drainTimeoutMs?: number | undefined;
}

const DRAIN_MS = 30_000;
const PREFETCH_MAX = 1_000;
/**
 * Claims work of its lanes and runs a handler for each. With nothing but a store it is a complete system: it takes
 * over what others lost and moves what time moves; any number of workers may share a store.
 *
 * What a handler returns completes the task; what it throws fails it, and the execution's policy decides whether it
 * is tried again. A handler may end the task itself (`task.fail`, `task.delay`, …); the worker then does nothing
 * more. It should hand `task.signal` to whatever takes long.
 *
 * @example
 * await using worker = new Worker({ backend, lanes: ["images"], maxConcurrentTasks: 8 });
 * worker.handle(Thumbnail, async (input, task) => shrink(input, { signal: task.signal }));
 * await worker.run(); // until SIGTERM or SIGINT, then drains
 */
export class Worker implements AsyncDisposable {
  readonly config: WorkerConfig;
  readonly #options: ConnectOptions;
  readonly #handlers = new Handlers();
  readonly #prefetch: number;
  readonly #maintenance: boolean;
  readonly #drainTimeoutMs: number;
  #run:
    { readonly ended: Promise<WorkerReport>; active?: WorkerRun } | undefined;
  #stopRequests = 0;
  #disposed = false;
  /** Of the last run. */
  #stats: WorkerStats;

  /** @throws ConfigError `worker_config`; nothing is read or written before `run` */
  constructor(options: WorkerOptions) {
    this.config = parseWorkerConfig(options);
    this.#options = options;
    this.#prefetch = integer(
      options.prefetch ?? 0,
      "prefetch",
      0,
      PREFETCH_MAX,
    );
    this.#maintenance = options.maintenance ?? true;
    this.#drainTimeoutMs = drainTimeout(options.drainTimeoutMs ?? DRAIN_MS);
    this.#stats = {
      completed: 0,
      failed: 0,
      abandoned: 0,
      lost: 0,
      running: 0,
      prefetched: 0,
      freePermits: this.config.maxConcurrentTasks,
    };
  }

  get backend(): EngineBackend {
    return this.#options.backend;
  }
  get partitionConfig(): PartitionConfig {
    return this.#options.backend.partitions;
  }
  get freePermits(): number {
    return this.stats().freePermits;
  }

  /**
   * Names the handler of a kind. Typed, it gets the decoded and validated input and returns what the definition's
   * output takes; untyped, it gets the bytes.
   *
   * @throws ConfigError `worker_config`, field `kind`, where the kind has a handler already
   */
  handle<D extends ExecutionDefinition>(
    definition: D,
    handler: Handler<HandlerInputOf<D>, HandlerOutputOf<D>>,
  ): this;
  handle(kind: string, handler: Handler<Uint8Array, unknown>): this;
  handle(
    target: ExecutionDefinition | string,
    handler: Handler<never, unknown>,
  ): this {
    if (isDefinition(target)) this.#handlers.add(target.kind, target, handler);
    else this.#handlers.add(target, undefined, handler);
    return this;
  }

  /** A value that handlers get with `use(key)`: one per key, the last one given. */
  data<T>(key: DataKey<T>, value: T): this {
    this.#handlers.share(key, value);
    return this;
  }

  /**
   * Connects, then claims and runs until a signal or {@link stop}, then drains: no new claim; running handlers may
   * finish, with their leases renewed, for `drainTimeoutMs`; then their signals abort and they have 5 s more; what
   * still runs is handed back, so that the next worker takes it at once; the worker leaves the registry. A second
   * signal skips to the abort. Never ends the process.
   *
   * @throws ConfigError as `connect`; `worker_run` where it runs already
   * @throws EngineError that no repeat can cure, after draining
   */
  async run(options: RunOptions = {}): Promise<WorkerReport> {
    if (this.#disposed)
      throw new WorkerDisposedError("the worker was disposed");
    if (this.#run !== undefined)
      throw new ConfigError("worker_run", "this worker runs already");
    this.#stopRequests = 0;
    const drainTimeoutMs = drainTimeout(
      options.drainTimeoutMs ?? this.#drainTimeoutMs,
    );
    const signals = options.stopOn ?? ["SIGTERM", "SIGINT"];
    const onSignal = () => {
      this.#requestStop();
    };
    for (const name of signals) process.on(name, onSignal);
    const run: { ended: Promise<WorkerReport>; active?: WorkerRun } = {
      ended: Promise.resolve({ completed: 0, failed: 0, abandoned: 0 }),
    };
    this.#run = run;
    run.ended = this.#untilDrained(run, drainTimeoutMs);
    try {
      return await run.ended;
    } finally {
      for (const name of signals) process.off(name, onSignal);
      if (run.active !== undefined) this.#stats = run.active.stats();
      this.#run = undefined;
    }
  }

  /** Stops as a signal does and resolves when the run has ended. Without a run, at once. */
  async stop(): Promise<void> {
    if (this.#run === undefined) return;
    const { ended } = this.#run;
    this.#requestStop();
    // How it ended is for whoever called run.
    await ended.catch(() => {});
  }

  /** Counts of the run at hand, or of the last one. */
  stats(): WorkerStats {
    return this.#run?.active?.stats() ?? this.#stats;
  }

  /** {@link stop}, for good. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    await this.stop();
  }

  async #untilDrained(
    run: { active?: WorkerRun },
    drainTimeoutMs: number,
  ): Promise<WorkerReport> {
    run.active = await WorkerRun.start(
      this.#options,
      this.config,
      this.#handlers,
      this.#prefetch,
      this.#maintenance,
    );
    // Asked to stop while it was still connecting.
    for (let i = 0; i < this.#stopRequests; i++) run.active.stop();
    return run.active.untilDrained(drainTimeoutMs);
  }

  #requestStop(): void {
    this.#stopRequests++;
    this.#run?.active?.stop();
  }
}

function drainTimeout(ms: number): number {
  return integer(ms, "drain_timeout_ms", 0, 2 ** 31 - 1);
}
