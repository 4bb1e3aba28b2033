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

  const { answers, repeated } = await submitItems(
    backend,
    items,
    atomicity,
    options,
  );

  const results: SubmitItemResult[] = [];
  let next = 0;
  for (const refusal of refused) {
    if (refusal !== undefined) {
      results.push(refusal);
      continue;
    }
    const item = items[next]!;
    const answer = answers[next]!;
    results.push(
      repeated.has(next) && isEcho(answer, item)
        ? await created(backend, item)
        : answer,
    );
    next++;
  }
  return results;
}

/** Where only some replies got lost, as of one node among several, those are repeated, and the others stand. */
async function submitItems(
  backend: EngineBackend,
  items: readonly CreateExecutionInput[],
  atomicity: "perItem" | "allOrNothing",
  options: CallOptions,
): Promise<{ answers: SubmitManyResult[]; repeated: ReadonlySet<number> }> {
  const repeated = new Set<number>();
  const answers = await repeatLostReplies((attempt) => {
    if (attempt > 1) for (const place of items.keys()) repeated.add(place);
    return backend.submitMany({ items, atomicity });
  }, options);
  const lost = [...answers.keys()].filter((place) => isLost(answers[place]!));
  if (lost.length === 0) return { answers, repeated };
  try {
    const again = await repeatLostReplies(
      () =>
        backend.submitMany({
          items: lost.map((place) => items[place]!),
          atomicity,
        }),
      options,
    );
    for (const [index, place] of lost.entries()) {
      answers[place] = again[index]!;
      repeated.add(place);
    }
  } catch (error) {
    // Their own answers say the same already.
    if (!isEngineError(error, "transport")) throw error;
  }
  return { answers, repeated };
}

function isLost(answer: SubmitManyResult): boolean {
  return answer.kind === "rejected" && answer.code === "transport";
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
