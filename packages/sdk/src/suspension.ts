/** Suspending from inside a handler: what it asks for, what the engine is sent, what it gets back. */
import {
  conditionFault,
  conditionKeys,
  invalidInput,
  isEngineError,
  newSuspensionId,
  newUuid,
  newWaitpointId,
  type BoundWaitpoint,
  type ClaimedExecution,
  type EngineBackend,
  type ExecutionId,
  type Handle,
  type PendingWaitpoint as CreatedWaitpoint,
  type ResumeCondition,
  type ResumePolicy,
  type SuspendInput,
  type SuspendOutcome,
  type SuspensionReason,
  type TimeoutBehavior,
  type WaitpointBinding,
  type WaitpointToken,
} from "@flowfabric/core";

import { findEngineError } from "./errors.js";
import { SignalToken } from "./signal-token.js";
import { repeatLostReplies } from "./waiting.js";

export interface SuspendRequest {
  /** What the execution goes on for; made with `when`. */
  readonly resumeCondition: ResumeCondition;
  /** Shown to operators; default `waiting_for_signal`. */
  readonly reasonCode?: SuspensionReason | undefined;
  /** By the store's clock. Absent: as the execution's policy says, or never. */
  readonly timeoutAtMs?: number | undefined;
  /** What happens then; absent: as the execution's policy says, else `fail`. */
  readonly timeoutBehavior?: TimeoutBehavior | undefined;
  readonly resumePolicy?: ResumePolicy | undefined;
  /** Opaque, for whoever goes on; at most 4 096 bytes. */
  readonly continuationMetadataPointer?: string | undefined;
  /** Of this execution: with it and the same lease, a repeat is answered as the first call. Default: one per call. */
  readonly idempotencyKey?: string | undefined;
}

export interface SuspendOnPendingRequest extends SuspendRequest {
  /** Made before by `createPendingWaitpoint` in this attempt. Its key must be the one that the condition names. */
  readonly pending: Pick<PendingWaitpoint, "waitpointId">;
}

/** A waitpoint of a suspension, with what is handed out for it. */
export interface SuspendedWaitpoint extends BoundWaitpoint {
  /** For `client.signal`; carries its target. */
  readonly signalToken: SignalToken;
}

/** The first key's waitpoint, and in order those of further keys. */
export interface SuspensionDetails extends SuspendedWaitpoint {
  readonly suspensionId: SuspendOutcome["details"]["suspensionId"];
  readonly additionalWaitpoints: readonly SuspendedWaitpoint[];
}

export interface Suspended {
  readonly kind: "suspended";
  readonly details: SuspensionDetails;
  /** Good for `observeSignals` only; the lease is gone. */
  readonly handle: Handle;
}

/** A waitpoint that keeps signals until its attempt suspends on it. */
export interface PendingWaitpoint extends CreatedWaitpoint {
  readonly waitpointKey: string;
  /** For `client.signal`; carries its target. */
  readonly signalToken: SignalToken;
}

/** Names that make a suspend recognisable when it is sent again. */
export interface SuspendNames {
  readonly suspensionId: SuspensionDetails["suspensionId"];
  readonly idempotencyKey: string;
}

export function newSuspendNames(): SuspendNames {
  return { suspensionId: newSuspensionId(), idempotencyKey: newUuid() };
}

/**
 * What is sent. Without a pending waitpoint, one fresh one for every distinct key of the condition, in their order; where the
 * condition names none, one with a key of the engine's.
 * @throws EngineError `invalid_input` where the shape of the condition is wrong
 */
export function suspendInputOf(
  handle: Handle,
  names: SuspendNames,
  { pending, ...request }: SuspendRequest & Partial<SuspendOnPendingRequest>,
): SuspendInput {
  const { resumeCondition } = request;
  // Looked at here, for without its keys there would be no waitpoints to send, and that would be refused instead.
  const fault = conditionFault(resumeCondition);
  if (fault !== undefined) throw invalidInput("resumeCondition", fault);
  const waitpoints: WaitpointBinding[] =
    pending === undefined
      ? freshWaitpoints(resumeCondition)
      : [{ kind: "usePending", waitpointId: pending.waitpointId }];
  return {
    ...request,
    ...names,
    idempotencyKey: request.idempotencyKey ?? names.idempotencyKey,
    reasonCode: request.reasonCode ?? "waiting_for_signal",
    handle,
    waitpoints,
  };
}

function freshWaitpoints(condition: ResumeCondition): WaitpointBinding[] {
  const keys = conditionKeys(condition);
  const fresh = () => ({
    kind: "fresh" as const,
    waitpointId: newWaitpointId(),
  });
  return keys.length === 0
    ? [fresh()]
    : keys.map((waitpointKey) => ({ ...fresh(), waitpointKey }));
}

/** Whether some of it can never come true by a signal, so that only an operator or the timeout ends it. */
export function needsOperator(condition: ResumeCondition): boolean {
  return (
    condition.kind === "composite" &&
    condition.body.kind === "allOf" &&
    condition.body.members.some(
      (member) =>
        member.kind === "operatorOnly" ||
        member.kind === "timeoutOnly" ||
        needsOperator(member),
    )
  );
}

export function detailsOf(
  executionId: ExecutionId,
  { details }: SuspendOutcome,
): SuspensionDetails {
  const portable = <W extends BoundWaitpoint>(waitpoint: W) => ({
    ...waitpoint,
    signalToken: SignalToken.of({ executionId, ...waitpoint }),
  });
  return {
    ...portable(details),
    additionalWaitpoints: details.additionalWaitpoints.map(portable),
  };
}

/**
 * Creates a pending waitpoint. Its id is minted here, so that a repeat behind a lost reply finds it made; its token is then
 * asked for.
 */
export async function createPending(
  backend: EngineBackend,
  { handle, executionId }: Pick<ClaimedExecution, "handle" | "executionId">,
  request: { readonly waitpointKey: string; readonly expiresInMs: number },
): Promise<PendingWaitpoint> {
  const waitpointId = newWaitpointId();
  let tries = 0;
  const create = async (): Promise<WaitpointToken> => {
    try {
      const { hmacToken } = await repeatLostReplies((attempt) => {
        tries = attempt;
        return backend.createWaitpoint({ handle, ...request, waitpointId });
      });
      return hmacToken;
    } catch (error) {
      const refusal = findEngineError(error);
      if (tries === 1 || !isEngineError(refusal, "waitpoint_already_exists"))
        throw error;
      const ref = { executionId, waitpointId };
      const token = await backend.readWaitpointToken(ref);
      if (token === undefined) throw error;
      return token;
    }
  };
  const hmacToken = await create();
  return {
    waitpointId,
    waitpointKey: request.waitpointKey,
    hmacToken,
    signalToken: SignalToken.of({
      executionId,
      waitpointId,
      waitpointToken: hmacToken,
    }),
  };
}
