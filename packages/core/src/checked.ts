/**
 * The edge that every backend stands behind: it checks inputs before anything is read, mints ids, and makes
 * sure that whatever is thrown is an {@link EngineError}. Backends receive parsed values only.
 */
import type { z } from "zod";

import type { EngineBackend, EngineOperations } from "./backend.js";
import {
  EngineError,
  engineError,
  invalidInput,
  isEngineError,
} from "./errors.js";
import { executionIdForLane, parseExecutionId } from "./ids.js";
import { BATCH_MAX_BYTES, PAYLOAD_MAX_BYTES_DEFAULT } from "./limits.js";
import { CreateExecutionInput } from "./operations/executions.js";
import {
  INPUTS,
  type CreateExecutionArgs,
  type Implementation,
} from "./operations/inputs-by-operation.js";
import {
  byLane,
  type PartitionConfig,
  type Partitioning,
  type SoloPartitioner,
} from "./partitions.js";

export type BackendImplementation = Implementation<EngineOperations> & {
  readonly partitions: PartitionConfig;
  close(): Promise<void>;
};

export interface EdgeOptions {
  /** Largest input or result, in bytes; default 1 MiB, at most 16 MiB. */
  readonly maxPayloadBytes?: number;
  readonly partitioner?: SoloPartitioner;
  /** Turns what a driver throws into an engine error. */
  readonly translateError: (error: unknown, operation: string) => EngineError;
}

/** Wraps an implementation once; the result is what users get. */
export function checked(
  implementation: BackendImplementation,
  options: EdgeOptions,
): EngineBackend {
  const partitions: Partitioning = {
    ...implementation.partitions,
    partitioner: options.partitioner ?? byLane,
  };
  const edge = new Edge(partitions, options);
  const wrapped: Record<string, unknown> = {
    partitions,
    close: () => implementation.close(),
    [Symbol.asyncDispose]: () => implementation.close(),
  };
  const operations = implementation as unknown as Record<
    string,
    (args?: unknown) => unknown
  >;
  for (const name of [
    ...Object.keys(INPUTS),
    "ping",
    "prepare",
    "serverTimeMs",
    "backendLabel",
    "capabilities",
    "listWaitpointHmacKids",
  ]) {
    const bound = operations[name]!.bind(implementation);
    const operation = ALONE.has(name) ? oneAtATime(bound) : bound;
    if (SYNCHRONOUS.has(name)) {
      wrapped[name] = (input?: unknown) => {
        try {
          return edge.settle(operation(edge.parse(name, input)), name);
        } catch (error) {
          throw edge.translate(error, name);
        }
      };
    } else {
      wrapped[name] = async (input?: unknown) => {
        try {
          return await operation(edge.parse(name, input));
        } catch (error) {
          throw edge.translate(error, name);
        }
      };
    }
  }
  return wrapped as unknown as EngineBackend;
}

/** Answer, or throw, at the call itself. */
const SYNCHRONOUS: ReadonlySet<string> = new Set([
  "createExecutionInTransaction",
  "watchWorker",
  "backendLabel",
  "capabilities",
]);

/** Of each of these at most one at a time in this process. */
const ALONE: ReadonlySet<string> = new Set(["rotateWaitpointHmacSecretAll"]);

function oneAtATime(
  operation: (args?: unknown) => unknown,
): (args?: unknown) => Promise<unknown> {
  let underWay = false;
  return async (args) => {
    if (underWay) throw engineError("concurrency_limit_exceeded", {});
    underWay = true;
    try {
      return await operation(args);
    } finally {
      underWay = false;
    }
  };
}

class Edge {
  readonly #partitions: Partitioning;
  readonly #options: EdgeOptions;
  readonly #maxPayloadBytes: number;

  constructor(partitions: Partitioning, options: EdgeOptions) {
    this.#partitions = partitions;
    this.#options = options;
    this.#maxPayloadBytes =
      options.maxPayloadBytes ?? PAYLOAD_MAX_BYTES_DEFAULT;
  }

  parse(name: string, input: unknown): unknown {
    if (!(name in INPUTS)) return undefined;
    const args = parseInput(
      INPUTS[name as keyof typeof INPUTS] as z.ZodType,
      input,
    ) as Record<string, unknown>;
    switch (name) {
      case "createExecution":
      case "createExecutionInTransaction":
        return this.#checkSubmission(args as never);
      case "submitMany":
        return this.#checkBatch(args as never);
      case "completeMany":
      case "completeAndClaim":
        return this.#checkOutcomes(args as never);
      default:
        this.#checkExecutionId(args["executionId"]);
        this.#checkPayload("payload", args["payload"]);
        this.#checkPayload("resultPayload", args["resultPayload"]);
        return args;
    }
  }

