/** Which function runs which kind, what handlers share, and what becomes of what they return or throw. */
import type { ExecutionDefinition, HandlerInputOf } from "./definition.js";
import { ConfigError, PayloadDecodeError, TaskFailure } from "./errors.js";
import { describeError } from "./logger.js";
import type { Suspended } from "./suspension.js";
import type { ClaimedTask } from "./task.js";

/** Names one shared value: a class, or a token made by {@link dataKey}. */
export type DataKey<T> =
  // The way TypeScript spells "any class whose instances are T".
  (abstract new (...args: never[]) => T) | DataToken<T>;

export interface DataToken<T> {
  readonly description: string;
  /** Only for the type. */
  readonly "~value"?: T;
}

/** A name for a value that is no instance of a class of its own. */
export function dataKey<T>(description: string): DataToken<T> {
  return Object.freeze({ description });
}

export interface HandlerTools {
  /** The value given to `worker.data` under this key; where there is none, the attempt fails. */
  use<T>(key: DataKey<T>): T;
}

/**
 * Once the task is suspended, what is returned changes nothing; `return task.suspend(…)` fits every output.
 * @param input decoded and validated; in the untyped form the bytes
 */
export type Handler<Input, Output> = (
  input: Input,
  task: ClaimedTask,
  tools: HandlerTools,
) => Output | Suspended | Promise<Output | Suspended>;

/** Categories of failures that the worker reports by itself. */
export type WorkerFailure =
  | "handler_error"
  | "handler_panic"
  | "handler_output_invalid"
  | "runtime_no_handler"
  | "extractor_payload_decode"
  | "extractor_missing_state";

/** What a handler's run comes to. */
export type HandlerOutcome =
  | { readonly kind: "returned"; readonly output: unknown }
  | {
      readonly kind: "failed";
      /** A {@link WorkerFailure}, or what the handler named. */
      readonly category: string;
      readonly reason: string;
      readonly error: unknown;
    };

class MissingDataError extends Error {}

interface Registered {
  readonly definition: ExecutionDefinition | undefined;
  readonly handler: Handler<never, unknown>;
}

export class Handlers {
  readonly #byKind = new Map<string, Registered>();
  readonly #data = new Map<unknown, unknown>();

  /** @throws ConfigError `worker_config`, field `kind`, where it has a handler already */
  add(
    kind: string,
    definition: ExecutionDefinition | undefined,
    handler: Handler<never, unknown>,
  ): void {
    if (this.#byKind.has(kind))
      throw new ConfigError(
        "worker_config",
        `'${kind}' has a handler already`,
        "kind",
      );
    this.#byKind.set(kind, { definition, handler });
  }

  share(key: unknown, value: unknown): void {
    this.#data.set(key, value);
  }

  definitionOf(kind: string): ExecutionDefinition | undefined {
    return this.#byKind.get(kind)?.definition;
  }

  /** Runs the handler of the task's kind; never rejects. */
  async run(task: ClaimedTask): Promise<HandlerOutcome> {
    const registered = this.#byKind.get(task.executionKind);
    if (registered === undefined)
      return failed(
        "runtime_no_handler",
        `no handler for kind '${task.executionKind}'`,
        undefined,
      );
    const { definition, handler } = registered;

    let input: HandlerInputOf<ExecutionDefinition>;
    try {
      input =
        definition === undefined
          ? task.inputPayload
          : await task.input(definition);
    } catch (error) {
      return failed("extractor_payload_decode", describeError(error), error);
    }

    let running: unknown;
    try {
      running = handler(input as never, task, {
        use: (key) => this.#use(key),
      });
    } catch (error) {
      return thrown(error, true);
    }
    try {
      return { kind: "returned", output: await running };
    } catch (error) {
      return thrown(error, false);
    }
  }

  #use<T>(key: DataKey<T>): T {
    if (!this.#data.has(key)) {
      const name = typeof key === "function" ? key.name : key.description;
      throw new MissingDataError(
        `no value for '${name}'; give it with worker.data`,
      );
    }
    return this.#data.get(key) as T;
  }
}

/** What a handler returned does not fit its definition, cannot be encoded or is too large. */
export function invalidOutput(error: unknown): HandlerOutcome {
  return failed("handler_output_invalid", describeError(error), error);
}

function thrown(error: unknown, synchronously: boolean): HandlerOutcome {
  if (error instanceof MissingDataError)
    return failed("extractor_missing_state", error.message, error);
  if (error instanceof TaskFailure)
    return failed(error.detail.category, causeChain(error), error);
  // A handler's own `task.complete(value)` that did not fit is the handler's output all the same.
  if (error instanceof PayloadDecodeError && error.detail.at === "handler")
    return invalidOutput(error);
  if (synchronously || !(error instanceof Error))
    return failed(
      "handler_panic",
      `handler panicked: ${causeChain(error)}`,
      error,
    );
  return failed("handler_error", causeChain(error), error);
}

function failed(
  category: string,
  reason: string,
  error: unknown,
): HandlerOutcome {
  return { kind: "failed", category, reason, error };
}

const CAUSES_MAX = 10;

/** `outer: … : root`, so that the reason tells what really went wrong. */
function causeChain(error: unknown): string {
  const messages: string[] = [];
  let link: unknown = error;
  while (link instanceof Error && messages.length < CAUSES_MAX) {
    messages.push(link.message === "" ? link.name : link.message);
    link = link.cause;
  }
  if (link !== undefined && messages.length < CAUSES_MAX)
    messages.push(describeValue(link));
  return messages.join(": ");
}

/** Somebody threw a string, a number or an object of their own. */
function describeValue(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}
