/** Every write that a lease allows. */
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
  /** Rejects where it is refused. */
  write(
    backend: EngineBackend,
    handle: Handle,
    held: HandlePayload,
  ): Promise<unknown>;
}

const bytes = Buffer.from("written too late");
const late = { message: "too late" };

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
