/** A claimed task: what its holder sees of the execution, and what it may do with it. */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import {
  engineError,
  type AttemptId,
  type AttemptType,
  type EngineBackend,
  type ExecutionId,
  type FailResult,
  type LaneId,
  type LeaseId,
} from "@flowfabric/core";

import type { Codec } from "./codec.js";
import {
  isDefinition,
  type ExecutionDefinition,
  type HandlerInputOf,
  type HandlerOutputOf,
} from "./definition.js";
import type { TerminalOperation } from "./errors.js";
import type { Logger } from "./logger.js";
import { failureOf, type OutcomeSender } from "./outcomes.js";
import type { Ownership, TaskState } from "./ownership.js";
import { decodeInput, encode, validate } from "./payloads.js";
import { ReceivedSignal } from "./signals.js";
import {
  createPending,
  detailsOf,
  needsOperator,
  newSuspendNames,
  suspendInputOf,
  type PendingWaitpoint,
  type Suspended,
  type SuspendNames,
  type SuspendOnPendingRequest,
  type SuspendRequest,
  type SuspensionDetails,
} from "./suspension.js";
import { TaskStream } from "./task-stream.js";
import { abortable, repeatLostReplies, type CallOptions } from "./waiting.js";

export type { TaskState } from "./ownership.js";

export type TrySuspendResult =
  | Suspended
  | {
      /** Signals that came before satisfy the condition: the lease is kept, and the task goes on. */
      readonly kind: "alreadySatisfied";
      readonly task: ClaimedTask;
      readonly details: SuspensionDetails;
    };

export interface TaskHost {
  readonly backend: EngineBackend;
  readonly codec: Codec;
  readonly outcomes: OutcomeSender;
  readonly logger: Logger;
}

/**
 * One leased attempt. Claim calls make it; its lease renews itself until the task is ended or disposed.
 *
 * Ending it (`complete`, `fail`, `cancel`, `delay`, `suspend`) consumes it once the call has *landed*, that is, the engine
 * has answered. A call whose reply was lost, that timed out, or whose arguments were refused has not landed: the
 * task stays usable, its lease is renewed on, and the same call can be made again; the engine recognises what it
 * has done already. After landing every call that needs the lease throws `TaskConsumedError`.
 *
 * Once {@link ClaimedTask.signal} has aborted because the engine said so, calls that need the lease fail fast with
 * the same error, but for `complete`, `fail` and `cancel`, which may turn out to have succeeded before.
 */
export class ClaimedTask implements AsyncDisposable {
  readonly executionId: ExecutionId;
  readonly laneId: LaneId;
  readonly executionKind: string;
  readonly tags: Readonly<Record<string, string>>;
  /** Byte-exact; empty where the submission had none. */
  readonly inputPayload: Uint8Array;
  readonly attemptId: AttemptId;
  /** From 0; the same after a delay, one more after a retry, take-over or replay. */
  readonly attemptIndex: number;
  readonly attemptType: AttemptType;
  readonly leaseId: LeaseId;
  /** Grows with every change of owner: pass it to outside systems to fence them too. */
  readonly leaseEpoch: number;
  readonly handleKind: "fresh" | "resumed" | "reclaimed";
  readonly #host: TaskHost;
  readonly #ownership: Ownership;
  readonly #definition: ExecutionDefinition | undefined;
  #stream: TaskStream | undefined;
  /** Of a suspend that may have been carried out unheard: the next one is it once more. */
  #unansweredSuspend: SuspendNames | undefined;

  /** Claim calls make tasks; a task of one's own would stand outside the permits. */
  constructor(
    host: TaskHost,
    ownership: Ownership,
    definition?: ExecutionDefinition,
  ) {
    const { claimed } = ownership;
    this.executionId = claimed.executionId;
    this.laneId = claimed.laneId;
    this.executionKind = claimed.context.executionKind;
    this.tags = claimed.context.tags;
    this.inputPayload = claimed.context.inputPayload;
    this.attemptId = claimed.attemptId;
    this.attemptIndex = claimed.attemptIndex;
    this.attemptType = claimed.attemptType;
    this.leaseId = claimed.leaseId;
    this.leaseEpoch = claimed.leaseEpoch;
    this.handleKind = claimed.kind;
    this.#host = host;
    this.#ownership = ownership;
    this.#definition = definition;
  }

  /**
   * Aborts with `TaskCancelledError` (cancelled from outside), `LeaseLostError` (expired, revoked, taken over, or no
   * renewal got through for a whole lease) or `WorkerDisposedError` (shut down). Hand it to whatever takes long.
   */
  get signal(): AbortSignal {
    return this.#ownership.signal;
  }
  /** `lost`: the engine said so. `disposed`: let go without an outcome. */
  get state(): TaskState {
    return this.#ownership.state;
  }
  /** Fewer than three renewals in a row have failed, and the lease is not lost. */
  get isLeaseHealthy(): boolean {
    return this.#ownership.isLeaseHealthy;
  }
  get consecutiveRenewalFailures(): number {
    return this.#ownership.consecutiveRenewalFailures;
  }

