/** One run of a worker, from its connection to the last task handed back. */
import { WorkerDisposedError } from "./errors.js";
import { ClaimLoop } from "./claim-loop.js";
import { watchEventLoop } from "./event-loop-lag.js";
import type { Handlers } from "./handlers.js";
import { runMaintenance } from "./maintenance.js";
import { Outbox } from "./outbox.js";
import type { Ownership } from "./ownership.js";
import { Session, type Arrival } from "./session.js";
import { TaskRunner } from "./task-runner.js";
import { sleep, underAnyOf } from "./waiting.js";
import type { ConnectOptions, WorkerConfig } from "./worker-config.js";

/** What became of the tasks of a run. */
export interface WorkerReport {
  readonly completed: number;
  /** Attempts that ended with a failure, tried again or not. */
  readonly failed: number;
  /** Handed back or let go unfinished, because the drain time was over. */
  readonly abandoned: number;
}

export interface WorkerStats extends WorkerReport {
  /** Handlers at work now. */
  readonly running: number;
  /** Claimed ahead and waiting for a permit. */
  readonly prefetched: number;
  readonly freePermits: number;
  /** Outcomes discarded because the lease was lost or the execution cancelled. */
  readonly lost: number;
}

/** How long handlers may take to react to their signal once the drain time is over. */
const GRACE_MS = 5_000;

export class WorkerRun {
  readonly #session: Session;
  readonly #loop: ClaimLoop;
  readonly #runner: TaskRunner;
  readonly #prefetch: number;
  readonly #waiting: Ownership[] = [];
  readonly #running = new Map<Ownership, Promise<void>>();
  readonly #counts = { completed: 0, failed: 0, abandoned: 0, lost: 0 };
  readonly #idle = new AbortController();
  readonly #hurry = new AbortController();
  readonly #maintenance: boolean;
  #draining = false;

  static async start(
    options: ConnectOptions,
    config: WorkerConfig,
    handlers: Handlers,
    prefetch: number,
    maintenance: boolean,
  ): Promise<WorkerRun> {
    const session = await Session.open(options, config);
    return new WorkerRun(session, handlers, prefetch, maintenance);
  }

  private constructor(
    session: Session,
    handlers: Handlers,
    prefetch: number,
    maintenance: boolean,
  ) {
    this.#session = session;
    this.#prefetch = prefetch;
    this.#maintenance = maintenance;
    this.#runner = new TaskRunner(session, handlers);
    this.#loop = new ClaimLoop(session, {
      room: () => this.#room(),
      arrived: (arrival) => this.#arrived(arrival),
    });
    session.outcomes = new Outbox(session.backend, this.#loop);
    session.permits.released = () => this.#pump();
  }

  /** Claims and runs until {@link stop}, then drains. @throws what stopped it by itself, after draining */
  async untilDrained(drainTimeoutMs: number): Promise<WorkerReport> {
    const { backend, config } = this.#session;
    const unwatch = watchEventLoop(config.leaseTtlMs, config.logger);
    // Parked claims hold no timer that keeps a process alive; a worker that is told to run does.
    const alive = setInterval(() => {}, 2 ** 30);
    const maintained = this.#maintenance
      ? runMaintenance(
          backend,
          config.logger,
          () => this.#running.size > 0,
          this.#idle.signal,
        )
      : Promise.resolve();
    try {
      await this.#loop.run();
    } finally {
      this.#loop.stop();
      // What claims under way still bring is run like everything before.
      await this.#loop.ridesEnded();
      await this.#drain(drainTimeoutMs);
      this.#idle.abort();
      await maintained;
      await this.#session.close(true);
      clearInterval(alive);
      unwatch();
      config.logger.info("worker stopped", this.#counts);
    }
    const { completed, failed, abandoned } = this.#counts;
    return { completed, failed, abandoned };
  }

  /** Begins to drain; the second time, running handlers are aborted at once. */
  stop(): void {
    if (this.#draining) this.#hurry.abort();
    this.#draining = true;
    this.#loop.stop();
  }

  stats(): WorkerStats {
    const { free, lent } = this.#session.permits;
    return {
      ...this.#counts,
      running: this.#running.size - lent,
      prefetched: this.#waiting.length,
      freePermits: free,
    };
  }

  #room(): number {
    const { free, lent } = this.#session.permits;
    return free + this.#prefetch - this.#waiting.length - lent;
  }

  #arrived({ claimed, acquiredAt }: Arrival): void {
    for (const execution of claimed)
      this.#waiting.push(this.#session.own(execution, acquiredAt));
    this.#pump();
  }

  /** Permits go to what waits; whatever is left over is room for the next claim. */
  #pump(): void {
    while (this.#waiting.length > 0) {
      const [permit] = this.#session.permits.take(1);
      if (permit === undefined) break;
      const ownership = this.#waiting.shift()!;
      ownership.holdPermit(permit);
      // Lost while it waited: there is nothing to run any more.
      if (ownership.aborted) {
        this.#counts.lost++;
        ownership.dispose(undefined, true);
      } else {
        this.#start(ownership);
      }
    }
    this.#loop.roomChanged();
  }

  #start(ownership: Ownership): void {
    const handlerEnded = () => this.#handlerEnded(ownership);
    const running = this.#runner.run(ownership, handlerEnded).then((end) => {
      // Whoever is handed back after the grace has been counted there.
      if (!this.#running.delete(ownership)) return;
      if (end === "handed_back") this.#counts.abandoned++;
      else if (end !== "released") this.#counts[end]++;
    });
    this.#running.set(ownership, running);
  }

  /** Whoever was claimed ahead need not wait for an outcome to land: the two change places. */
  #handlerEnded(ownership: Ownership): void {
    if (this.#draining || this.#waiting.length === 0) return;
    ownership.lendPermit();
    this.#pump();
  }

  async #drain(drainTimeoutMs: number): Promise<void> {
    this.#draining = true;
    const { logger } = this.#session.config;
    // Nothing that has not begun begins now.
    const unstarted = this.#waiting.splice(0);
    const handedBack = unstarted.map((ownership) => this.#release(ownership));
    await this.#settled(drainTimeoutMs, this.#hurry.signal);
    if (this.#running.size > 0) {
      logger.warn("drain time is over, handlers are aborted", {
        running: this.#running.size,
      });
      for (const ownership of this.#running.keys())
        ownership.abort(new WorkerDisposedError());
      await this.#settled(GRACE_MS);
      handedBack.push(...[...this.#running.keys()].map((o) => this.#giveUp(o)));
    }
    await Promise.all(handedBack);
  }

  async #release(ownership: Ownership): Promise<void> {
    await this.#session.handBack(ownership);
    ownership.dispose(undefined, true);
  }

  /** The handler goes on and nobody listens: what it still writes with this lease is refused. */
  async #giveUp(ownership: Ownership): Promise<void> {
    this.#running.delete(ownership);
    this.#counts.abandoned++;
    this.#session.config.logger.warn(
      "handler did not stop, its work is handed back",
      {
        executionId: ownership.claimed.executionId,
        kind: ownership.claimed.context.executionKind,
      },
    );
    await this.#release(ownership);
  }

  /** Until all handlers have ended, their outcomes included; or the time is over; or `signal`. */
  async #settled(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const ended = new AbortController();
    void Promise.all(this.#running.values()).then(() => ended.abort());
    await underAnyOf([ended.signal, signal], (over) => sleep(timeoutMs, over));
  }
}
