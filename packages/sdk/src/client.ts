/** Submitting, steering and watching executions. Nobody here holds a lease. */
import {
  DEFAULT_NAMESPACE,
  derivePublicState,
  engineError,
  identityFault,
  isEngineError,
  type EngineBackend,
  type ExecutionId,
  type ExecutionSnapshot,
  type ListExecutionsInput,
  type PublicState,
  type SearchByTagsInput,
  type TagSearchEntry,
  type TerminalOutcome,
} from "@flowfabric/core";

import { adminOf, type FlowFabricAdmin } from "./admin.js";
import { jsonCodec, type Codec } from "./codec.js";
import { CompletionFeed } from "./completion-feed.js";
import {
  isDefinition,
  type ExecutionDefinition,
  type OutputOf,
} from "./definition.js";
import { ConfigError, PayloadDecodeError } from "./errors.js";
import { silentLogger, type Logger } from "./logger.js";
import { decode, validate } from "./payloads.js";
import { SignalToken, type SignalTarget } from "./signal-token.js";
import { sendSignal, type Signal, type SignalResult } from "./signals.js";
import {
  installSigningKey,
  signingKeyOf,
  type WaitpointHmac,
} from "./signing-key.js";
import {
  awaitResult,
  type ExecutionResult,
  type ResultQuery,
} from "./results.js";
import {
  prepare,
  prepareSync,
  submitAll,
  submitOne,
  type AnySubmission,
  type Submission,
  type SubmissionContext,
  type SubmitItemResult,
  type SubmitResult,
  type UntypedSubmission,
} from "./submissions.js";
import {
  readStreams,
  type StreamEvent,
  type StreamQuery,
} from "./stream-reader.js";
import { repeatLostReplies, underAnyOf, type CallOptions } from "./waiting.js";

export interface ClientOptions {
  /** An opened store. Whoever opened it closes it. */
  readonly backend: EngineBackend;
  /** Used by every call that names none; default `default`. */
  readonly namespace?: string | undefined;
  /** Default: JSON. A definition's own goes first. */
  readonly codec?: Codec | undefined;
  /** The first key of a store that has none to sign waitpoint tokens with; default: a random one. */
  readonly waitpointHmac?: WaitpointHmac | undefined;
  /** Default: silent. */
  readonly logger?: Logger | undefined;
}

/** One item of {@link Client.submitMany}: a definition with its submission. */
export type SubmitItem<D extends ExecutionDefinition> = {
  readonly definition: D;
} & Submission<D>;

interface Atomicity {
  /** Default `perItem`: each stands alone. */
  readonly atomicity?: "perItem" | "allOrNothing" | undefined;
}

/** What tells a `better-sqlite3` handle from other transactions: it answers at once. */
export interface SynchronousTransaction {
  readonly inTransaction: boolean;
  prepare(sql: string): unknown;
}

/**
 * A client of one store and one namespace.
 *
 * @example
 * await using client = new Client({ backend });
 * const job = await client.submit(Thumbnail, { input: { photo: "cat.png", width: 320 } });
 * const end = await client.result(Thumbnail, { executionId: job.executionId, timeoutMs: 60_000 });
 */
export class Client implements AsyncDisposable {
  readonly backend: EngineBackend;
  readonly namespace: string;
  /** Every other operation for users and operators, under the contract's names. */
  readonly admin: FlowFabricAdmin;
  readonly #context: SubmissionContext;
  readonly #feed: CompletionFeed;
  readonly #disposed = new AbortController();
  readonly #keyInstalled: Promise<void>;

  /** @throws ConfigError `client_config`, fields `backend`, `namespace`, `waitpoint_hmac` */
  constructor(options: ClientOptions) {
    const { backend, namespace = DEFAULT_NAMESPACE } = options;
    if (typeof backend?.createExecution !== "function")
      throw new ConfigError("client_config", "give an opened store", "backend");
    const fault = identityFault(namespace);
    if (fault !== undefined)
      throw new ConfigError("client_config", `namespace ${fault}`, "namespace");
    this.backend = backend;
    this.namespace = namespace;
    this.admin = adminOf(backend, namespace);
    this.#context = { backend, namespace, codec: options.codec ?? jsonCodec };
    const logger = options.logger ?? silentLogger;
    const key = signingKeyOf(options.waitpointHmac, "client_config");
    this.#feed = new CompletionFeed(backend, namespace, logger);
    this.#keyInstalled = installSigningKey(backend, key, logger);
  }

