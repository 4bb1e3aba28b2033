/** Every write that a lease allows. */
import { randomUUID } from "node:crypto";

import {
  engineError,
  EngineError,
  type EngineBackend,
  type ErrorCode,
  type Handle,
  type HandlePayload,
  type OutcomeResult,
} from "@flowfabric/core";

export interface Write {
  readonly operation: string;
  /** Its refusals are told in the words of streams. */
  readonly isOutput?: true;
  /** Rejects where it is refused. */
  write(
    backend: EngineBackend,
    handle: Handle,
    held: HandlePayload,
  ): Promise<unknown>;
}

const bytes = Buffer.from("written too late");
const late = { message: "too late" };

const waiting = () => ({
  suspensionId: randomUUID(),
  waitpoints: [
    {
      kind: "fresh" as const,
      waitpointId: randomUUID(),
      waitpointKey: "too late",
    },
  ],
  resumeCondition: { kind: "operatorOnly" as const },
  reasonCode: "manual_pause" as const,
});

export const WRITES: readonly Write[] = [
  {
    operation: "renew",
    write: (backend, handle) => backend.renew({ handle }),
  },
  {
    operation: "renewLease",
    write: (backend, _handle, { executionId, attemptIndex, ...fence }) =>
      backend.renewLease({
        executionId,
        attemptIndex,
        fence,
        leaseTtlMs: 60_000,
      }),
  },
  {
    operation: "progress",
    write: (backend, handle) =>
      backend.progress({ handle, percent: 99, message: "too late" }),
  },
  {
    operation: "complete",
    write: (backend, handle) => backend.complete({ handle, payload: bytes }),
  },
  {
    operation: "fail",
    write: (backend, handle) =>
      backend.fail({ handle, reason: late, classification: "permanent" }),
  },
  {
    operation: "cancel",
    write: (backend, handle) => backend.cancel({ handle, reason: "too late" }),
  },
  {
    operation: "delay",
    write: (backend, handle) => backend.delay({ handle, delayUntilMs: 1 }),
  },
  {
    operation: "suspend",
    write: (backend, handle) => backend.suspend({ handle, ...waiting() }),
  },
  {
    operation: "suspendByTriple",
    write: (backend, _handle, { executionId, ...fence }) =>
      backend.suspendByTriple({ executionId, fence, ...waiting() }),
  },
  {
    operation: "createWaitpoint",
    write: (backend, handle) =>
      backend.createWaitpoint({
        handle,
        waitpointKey: "too late",
        expiresInMs: 60_000,
      }),
  },
  {
    operation: "appendFrame",
    isOutput: true,
    write: (backend, handle) =>
      backend.appendFrame({ handle, frame: { bytes } }),
  },
  {
    operation: "appendFrames with a patch",
    isOutput: true,
    write: (backend, handle) =>
      backend.appendFrames({
        handle,
        frames: [
          { bytes },
          {
            bytes: Buffer.from('{"late":true}'),
            mode: { kind: "durableSummary", patchKind: "jsonMergePatch" },
          },
        ],
      }),
  },
  {
    operation: "completeExecution",
    write: (backend, _handle, { executionId, ...fence }) =>
      backend.completeExecution({ executionId, fence, resultPayload: bytes }),
  },
  {
    operation: "failExecution",
    write: (backend, _handle, { executionId, ...fence }) =>
      backend.failExecution({
        executionId,
        fence,
        failureReason: "too late",
        failureCategory: "permanent",
      }),
  },
  {
    operation: "cancelExecution as lease_holder",
    write: (backend, _handle, { executionId, ...fence }) =>
      backend.cancelExecution({
        executionId,
        fence,
        reason: "too late",
        source: "lease_holder",
      }),
  },
  {
    operation: "completeMany",
    write: async (backend, handle) => {
      const answers = await backend.completeMany({
        items: [{ handle, payload: bytes }],
      });
      throwRefused(answers);
    },
  },
  {
    operation: "completeAndClaim with a result",
    write: async (backend, handle) => {
      const { results } = await backend.completeAndClaim({
        items: [{ handle, payload: bytes }],
      });
      throwRefused(results);
    },
  },
  {
    operation: "completeAndClaim with a failure",
    write: async (backend, handle) => {
      const { results } = await backend.completeAndClaim({
        items: [
          { handle, failure: { reason: late, classification: "permanent" } },
        ],
      });
      throwRefused(results);
    },
  },
];

/** Items are answered, not thrown. */
function throwRefused(answers: readonly OutcomeResult[]): void {
  for (const answer of answers)
    if (answer.kind === "rejected")
      throw new EngineError(answer.code as ErrorCode, answer.detail);
  if (answers.length !== 1)
    throw engineError("invariant_violation", { what: "one answer per item" });
}