  /** An answer that may be a promise: its rejection is translated too. */
  settle(answer: unknown, name: string): unknown {
    if (!(answer instanceof Promise)) return answer;
    return answer.catch((error: unknown) => {
      throw this.translate(error, name);
    });
  }

  translate(error: unknown, name: string): EngineError {
    return isEngineError(error)
      ? error
      : this.#options.translateError(error, name);
  }

  #checkSubmission(
    args: z.output<typeof CreateExecutionInput>,
  ): CreateExecutionArgs {
    this.#checkExecutionId(args.executionId);
    this.#checkPayload("inputPayload", args.inputPayload);
    if (args.executionId !== undefined) return args as CreateExecutionArgs;
    const executionId = executionIdForLane(args.laneId, {
      partitions: this.#partitions,
      ...(args.idempotencyKey === undefined
        ? {}
        : { idempotencyKey: args.idempotencyKey }),
    });
    return { ...args, executionId };
  }

  #checkBatch(args: {
    items: unknown[];
    atomicity: "perItem" | "allOrNothing";
  }): unknown {
    let bytes = 0;
    const items = args.items.map((item) => {
      try {
        const parsed = this.#checkSubmission(
          parseInput(CreateExecutionInput, item),
        );
        bytes += parsed.inputPayload?.length ?? 0;
        return parsed;
      } catch (error) {
        if (isEngineError(error)) return error;
        throw error;
      }
    });
    checkBatchBytes(bytes);
    if (args.atomicity === "allOrNothing") {
      const partitions = new Set(
        items.flatMap((item) =>
          isEngineError(item)
            ? []
            : parseExecutionId(item.executionId)!.partition,
        ),
      );
      if (partitions.size > 1)
        throw invalidInput(
          "items",
          `cross_partition_atomic: the items lie on ${partitions.size} partitions`,
        );
    }
    return { ...args, items };
  }

  #checkOutcomes(args: {
    items: readonly { payload?: Uint8Array | undefined }[];
  }): unknown {
    for (const item of args.items)
      this.#checkPayload("items.payload", item.payload);
    checkBatchBytes(
      args.items.reduce((sum, item) => sum + (item.payload?.length ?? 0), 0),
    );
    return args;
  }

  #checkExecutionId(executionId: unknown): void {
    if (typeof executionId !== "string") return;
    const partition = parseExecutionId(executionId)?.partition ?? 0;
    if (partition < this.#partitions.flow) return;
    throw invalidInput(
      "executionId",
      `partition ${partition} is outside this store's 0…${this.#partitions.flow - 1}`,
    );
  }

  #checkPayload(field: string, payload: unknown): void {
    if (
      !(payload instanceof Uint8Array) ||
      payload.length <= this.#maxPayloadBytes
    )
      return;
    throw new EngineError(
      "payload_too_large",
      { maxBytes: this.#maxPayloadBytes, actualBytes: payload.length },
      { context: field },
    );
  }
}

function checkBatchBytes(bytes: number): void {
  if (bytes > BATCH_MAX_BYTES)
    throw invalidInput(
      "items",
      `batch_too_large: ${bytes} payload bytes, at most ${BATCH_MAX_BYTES}`,
    );
}

/**
 * Parses with a schema of this package.
 * @throws EngineError of the first issue: its own code where the schema names one, else `invalid_input` with the path
 */
export function parseInput<S extends z.ZodType>(
  schema: S,
  input: unknown,
): z.output<S> {
  const parsed = safeParse(schema, input);
  if (parsed.success) return parsed.data;
  const issue = innermost(parsed.error.issues[0]!);
  const params = issue.code === "custom" ? issue.params : undefined;
  if (params?.["engineError"] instanceof EngineError)
    throw params["engineError"];
  const path = issue.path.join(".");
  throw engineError("invalid_input", {
    reason: issue.message,
    ...(path === "" ? {} : { field: path }),
  });
}

/** Conditions are trees, and a deep enough one is more than the stack holds. */
function safeParse<S extends z.ZodType>(schema: S, input: unknown) {
  try {
    return schema.safeParse(input);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw engineError("invalid_input", { reason: "nested too deeply" }, error);
  }
}

/** A record wraps what is wrong with one of its keys. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  const wrapped = issue.code === "invalid_key" ? issue.issues[0] : undefined;
  return wrapped === undefined ? issue : innermost(wrapped);
}
