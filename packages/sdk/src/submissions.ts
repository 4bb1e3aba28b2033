/**
 * From what a caller submits to what the backend creates. Ids are minted here, so that a submission whose
 * reply was lost can be repeated and recognised.
 */
import {
  DEFAULT_LANE,
  executionIdForLane,
  isEngineError,
  type CreateExecutionInput,
  type CreateExecutionResult,
  type EngineBackend,
  type ExecutionId,
  type PublicState,
  type SubmitManyResult,
} from "@flowfabric/core";

import type { Codec } from "./codec.js";
import type {
  ExecutionDefinition,
  InputOf,
  SubmissionDefaults,
} from "./definition.js";
import type { PayloadDecodeError } from "./errors.js";
import { encode, validate, validateSync } from "./payloads.js";
import { repeatLostReplies, type CallOptions } from "./waiting.js";

export interface SubmissionFields extends SubmissionDefaults {
  /** Within (namespace, lane) the same key means the same execution, for the policy's `dedupWindowMs` (24 h). */
  readonly idempotencyKey?: string | undefined;
  /** Not claimed before this time by the store's clock; a past one is ignored. Epoch milliseconds. */
  readonly delayUntilMs?: number | undefined;
  /** Expires at this time in any phase. Epoch milliseconds. */
  readonly executionDeadlineAtMs?: number | undefined;
  /** Minted when absent. Give one to make a repeat of this very call recognisable. */
  readonly executionId?: string | undefined;
  readonly creatorIdentity?: string | undefined;
  /** Default: the client's. */
  readonly namespace?: string | undefined;
}

/** `input` may be left out only where the validator takes `undefined`. */
export type Submission<D extends ExecutionDefinition> = SubmissionFields &
  (undefined extends InputOf<D>
    ? { readonly input?: InputOf<D> }
    : { readonly input: InputOf<D> });

/** The form without a definition: bytes go as they are. */
export interface UntypedSubmission extends SubmissionFields {
  readonly executionKind: string;
  readonly inputPayload?: Uint8Array | undefined;
}

export type SubmitResult = CreateExecutionResult;

/** The answer for one item of many; `payload_decode` beside the engine's codes. */
export type SubmitItemResult = SubmitManyResult;

export interface SubmissionContext {
  readonly backend: EngineBackend;
  readonly namespace: string;
  readonly codec: Codec;
}

/** Any submission, typed or not, as one shape. */
export interface AnySubmission extends SubmissionFields {
  readonly definition?: ExecutionDefinition | undefined;
  readonly input?: unknown;
  readonly executionKind?: string | undefined;
  readonly inputPayload?: Uint8Array | undefined;
}

/** Checks and encodes. @throws PayloadDecodeError before any I/O */
export async function prepare(
  context: SubmissionContext,
  submission: AnySubmission,
): Promise<CreateExecutionInput> {
  const { definition, input } = submission;
  if (definition !== undefined)
    await validate(definition.input, input, "submit");
  return build(context, submission);
}

/** As {@link prepare}, at once. @throws EngineError `invalid_input` where the validator is asynchronous */
export function prepareSync(
  context: SubmissionContext,
  submission: AnySubmission,
): CreateExecutionInput {
  const { definition, input } = submission;
  if (definition !== undefined) validateSync(definition.input, input, "submit");
  return build(context, submission);
}

function build(
  context: SubmissionContext,
  submission: AnySubmission,
): CreateExecutionInput {
  const { definition } = submission;
  const inputPayload =
    definition === undefined
      ? submission.inputPayload
      : encode(definition.codec ?? context.codec, submission.input, "submit");
  const laneId = submission.laneId ?? definition?.laneId ?? DEFAULT_LANE;
  return {
    executionId: submission.executionId ?? mint(context, laneId, submission),
    namespace: submission.namespace ?? context.namespace,
    laneId,
    executionKind: definition?.kind ?? submission.executionKind ?? "",
    inputPayload,
    priority: submission.priority ?? definition?.priority,
    creatorIdentity: submission.creatorIdentity,
    idempotencyKey: submission.idempotencyKey,
    tags: { ...definition?.tags, ...submission.tags },
    policy: submission.policy ?? definition?.policy,
    delayUntilMs: submission.delayUntilMs,
    executionDeadlineAtMs: submission.executionDeadlineAtMs,
  };
}

function mint(
  { backend }: SubmissionContext,
  laneId: string,
  { idempotencyKey }: SubmissionFields,
): ExecutionId {
  return executionIdForLane(laneId, {
    partitions: backend.partitions,
    ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
  });
}

/** Creates one execution, repeating it with the same id while replies are lost. */
export async function submitOne(
  { backend }: SubmissionContext,
  create: CreateExecutionInput,
  options: CallOptions,
): Promise<SubmitResult> {
  let tries = 0;
  const result = await repeatLostReplies((attempt) => {
    tries = attempt;
    return backend.createExecution(create);
  }, options);
  if (tries > 1 && isEcho(result, create)) return created(backend, create);
  return result;
}

/** Creates many; answers at the index of their item. Items that do not fit their definition are `rejected`. */
export async function submitAll(
  { backend }: SubmissionContext,
  prepared: readonly (CreateExecutionInput | PayloadDecodeError)[],
  atomicity: "perItem" | "allOrNothing",
  options: CallOptions,
): Promise<SubmitItemResult[]> {
  const refused = prepared.map((item) =>
    item instanceof Error
      ? ({ kind: "rejected", code: item.code, detail: item.detail } as const)
      : undefined,
  );
  const items = prepared.filter(
    (item): item is CreateExecutionInput => !(item instanceof Error),
  );
  if (refused.some(Boolean) && (atomicity === "allOrNothing" || !items.length))
    return refused.map(
      (refusal) =>
        refusal ?? {
          kind: "rejected",
          code: "invalid_input",
          detail: { reason: "batch_rejected" },
        },
    );

  let tries = 0;
  const answers = await repeatLostReplies((attempt) => {
    tries = attempt;
    return backend.submitMany({ items, atomicity });
  }, options);

  const results: SubmitItemResult[] = [];
  let next = 0;
  for (const refusal of refused) {
    if (refusal !== undefined) {
      results.push(refusal);
      continue;
    }
    const item = items[next]!;
    const answer = answers[next]!;
    next++;
    results.push(
      tries > 1 && isEcho(answer, item) ? await created(backend, item) : answer,
    );
  }
  return results;
}

/** A repeat met what the lost call had created. */
function isEcho(answer: SubmitManyResult, create: CreateExecutionInput) {
  return (
    answer.kind === "duplicate" &&
    !answer.mismatch &&
    answer.executionId === create.executionId
  );
}

async function created(
  backend: EngineBackend,
  create: CreateExecutionInput,
): Promise<SubmitResult> {
  const executionId = create.executionId as ExecutionId;
  let publicState: PublicState | undefined;
  try {
    publicState = await backend.readExecutionState({
      executionId,
      namespace: create.namespace,
    });
  } catch (error) {
    // It exists, which is what the caller needs to know; its state is a courtesy.
    if (!isEngineError(error)) throw error;
  }
  return {
    kind: "created",
    executionId,
    publicState:
      publicState ??
      (create.delayUntilMs === undefined ? "waiting" : "delayed"),
  };
}
