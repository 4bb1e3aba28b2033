/**
 * Who holds a claimed task, and since when not any more. One object per lease keeps the renewal, the permit and
 * the abort signal in step: whichever answer comes first (an ending that landed, a refusal, a notice, dispose)
 * decides, and everything else follows from it once.
 */
import {
  isEngineError,
  stopsRenewal,
  type ClaimedExecution,
  type EngineBackend,
  type EngineError,
  type TaskEndedNotice,
} from "@flowfabric/core";

import {
  findEngineError,
  LeaseLostError,
  TaskCancelledError,
  TaskConsumedError,
  WorkerDisposedError,
  type TerminalOperation,
} from "./errors.js";
import { LazyAbort } from "./lazy-abort.js";
import type { HeldTasks } from "./held-tasks.js";
import { hasLanded, isOwnEnd, lossOf, noticedLossOf } from "./landing.js";
import { describeError, type Logger } from "./logger.js";
import type { Permit } from "./permits.js";
import { Renewal, UNHEALTHY_FAILURES } from "./renewal.js";
import { sleep } from "./waiting.js";

export type TaskState = "active" | "consumed" | "lost" | "disposed";

export interface OwnershipHost {
  readonly backend: EngineBackend;
  readonly logger: Logger;
  readonly leaseTtlMs: number;
  readonly held: HeldTasks;
}

/** Endings after which somebody else goes on; a lost task has nothing to hand back. */
const HANDS_BACK: ReadonlySet<TerminalOperation> = new Set<TerminalOperation>([
  "delay",
  "suspend",
]);

/** How long the reason of a cancellation is looked for before the handler is told without it. */
const REASON_WAIT_MS = 500;

export class Ownership {
  readonly claimed: ClaimedExecution;
  readonly #host: OwnershipHost;
  readonly #renewal: Renewal;
  readonly #aborted = new LazyAbort();
  #permit: Permit | undefined;
  #state: TaskState = "active";
  /** What the engine said when the lease was lost; local expiry leaves it unset. */
  #loss: TaskCancelledError | LeaseLostError | undefined;
  #consumedBy: TerminalOperation | undefined;
  #inFlight: { readonly operation: TerminalOperation } | undefined;
  /** An ending that was sent and has not landed: the engine may have carried it out all the same. */
  #attempted: TerminalOperation | undefined;
  #expiredLocally = false;