  /**
   * The input, decoded and validated: the output side of the validator.
   * @throws PayloadDecodeError
   */
  input<S extends StandardSchemaV1>(
    schema: S,
  ): Promise<StandardSchemaV1.InferOutput<S>>;
  input<D extends ExecutionDefinition>(
    definition: D,
  ): Promise<HandlerInputOf<D>>;
  async input(
    source: StandardSchemaV1 | ExecutionDefinition,
  ): Promise<unknown> {
    const definition = isDefinition(source) ? source : undefined;
    const codec = this.#codec(definition);
    return validate(
      definition?.input ?? (source as StandardSchemaV1),
      decodeInput(codec, this.inputPayload),
      "handler",
    );
  }

  /** Renews now instead of at the next tick; joins a renewal in flight. Rejects as the engine answers. */
  renew(options: CallOptions = {}): Promise<void> {
    return abortable(this.#ownership.renew(), options.signal);
  }

  /**
   * Overwrites whichever is given: percent, a whole number 0–100, and a message of at most 4 096 characters.
   * Repeat: the last write wins.
   */
  progress(
    progress: {
      readonly percent?: number | undefined;
      readonly message?: string | undefined;
    },
    options: CallOptions = {},
  ): Promise<void> {
    const { handle } = this.#ownership.claimed;
    return abortable(
      this.#ownership.call("progress", () =>
        this.#host.backend.progress({ handle, ...progress }),
      ),
      options.signal,
    );
  }

