/** A submission as the server's function takes it, and its answer as the contract has it. */
import {
  canonicalJson,
  clampPriority,
  DEFAULT_POLICY,
  HOME,
  isEngineError,
  parsePolicy,
  policyReclaimCap,
  requestFingerprint,
  sameRequest,
  type CreateExecutionArgs,
  type CreateExecutionResult,
  type EngineError,
  type ExecutionPolicy,
  type Refusal,
} from "@flowfabric/core";
import { executionIdOf } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import {
  bytesOf,
  jsonOf,
  listOf,
  optionalText,
  textOf,
  type Argument,
  type Reply,
} from "../connection.js";
import { translateError } from "../errors.js";
import { readRef, refOf } from "../rows.js";

export interface Submission {
  readonly args: CreateExecutionArgs;
  readonly ref: Buffer;
  /** As submit.one in lua/lib/submit.lua takes it. */
  readonly request: {
    readonly key?: string | undefined;
    readonly window?: number;
  };
  /** The policy is wrong. Only an earlier execution of the same key or id is looked for. */
  readonly refused: EngineError | undefined;
}

export function toSubmission(args: CreateExecutionArgs): Submission {
  const policy = parsePolicy(args.policy);
  const refused = isEngineError(policy) ? policy : undefined;
  const key = args.idempotencyKey === "" ? undefined : args.idempotencyKey;
  const request = {
    ns: args.namespace,
    lane: args.laneId,
    kind: args.executionKind,
    key,
    print: requestFingerprint(args),
    policy: args.policy === undefined ? undefined : canonicalJson(args.policy),
    creator: args.creatorIdentity,
    tags: Object.keys(args.tags).length === 0 ? undefined : args.tags,
    ...(isEngineError(policy) ? { refused: true } : policyFields(args, policy)),
  };
  return { args, refused, ref: refOf(args.executionId), request };
}

/** The same with more to say in its request. */
export function saying(submission: Submission, more: object): Submission {
  return { ...submission, request: { ...submission.request, ...more } };
}

/** As submit_many in lua/functions/executions.lua reads them: what several of them ask for alike is sent once. */
export function submissionValues(
  submissions: readonly Submission[],
): Argument[] {
  const places = new Map<string, number>();
  const heads = Buffer.allocUnsafe(submissions.length * HEAD_BYTES);
  const payloads = submissions.map(({ args, ref, request }, index) => {
    const json = jsonOf(request);
    const place = places.get(json) ?? places.size + 1;
    places.set(json, place);
    ref.copy(heads, index * HEAD_BYTES);
    heads.writeUInt16BE(place, index * HEAD_BYTES + ref.length);
    return bytesOf(args.inputPayload ?? EMPTY);
  });
  return [places.size, ...places.keys(), heads, ...payloads];
}

/** A ref, and in two bytes the place of its request. */
const HEAD_BYTES = 20;
const EMPTY = new Uint8Array();

function policyFields(args: CreateExecutionArgs, policy: ExecutionPolicy) {
  const { retryPolicy, timeoutPolicy } = policy;
  const retryOnTimeout = timeoutPolicy?.retryOnTimeout === true;
  return {
    window: policy.dedupWindowMs,
    req: requiredOf(policy).join(","),
    prio: clampPriority(args.priority ?? policy.priority ?? 0),
    delay: args.delayUntilMs ?? policy.delayUntilMs,
    deadline: args.executionDeadlineAtMs,
    deadlineIn: timeoutPolicy?.executionDeadlineMs,
    timeout: timeoutPolicy?.attemptTimeoutMs,
    maxReclaims: policyReclaimCap(policy),
    maxReplays:
      policy.maxReplayCount === DEFAULT_POLICY.maxReplayCount
        ? undefined
        : policy.maxReplayCount,
    maxSignals:
      policy.maxSignalsPerExecution === DEFAULT_POLICY.maxSignalsPerExecution
        ? undefined
        : policy.maxSignalsPerExecution,
    suspension:
      policy.suspensionPolicy === undefined
        ? undefined
        : jsonOf(policy.suspensionPolicy),
    keep: policy.streamPolicy?.retentionTtlMs,
    retry:
      retryPolicy === undefined
        ? undefined
        : jsonOf({ retryPolicy, retryOnTimeout }),
  };
}

function requiredOf(policy: ExecutionPolicy): readonly string[] {
  const required = policy.routingRequirements?.requiredCapabilities ?? [];
  return [...new Set(required)].sort((a, b) =>
    Buffer.compare(Buffer.from(a), Buffer.from(b)),
  );
}

/**
 * To be told of answers to submissions. A new route is what an emptied store meets first, and whoever only submits has no
 * other sign of it.
 */
export async function restoreWhereNew(
  cell: Cell,
  answers: readonly Reply[],
): Promise<void> {
  const isNew = answers.some(
    (answer) =>
      isList(answer) && answer[2] === 1 && textOf(answer[0]!) === "created",
  );
  if (!isNew) return;
  try {
    await cell.restored();
  } catch (error) {
    // Out of reach: the submission stands, and the next sign leads here again.
    if (isEngineError(error)) throw error;
  }
}

export function toSubmitted(
  { args, refused }: Submission,
  answer: Reply,
): CreateExecutionResult | Refusal {
  if (!isList(answer)) return toCreated(args, answer);
  switch (textOf(answer[0]!)) {
    case "created":
      return toCreated(args, answer[1]!);
    case "duplicate": {
      const [, ref, namespace, lane, kind, policy, fingerprint, input] =
        listOf(answer);
      const stored = {
        namespace: textOf(namespace!),
        laneId: textOf(lane!),
        executionKind: textOf(kind!),
        inputPayload: (input as Buffer | null) ?? new Uint8Array(),
        policyJson: optionalText(policy),
        fingerprint: optionalText(fingerprint),
      };
      return {
        kind: "duplicate",
        executionId: executionIdOf(readRef(ref)),
        mismatch: !sameRequest(stored, args),
      };
    }
    case "failed":
      return {
        refused: translateError(new Error(textOf(answer[1]!)), "submit"),
      };
    default:
      return { refused: refused! };
  }
}

function toCreated(
  { executionId }: CreateExecutionArgs,
  home: Reply,
): CreateExecutionResult {
  const publicState = home === HOME.delayed ? "delayed" : "waiting";
  return { kind: "created", executionId, publicState };
}

/** "created" where the answer says no more than that. */
export function kindOf(answer: Reply): string {
  return isList(answer) ? textOf(answer[0]!) : "created";
}

function isList(answer: Reply): answer is readonly Reply[] {
  return Array.isArray(answer);
}
