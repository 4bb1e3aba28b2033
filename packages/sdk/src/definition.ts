/**
 * What submitter and handler agree on: the kind, the shape of input and output, and the defaults of a
 * submission. Types flow from here to `submit`, the handler and `result`.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { laneFault, type ExecutionPolicyInput } from "@flowfabric/core";

import type { Codec } from "./codec.js";
import { ConfigError } from "./errors.js";

/** Defaults of a submission. What the call says wins; tags are merged key by key. */
export interface SubmissionDefaults {
  /** The queue it waits in; default `default`. */
  readonly laneId?: string | undefined;
  /** 0…9000, clamped; higher runs first. */
  readonly priority?: number | undefined;
  /** Retries, timeouts, caps, required capabilities. Without a retry policy a failed attempt ends the execution. */
  readonly policy?: ExecutionPolicyInput | undefined;
  /** At most 32, searchable by exact value. */
  readonly tags?: Readonly<Record<string, string>> | undefined;
}

export interface DefinitionFields<
  Input extends StandardSchemaV1,
  Output extends StandardSchemaV1,
> extends SubmissionDefaults {
  /** Which handler runs it; 1–256 characters. */
  readonly kind: string;
  /** Any Standard Schema validator, synchronous or not. Stored is the value before its transforms. */
  readonly input: Input;
  /** Absent: any value. */
  readonly output?: Output | undefined;
  /** Goes before the codec of the client or worker. */
  readonly codec?: Codec | undefined;
}

export interface ExecutionDefinition<
  Input extends StandardSchemaV1 = StandardSchemaV1,
  Output extends StandardSchemaV1 = StandardSchemaV1,
> extends DefinitionFields<Input, Output> {
  /** Tells a definition from a bag of options. */
  readonly "~flowfabric": "definition";
}

/** What `submit` takes. */
export type InputOf<D extends ExecutionDefinition> =
  StandardSchemaV1.InferInput<D["input"]>;
/** What the handler gets. */
export type HandlerInputOf<D extends ExecutionDefinition> =
  StandardSchemaV1.InferOutput<D["input"]>;
/** What the handler returns. */
export type HandlerOutputOf<D extends ExecutionDefinition> =
  D extends ExecutionDefinition<StandardSchemaV1, infer Output>
    ? StandardSchemaV1.InferInput<Output>
    : never;
/** What `result` gives. */
export type OutputOf<D extends ExecutionDefinition> =
  D extends ExecutionDefinition<StandardSchemaV1, infer Output>
    ? StandardSchemaV1.InferOutput<Output>
    : never;

const KIND_MAX = 256;

/**
 * Names a kind of work and types it end to end.
 *
 * @throws ConfigError `definition`, fields `kind`, `lane_id`, `input`, `output`
 * @example
 * const Thumbnail = defineExecution({
 *   kind: "thumbnail",
 *   input: z.object({ photo: z.string(), width: z.number().int().positive() }),
 *   output: z.object({ path: z.string(), bytes: z.number().int() }),
 *   laneId: "images",
 *   policy: { retryPolicy: { maxRetries: 3 } },
 * });
 */
export function defineExecution<
  Input extends StandardSchemaV1,
  Output extends StandardSchemaV1 = StandardSchemaV1<unknown, unknown>,
>(fields: DefinitionFields<Input, Output>): ExecutionDefinition<Input, Output> {
  const { kind, laneId } = fields;
  if (typeof kind !== "string" || kind.length === 0 || kind.length > KIND_MAX)
    throw new ConfigError(
      "definition",
      `a kind has 1 to ${KIND_MAX} characters`,
      "kind",
    );
  const lane = laneId === undefined ? undefined : laneFault(laneId);
  if (lane !== undefined)
    throw new ConfigError("definition", `lane id ${lane}`, "lane_id");
  requireSchema(fields.input, "input");
  if (fields.output !== undefined) requireSchema(fields.output, "output");
  return Object.freeze({ ...fields, "~flowfabric": "definition" as const });
}

export function isDefinition(value: unknown): value is ExecutionDefinition {
  return (
    typeof value === "object" &&
    value !== null &&
    "~flowfabric" in value &&
    value["~flowfabric"] === "definition"
  );
}

/** Some validators are functions with the property, hence no test for objects. */
function requireSchema(schema: StandardSchemaV1 | undefined, field: string) {
  const standard = (schema as Partial<StandardSchemaV1> | undefined)?.[
    "~standard"
  ];
  if (typeof standard?.validate !== "function")
    throw new ConfigError(
      "definition",
      "must be a Standard Schema validator (zod, valibot, arktype, …)",
      field,
    );
}