  /**
   * Submits one execution. The id is minted here; a submission whose reply was lost is repeated with the same id,
   * up to three tries.
   *
   * @returns `created`, or `duplicate` with the earlier id where the idempotency key is known; `mismatch` says
   * that the stored request differs from this one
   * @throws PayloadDecodeError where the input does not fit, before any I/O
   * @throws EngineError as `createExecution`: `invalid_input`, `payload_too_large`, `invalid_policy_json`, …
   */
  submit<D extends ExecutionDefinition>(
    definition: D,
    submission: Submission<D>,
    options?: CallOptions,
  ): Promise<SubmitResult>;
  submit(
    submission: UntypedSubmission,
    options?: CallOptions,
  ): Promise<SubmitResult>;
  async submit(
    first: ExecutionDefinition | UntypedSubmission,
    second?: AnySubmission | CallOptions,
    third?: CallOptions,
  ): Promise<SubmitResult> {
    const { submission, options } = readArguments<AnySubmission>(
      first,
      second,
      third,
    );
    const create = await prepare(this.#context, submission);
    return submitOne(this.#context, create, options);
  }

  /**
   * Submits 1 to 1 000 executions, at most 8 MiB of payload, in one trip. Repeated as {@link submit}.
   *
   * @returns one answer per item at its index; `rejected` with `payload_decode` where an input does not fit.
   * With `allOrNothing` all items lie on one lane, and any rejection writes nothing.
   */
  submitMany(
    batch: { readonly items: readonly UntypedSubmission[] } & Atomicity,
    options?: CallOptions,
  ): Promise<SubmitItemResult[]>;
  submitMany<const D extends readonly ExecutionDefinition[]>(
    batch: {
      readonly items: { readonly [I in keyof D]: SubmitItem<D[I]> };
    } & Atomicity,
    options?: CallOptions,
  ): Promise<SubmitItemResult[]>;
  async submitMany(
    batch: { readonly items: readonly AnySubmission[] } & Atomicity,
    options: CallOptions = {},
  ): Promise<SubmitItemResult[]> {
    const prepared = await Promise.all(
      batch.items.map((item) =>
        prepare(this.#context, item).catch((error: unknown) => {
          if (error instanceof PayloadDecodeError) return error;
          throw error;
        }),
      ),
    );
    return submitAll(
      this.#context,
      prepared,
      batch.atomicity ?? "perItem",
      options,
    );
  }

  /**
   * {@link submit} inside the caller's own open transaction on the same store: rolled back it never existed,
   * committed it is picked up at once. With a `better-sqlite3` handle the answer is synchronous. Never repeated.
   *
   * @throws EngineError `unavailable`, op `transaction`, where the store cannot join one, before anything else;
   * `invalid_input` where the validator is asynchronous, or no transaction is open
   */
  submitInTransaction<D extends ExecutionDefinition>(
    transaction: SynchronousTransaction,
    definition: D,
    submission: Submission<D>,
  ): SubmitResult;
  submitInTransaction(
    transaction: SynchronousTransaction,
    submission: UntypedSubmission,
  ): SubmitResult;
  submitInTransaction<D extends ExecutionDefinition>(
    transaction: object,
    definition: D,
    submission: Submission<D>,
  ): SubmitResult | Promise<SubmitResult>;
  submitInTransaction(
    transaction: object,
    submission: UntypedSubmission,
  ): SubmitResult | Promise<SubmitResult>;
  submitInTransaction(
    transaction: object,
    first: ExecutionDefinition | UntypedSubmission,
    second?: AnySubmission,
  ): SubmitResult | Promise<SubmitResult> {
    if (!this.backend.capabilities().supports.callerTransaction)
      throw engineError("unavailable", { op: "transaction" });
    const { submission } = readArguments<AnySubmission>(first, second);
    const create = prepareSync(this.#context, submission);
    return this.backend.createExecutionInTransaction({
      ...create,
      transaction,
    });
  }

  /**
   * Waits for the end of an execution. Woken by one completion feed that all waits of this client share; each
   * also reads again every second. While waiting, a store that cannot be reached is asked again.
   *
   * @returns how it ended, `output` validated by the definition or, in the untyped form, as bytes; `pending` when
   * `timeoutMs` is over
   * @throws EngineError `execution_not_found`, also once retention has removed it
   * @throws PayloadDecodeError where the stored output does not fit the definition
   */
  result<D extends ExecutionDefinition>(
    definition: D,
    query: ResultQuery,
    options?: CallOptions,
  ): Promise<ExecutionResult<OutputOf<D>>>;
  result(
    query: ResultQuery,
    options?: CallOptions,
  ): Promise<ExecutionResult<Uint8Array | undefined>>;
  async result(
    first: ExecutionDefinition | ResultQuery,
    second?: ResultQuery | CallOptions,
    third?: CallOptions,
  ): Promise<ExecutionResult<unknown>> {
    const { definition, submission, options } = readArguments<
      ResultQuery & { definition?: ExecutionDefinition }
    >(first, second, third);
    const query = {
      ...submission,
      namespace: submission.namespace ?? this.namespace,
    };
    const end = await underAnyOf(
      [options.signal, this.#disposed.signal],
      (signal) => awaitResult(this.backend, this.#feed, query, { signal }),
    );
    if (definition === undefined || end.kind !== "completed") return end;
    const codec = definition.codec ?? this.#context.codec;
    const stored = decode(codec, end.output, "result");
    const output =
      definition.output === undefined
        ? stored
        : await validate(definition.output, stored, "result");
    return { ...end, output };
  }

  /**
   * What an execution puts out, live: frames in their order, attempt after attempt, with an `end` behind each. Ends where
   * the execution ends, or its reader breaks off or aborts. A store that cannot be reached is asked again.
   *
   * @example
   * for await (const event of client.stream({ executionId, after: lastCursor }))
   *   if (event.kind === "frame") process.stdout.write(event.text);
   *
   * @throws ConfigError `stream`, field `after`, at the call
   * @throws EngineError `execution_not_found`, from the first step; `unavailable` once this client is disposed
   */
  stream(
    query: StreamQuery,
    options: CallOptions = {},
  ): AsyncIterable<StreamEvent> {
    const { namespace = this.namespace } = query;
    return readStreams(
      this.backend,
      this.#feed,
      { ...query, namespace },
      { ...options, disposed: this.#disposed.signal },
    );
  }

  /**
   * Sends a signal to whatever the token belongs to, of any namespace: the token is all that is needed. Ids and raw token do
   * as well. After a lost reply it is repeated and counts once.
   *
   * @throws EngineError `missing_token`, `invalid_token`: no token, or not one of this store, or of no waitpoint that there is;
   * `token_expired`; `waitpoint_closed`, `target_not_signalable`: too late; `signal_limit_exceeded`, `payload_too_large`,
   * `invalid_input`
   * @throws PayloadDecodeError where the codec cannot write the payload
   * @example
   * await client.signal(request.params.token, { name: "paid", payload: request.body, idempotencyKey: request.id });
   */
  signal(
    target: SignalTarget | string,
    signal: Signal,
    options: CallOptions = {},
  ): Promise<SignalResult> {
    return sendSignal(
      this.backend,
      this.#context.codec,
      target,
      signal,
      options,
    );
  }

  /**
   * The token of a waitpoint, for an operator to hand out again; nothing where it is closed, or its key was rotated out.
   * @throws EngineError `execution_not_found`
   */
  async signalToken(
    waitpoint: Omit<SignalTarget, "waitpointToken"> & {
      readonly namespace?: string | undefined;
    },
    options: CallOptions = {},
  ): Promise<SignalToken | undefined> {
    const waitpointToken = await this.admin.readWaitpointToken(
      waitpoint,
      options,
    );
    return waitpointToken && SignalToken.of({ ...waitpoint, waitpointToken });
  }

  /**
   * Ends an execution from any phase. It is terminal when this returns; a running attempt is fenced, and its
   * handler's signal fires, typically well under a second later.
   *
   * Repeat: `alreadyTerminal` with the state it ended in.
   */
  async cancel(
    request: {
      readonly executionId: string;
      readonly reason: string;
      readonly namespace?: string | undefined;
    },
    options: CallOptions = {},
  ): Promise<{
    readonly kind: "cancelled" | "alreadyTerminal";
    readonly publicState: PublicState;
  }> {
    let tries = 0;
    try {
      const { publicState } = await repeatLostReplies((attempt) => {
        tries = attempt;
        return this.backend.cancelExecution({
          namespace: this.namespace,
          ...request,
          source: "operator_override",
        });
      }, options);
      return { kind: "cancelled", publicState };
    } catch (error) {
      if (!isEngineError(error, "execution_not_active")) throw error;
      const publicState = derivePublicState({
        lifecyclePhase: "terminal",
        eligibilityState: "not_applicable",
        terminalOutcome: error.detail.terminalOutcome as TerminalOutcome,
      });
      // Behind a lost reply, cancelled is what the lost call did.
      const ours = tries > 1 && publicState === "cancelled";
      return { kind: ours ? "cancelled" : "alreadyTerminal", publicState };
    }
  }

  /**
   * Runs a finished execution again as a new attempt, with retry and reclaim counts back at zero.
   *
   * Repeat: not idempotent, every success uses up one replay; hence never repeated by itself.
   * @throws EngineError `execution_not_found`, `execution_not_terminal`, `max_replays_exhausted`
   */
  replay(
    request: {
      readonly executionId: string;
      readonly reason?: string | undefined;
      readonly requestedBy?: string | undefined;
      readonly executionDeadlineAtMs?: number | undefined;
      readonly namespace?: string | undefined;
    },
    options: CallOptions = {},
  ): Promise<{ readonly kind: "replayed"; readonly publicState: PublicState }> {
    return this.admin.replayExecution(request, options);
  }

  /** Everything about an execution but payload and result; nothing where there is none in this namespace. */
  inspect(
    executionId: string,
    options: CallOptions = {},
  ): Promise<ExecutionSnapshot | undefined> {
    return this.admin.describeExecution({ executionId }, options);
  }

  /** Ids in creation order over all partitions, a page at a time (100 by default, at most 1 000). */
  list(
    query: ListQuery = {},
    options: CallOptions = {},
  ): Promise<{
    readonly executions: ExecutionId[];
    readonly nextCursor?: string;
  }> {
    return this.admin.listExecutions(query, options);
  }

  /** {@link list} over all pages, read as they are needed. */
  async *listAll(
    query: Omit<ListQuery, "cursor" | "limit"> = {},
    options: CallOptions = {},
  ): AsyncGenerator<ExecutionId, void, undefined> {
    let cursor: string | undefined;
    do {
      const page = await this.list({ ...query, cursor, limit: 1_000 }, options);
      yield* page.executions;
      cursor = page.nextCursor;
    } while (cursor !== undefined);
  }

  /** Executions by tag, newest first. */
  search(
    query: Omit<SearchByTagsInput, "namespace"> & {
      readonly namespace?: string | undefined;
    },
    options: CallOptions = {},
  ): Promise<{
    readonly entries: TagSearchEntry[];
    readonly nextCursor?: string;
  }> {
    return this.admin.searchByTags(query, options);
  }

  /** Ends the completion feed and rejects results still awaited, and readers, with `unavailable`. The store stays open. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed.abort(engineError("unavailable", { op: "client_disposed" }));
    this.#feed.close();
    await this.#keyInstalled;
  }
}

export type ListQuery = Omit<ListExecutionsInput, "namespace" | "partition"> & {
  /** Default: the client's. */
  readonly namespace?: string | undefined;
};

/** Typed calls put their definition first, untyped ones leave it out; options come last in both. */
function readArguments<S>(
  first: unknown,
  second?: unknown,
  third?: unknown,
): {
  readonly definition: ExecutionDefinition | undefined;
  readonly submission: S;
  readonly options: CallOptions;
} {
  if (isDefinition(first))
    return {
      definition: first,
      submission: { ...(second as S), definition: first },
      options: third ?? {},
    };
  return {
    definition: undefined,
    submission: first as S,
    options: second ?? {},
  };
}