  constructor(
    host: OwnershipHost,
    claimed: ClaimedExecution,
    acquiredAt: number,
  ) {
    this.#host = host;
    this.claimed = claimed;
    this.#renewal = new Renewal(host.leaseTtlMs, acquiredAt, {
      renew: () => host.backend.renew({ handle: claimed.handle }),
      failed: (error, failures) => {
        host.logger.warn("lease renewal failed", {
          ...this.#fields,
          failures,
          error: describeError(error),
        });
      },
      ended: (error) => {
        this.#renewalEnded(error);
      },
      expired: () => {
        this.#expireLocally();
      },
      recovered: () => {
        host.logger.warn(
          "lease renewed after it was given up locally; the task stays aborted",
          this.#fields,
        );
      },
    });
    host.held.add(this);
  }

  get signal(): AbortSignal {
    return this.#aborted.signal;
  }
  /** Whether the signal has aborted, without making one. */
  get aborted(): boolean {
    return this.#aborted.aborted;
  }
  get state(): TaskState {
    return this.#state;
  }
  get consumedBy(): TerminalOperation | undefined {
    return this.#consumedBy;
  }
  get loss(): TaskCancelledError | LeaseLostError | undefined {
    return this.#loss;
  }
  /** No renewal got through for a whole lease; the engine may still see it otherwise. */
  get expiredLocally(): boolean {
    return this.#expiredLocally;
  }
  get consecutiveRenewalFailures(): number {
    return this.#renewal.consecutiveFailures;
  }
  get isLeaseHealthy(): boolean {
    return (
      this.#renewal.consecutiveFailures < UNHEALTHY_FAILURES &&
      this.#loss === undefined &&
      !this.#aborted.aborted
    );
  }

  /** From now on this task counts against the limit; given back when it lands or is disposed. */
  holdPermit(permit: Permit): void {
    this.#permit = permit;
    if (this.#state === "consumed" || this.#state === "disposed")
      permit.release();
  }

  /** The handler has ended: another may run in its place while the outcome is on its way. */
  lendPermit(): void {
    this.#permit?.lend();
  }

  async renew(): Promise<void> {
    this.#requireLease("renew");
    await this.#renewal.now();
  }

  /** A call that needs the lease and leaves the task running. */
  async call<T>(operation: string, send: () => Promise<T>): Promise<T> {
    this.#requireLease(operation);
    try {
      return await send();
    } catch (error) {
      this.#observe(error);
      throw error;
    }
  }

  /**
   * A call that ends the task. It is consumed when the call has landed, not before: behind a lost reply the same
   * task can be ended again, and renewal goes on meanwhile.
   * @param keepsLease tells an answer that leaves the task as it is
   */
  async end<T>(
    operation: TerminalOperation,
    send: () => Promise<T>,
    keepsLease: (answer: T) => boolean = () => false,
  ): Promise<T> {
    this.#requireNotEnded(operation);
    if (this.#inFlight !== undefined)
      throw new TaskConsumedError("terminal_in_flight", {
        operation,
        consumedBy: this.#inFlight.operation,
      });
    // Of a lost task only these may turn out to have succeeded before.
    if (HANDS_BACK.has(operation) && this.#loss !== undefined) throw this.#loss;
    const call = { operation };
    this.#inFlight = call;
    this.#attempted = operation;
    try {
      const answer = await send();
      if (keepsLease(answer)) this.#attempted = undefined;
      else this.#land(operation);
      return answer;
    } catch (error) {
      // A call given up by its caller may come back after another one has decided.
      if (hasLanded(error, operation) && this.#consumedBy === undefined) {
        this.#land(operation);
        this.#observe(error);
      }
      throw error;
    } finally {
      if (this.#inFlight === call) this.#inFlight = undefined;
    }
  }

  /** The caller of an ending gave up waiting; the same task may be ended again. */
  abandonCall(): void {
    this.#inFlight = undefined;
  }

  /** Told by push. A notice about an earlier lease of the same execution is none of ours. */
  noticed(notice: TaskEndedNotice): void {
    if (notice.leaseEpoch < this.claimed.leaseEpoch) return;
    if (this.#state !== "active" || this.#loss !== undefined) return;
    if (this.#attempted !== undefined && isOwnEnd(this.#attempted, notice))
      return;
    this.#lose(noticedLossOf(notice, this.claimed));
  }

  /** Ends the holding without telling the engine. Silent where the outcome is known or `quiet` says so. */
  dispose(reason?: WorkerDisposedError, quiet = false): void {
    this.#renewal.stop();
    this.#permit?.release();
    this.#host.held.remove(this);
    if (this.#state === "consumed" || this.#state === "disposed") return;
    const told = this.#loss instanceof TaskCancelledError;
    this.#state = "disposed";
    if (!quiet && !told)
      this.#host.logger.warn(
        "task dropped without an outcome; its lease runs out and another owner takes over",
        this.#fields,
      );
    this.#aborted.abort(
      reason ?? new WorkerDisposedError("the task was disposed"),
    );
  }

  /** Only the signal: the handler is asked to stop, the lease is kept so that the work can be handed back. */
  abort(reason: WorkerDisposedError): void {
    this.#aborted.abort(reason);
  }

  get #fields() {
    const { executionId, attemptIndex, leaseEpoch } = this.claimed;
    return { executionId, attemptIndex, leaseEpoch };
  }

  #requireNotEnded(operation: string): void {
    if (this.#consumedBy !== undefined)
      throw new TaskConsumedError("task_consumed", {
        operation,
        consumedBy: this.#consumedBy,
      });
    if (this.#state === "disposed")
      throw new WorkerDisposedError("the task was disposed");
  }

  #requireLease(operation: string): void {
    this.#requireNotEnded(operation);
    if (this.#loss !== undefined) throw this.#loss;
  }

  #land(operation: TerminalOperation): void {
    this.#renewal.stop();
    this.#consumedBy ??= operation;
    if (this.#state !== "disposed") this.#state = "consumed";
    this.#permit?.release();
    this.#host.held.remove(this);
  }

  /** Any answer may be the one that says that the lease is gone. */
  #observe(error: unknown): void {
    if (!stopsRenewal(findEngineError(error)) || this.#loss !== undefined)
      return;
    this.#renewal.stop();
    this.#confirmLoss(findEngineError(error)!);
  }

  #renewalEnded(error: unknown): void {
    this.#host.logger.warn("lease renewal ended", {
      ...this.#fields,
      error: describeError(error),
    });
    const engine = findEngineError(error)!;
    if (
      this.#attempted !== undefined &&
      isEngineError(engine, "execution_not_active") &&
      isOwnEnd(this.#attempted, engine.detail, this.claimed)
    ) {
      // Our own ending was carried out and its reply is late or lost. Its repeat will be told so; the handler must
      // not hear of a lost lease. Nobody waits for that repeat for ever.
      setTimeout(() => {
        if (this.#state === "active") this.#expireLocally();
      }, this.#host.leaseTtlMs).unref();
      return;
    }
    this.#confirmLoss(engine);
  }

  #confirmLoss(error: EngineError): void {
    const loss = lossOf(error, this.claimed);
    if (!(loss instanceof TaskCancelledError)) {
      this.#lose(loss);
      return;
    }
    // Calls fail fast from here on; the handler is told a moment later, with the reason.
    this.#markLost(loss);
    void this.#readCancellation().then((detail) =>
      this.#lose(new TaskCancelledError(detail, error)),
    );
  }

  async #readCancellation(): Promise<TaskCancelledError["detail"]> {
    const { executionId } = this.claimed;
    try {
      const snapshot = await Promise.race([
        this.#host.backend.describeExecution({ executionId }),
        sleep(REASON_WAIT_MS),
      ]);
      return {
        ...(snapshot?.cancellationReason === undefined
          ? {}
          : { reason: snapshot.cancellationReason }),
        ...(snapshot?.cancelledBy === undefined
          ? {}
          : { source: snapshot.cancelledBy }),
      };
    } catch {
      return {};
    }
  }

  #lose(loss: TaskCancelledError | LeaseLostError): void {
    this.#markLost(loss);
    this.#aborted.abort(loss);
  }

  #markLost(loss: TaskCancelledError | LeaseLostError): void {
    this.#renewal.stop();
    this.#loss = loss;
    if (this.#state === "active") this.#state = "lost";
  }

  #expireLocally(): void {
    this.#expiredLocally = true;
    this.#host.logger.warn(
      "no renewal got through for a whole lease; the task is aborted",
      this.#fields,
    );
    this.#aborted.abort(
      new LeaseLostError({
        leaseEpoch: this.claimed.leaseEpoch,
        reason: "expired_locally",
      }),
    );
  }
}