  /** What this attempt puts out while it runs, for whoever watches. */
  get stream(): TaskStream {
    this.#stream ??= new TaskStream(
      this.#host.backend,
      this.#ownership,
      this.#host.logger,
    );
    return this.#stream;
  }

  /**
   * Ends attempt and execution successfully. Without an output no result is stored; bytes go as they are, other
   * values through the codec. In a typed handler, or with a definition, the output is validated first.
   *
   * Repeat after a lost reply: recognised as the same success.
   * @throws PayloadDecodeError where the output does not fit; nothing was sent
   * @throws EngineError `payload_too_large`, or that the lease is gone
   */
  complete<D extends ExecutionDefinition>(
    definition: D,
    output: HandlerOutputOf<D>,
    options?: CallOptions,
  ): Promise<void>;
  complete(output?: unknown, options?: CallOptions): Promise<void>;
  async complete(
    first?: unknown,
    second?: unknown,
    third?: CallOptions,
  ): Promise<void> {
    const typed = isDefinition(first);
    const definition = typed ? first : this.#definition;
    const output = typed ? second : first;
    const options = (typed ? third : second) as CallOptions | undefined;
    const payload = await this.#encodeOutput(definition, output);
    const { handle } = this.#ownership.claimed;
    await this.#end("complete", options, () =>
      this.#host.outcomes.send({ handle, payload }),
    );
  }

  /**
   * Ends the attempt with a failure. The stored policy decides whether it is tried again. Categories with a meaning
   * of their own: `transient`, `permanent`, `infra_crash`, `timeout`, `cancelled`; any other counts as transient.
   *
   * Repeat after a lost reply: the first answer.
   */
  async fail(
    failure: {
      readonly reason: string;
      readonly category?: string | undefined;
    },
    options?: CallOptions,
  ): Promise<FailResult> {
    const { handle } = this.#ownership.claimed;
    const answer = await this.#end("fail", options, () =>
      this.#host.outcomes.send({
        handle,
        failure: failureOf(failure.reason, failure.category),
      }),
    );
    return answer.kind === "completed" ? { kind: "terminalFailed" } : answer;
  }

  /** Ends the execution as cancelled. Repeat after a lost reply: recognised as the same success. */
  async cancel(reason: string, options?: CallOptions): Promise<void> {
    const { handle } = this.#ownership.claimed;
    await this.#end("cancel", options, () =>
      this.#host.backend.cancel({ handle, reason }),
    );
  }

  /**
   * Hands the attempt back: from `delayUntilMs` on, by the store's clock, any worker goes on with the same attempt.
   * A past time means at once. No retry is counted.
   */
  delay(
    delay: { readonly delayUntilMs: number },
    options?: CallOptions,
  ): Promise<{ readonly delayUntilMs: number }> {
    const { handle } = this.#ownership.claimed;
    return this.#end("delay", options, () =>
      this.#host.backend.delay({ handle, ...delay }),
    );
  }

  /**
   * Gives lease and worker slot up until the condition comes true. Then any worker goes on with the same attempt: its
   * handler begins anew, and {@link ClaimedTask.resumeSignals} tells it what came. Each distinct key of the condition has a
   * waitpoint and a token of its own, in `details`.
   *
   * A process that ends right behind this call has handed no token out: where they go to people or programs, make the
   * waitpoint first, see {@link ClaimedTask.createPendingWaitpoint}.
   *
   * Repeat: after a lost reply, also by another call of this task, the first outcome.
   * @throws EngineError `invalid_input`, whose reason begins with what is wrong, and all else that is refused before the lease
   * is given up: the task stays usable; `already_satisfied`, likewise
   * @example
   * const [approval] = await task.resumeSignals();
   * if (approval === undefined)
   *   return task.suspend({ reasonCode: "waiting_for_approval", resumeCondition: when.signal("approval") });
   */
  async suspend(
    request: SuspendRequest,
    options?: CallOptions,
  ): Promise<Suspended> {
    const answer = await this.#suspend(request, options);
    if (answer.kind === "suspended") return answer;
    const { suspensionId, waitpointId, waitpointKey } = answer.details;
    throw engineError("already_satisfied", {
      suspensionId,
      waitpointId,
      waitpointKey,
    });
  }

  /** {@link ClaimedTask.suspend}, where signals that came before may do: the task then goes on. */
  trySuspend(
    request: SuspendRequest,
    options?: CallOptions,
  ): Promise<TrySuspendResult> {
    return this.#suspend(request, options);
  }

  /**
   * {@link ClaimedTask.trySuspend} on a waitpoint that was made before; what it has been sent since counts.
   * @throws EngineError also `waitpoint_not_found`, `waitpoint_not_pending`, `pending_waitpoint_expired`, …: the task stays
   * usable
   */
  trySuspendOnPending(
    request: SuspendOnPendingRequest,
    options?: CallOptions,
  ): Promise<TrySuspendResult> {
    return this.#suspend(request, options);
  }

  /**
   * Makes a waitpoint whose token can be handed out before the task suspends. What it is sent meanwhile is kept. Not
   * suspended on within `expiresInMs` (at most 30 days), it closes.
   *
   * Repeat: after a lost reply the same waitpoint; by another call another one, also for an equal key.
   */
  createPendingWaitpoint(
    request: { readonly waitpointKey: string; readonly expiresInMs: number },
    options: CallOptions = {},
  ): Promise<PendingWaitpoint> {
    const { backend } = this.#host;
    const { claimed } = this.#ownership;
    return abortable(
      this.#ownership.call("createPendingWaitpoint", () =>
        createPending(backend, claimed, request),
      ),
      options.signal,
    );
  }

  /**
   * The signals that this attempt's last suspension was satisfied by, in the order they were accepted; with
   * `autoResumeWithTimeoutSignal` and the time being over, those so far and the engine's own, named `timeout`. None where
   * there was no suspension in this attempt, or an operator or a plain timeout resumed it. Nothing is used up by it.
   */
  async resumeSignals(options: CallOptions = {}): Promise<ReceivedSignal[]> {
    const { handle } = this.#ownership.claimed;
    const signals = await repeatLostReplies(
      () => this.#host.backend.observeSignals({ handle }),
      options,
    );
    const codec = this.#codec(undefined);
    return signals.map((signal) => new ReceivedSignal(signal, codec));
  }

  /**
   * Lets go without telling the engine: renewal stops, the permit is free, the signal aborts. Unless the task was
   * ended or cancelled, a warning says that its lease will run out. Idempotent.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ownership.dispose();
  }

  #codec(definition: ExecutionDefinition | undefined): Codec {
    return definition?.codec ?? this.#definition?.codec ?? this.#host.codec;
  }

  async #encodeOutput(
    definition: ExecutionDefinition | undefined,
    output: unknown,
  ): Promise<Uint8Array | undefined> {
    if (definition === undefined && output instanceof Uint8Array) return output;
    if (definition?.output !== undefined)
      await validate(definition.output, output, "handler");
    return encode(this.#codec(definition), output, "handler");
  }

  async #suspend(
    request: SuspendRequest & Partial<SuspendOnPendingRequest>,
    options: CallOptions | undefined,
  ): Promise<TrySuspendResult> {
    const { backend, logger } = this.#host;
    const { executionId, handle } = this.#ownership.claimed;
    const names = (this.#unansweredSuspend ??= newSuspendNames());
    const input = suspendInputOf(handle, names, request);
    if (needsOperator(request.resumeCondition))
      logger.warn(
        "suspended on a condition that no signals satisfy; an operator or its timeout ends it",
        { executionId },
      );
    const answer = await this.#end(
      "suspend",
      options,
      async () => {
        const outcome = await repeatLostReplies(() => backend.suspend(input));
        this.#unansweredSuspend = undefined;
        return outcome;
      },
      ({ kind }) => kind === "alreadySatisfied",
    );
    const details = detailsOf(executionId, answer);
    return answer.kind === "suspended"
      ? { kind: "suspended", details, handle: answer.handle }
      : { kind: "alreadySatisfied", task: this, details };
  }

  /** An abort by the caller leaves the task usable, whatever becomes of the call on its way. */
  #end<T>(
    operation: TerminalOperation,
    options: CallOptions | undefined,
    send: () => Promise<T>,
    keepsLease?: (answer: T) => boolean,
  ): Promise<T> {
    const { signal } = options ?? {};
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    // Behind the end no frame is taken any more: what was written before it goes first.
    const stream = this.#stream;
    const sendLast =
      stream === undefined ? send : () => stream.settled().then(send);
    const ended = this.#ownership.end(operation, sendLast, keepsLease);
    return abortable(ended, signal).catch((error: unknown) => {
      if (signal?.aborted === true) this.#ownership.abandonCall();
      throw error;
    });
  }
}
