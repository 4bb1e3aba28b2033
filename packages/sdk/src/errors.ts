/**
 * Errors raised above the backend, and the three questions to ask about any error. None of these is an
 * `EngineError`: the engine was not asked, or it had already answered. Match `code`, never the message.
 */
import {
  FlowFabricError,
  isEngineError,
  type EngineError,
  type TransportKind,
} from "@flowfabric/core";

/** Options or arguments that cannot work. Raised before anything is read or written. Not retryable. */
export class ConfigError extends FlowFabricError {
  declare readonly kind: "Config";
  declare readonly code: "config";
  declare readonly detail: {
    /** Where: `worker_config`, `worker_connect`, `client_config`, `claim_from_grant`, … */
    readonly context: string;
    readonly field?: string;
    readonly message: string;
  };

  constructor(context: string, message: string, field?: string) {
    super({
      kind: "Config",
      code: "config",
      detail: { context, message, ...(field === undefined ? {} : { field }) },
      message: `config: ${context}${field === undefined ? "" : `.${field}`}: ${message}`,
    });
  }
}

/** All permits are taken. Nothing was sent: a grant is untouched and works once a permit is free. Retryable. */
export class WorkerAtCapacityError extends FlowFabricError {
  declare readonly kind: "WorkerAtCapacity";
  declare readonly code: "worker_at_capacity";

  constructor() {
    super({
      kind: "WorkerAtCapacity",
      code: "worker_at_capacity",
      detail: {},
      message:
        "worker_at_capacity: every permit is taken; wait for one with waitForPermit() and call again",
    });
  }
}

/** What a task can be ended with. */
export type TerminalOperation =
  "complete" | "fail" | "cancel" | "delay" | "suspend";

/** The task was ended before (`task_consumed`), or an ending call has not come back yet (`terminal_in_flight`). */
export class TaskConsumedError extends FlowFabricError {
  declare readonly kind: "TaskConsumed";
  declare readonly code: "task_consumed" | "terminal_in_flight";
  declare readonly detail: {
    readonly operation: string;
    readonly consumedBy: TerminalOperation;
  };

  constructor(
    code: "task_consumed" | "terminal_in_flight",
    detail: {
      readonly operation: string;
      readonly consumedBy: TerminalOperation;
    },
  ) {
    super({
      kind: "TaskConsumed",
      code,
      detail,
      message:
        code === "task_consumed"
          ? `task_consumed: ${detail.operation} came after ${detail.consumedBy} had ended the task`
          : `terminal_in_flight: ${detail.operation} came while ${detail.consumedBy} was on its way`,
    });
  }
}

/** Somebody else cancelled the execution. It is terminal already; what the handler does now changes nothing. */
export class TaskCancelledError extends FlowFabricError {
  declare readonly kind: "TaskCancelled";
  declare readonly code: "task_cancelled";
  declare readonly detail: {
    readonly reason?: string;
    readonly source?: string;
  };

  constructor(
    detail: { readonly reason?: string; readonly source?: string },
    cause?: unknown,
  ) {
    super({
      kind: "TaskCancelled",
      code: "task_cancelled",
      detail,
      message: `task_cancelled: the execution was cancelled${detail.reason === undefined ? "" : `: ${detail.reason}`}`,
      cause,
    });
  }
}

/** The lease is gone: another worker may be at it. Stop the work; the engine refuses what it writes. */
export class LeaseLostError extends FlowFabricError {
  declare readonly kind: "LeaseLost";
  declare readonly code: "lease_lost";
  declare readonly detail: {
    readonly leaseEpoch: number;
    /** The engine's code, or `expired_locally`: no renewal got through for a whole lease. */
    readonly reason: string;
    readonly terminalOutcome?: string;
  };

  constructor(
    detail: {
      readonly leaseEpoch: number;
      readonly reason: string;
      readonly terminalOutcome?: string;
    },
    cause?: unknown,
  ) {
    super({
      kind: "LeaseLost",
      code: "lease_lost",
      detail,
      message: `lease_lost: ${detail.reason} (lease epoch ${detail.leaseEpoch}); stop this work`,
      cause,
    });
  }
}

/** The worker, connection or task was shut down; the execution goes to another worker. */
export class WorkerDisposedError extends FlowFabricError {
  declare readonly kind: "WorkerDisposed";
  declare readonly code: "worker_disposed";

  constructor(what = "the worker is shutting down") {
    super({
      kind: "WorkerDisposed",
      code: "worker_disposed",
      detail: {},
      message: `worker_disposed: ${what}`,
    });
  }
}

/** One complaint of a validator or codec. */
export interface PayloadIssue {
  readonly message: string;
  readonly path?: string;
}

const ISSUES_MAX = 5;
const ISSUE_MESSAGE_MAX = 200;

/**
 * Thrown by a handler to fail its task with a category of its own: free text that retry policies can name. Categories
 * `permanent` and `cancelled` are never tried again; `transient`, `infra_crash`, `timeout` and all others may be.
 */
export class TaskFailure extends FlowFabricError {
  declare readonly kind: "TaskFailure";
  declare readonly code: "task_failure";
  declare readonly detail: { readonly category: string };

  constructor(failure: {
    readonly reason: string;
    readonly category: string;
    readonly cause?: unknown;
  }) {
    super({
      kind: "TaskFailure",
      code: "task_failure",
      detail: { category: failure.category },
      message: failure.reason,
      cause: failure.cause,
    });
  }
}

/**
 * A value does not fit its definition, or bytes are not what the codec writes. Carries the first five complaints
 * and nothing of the payload.
 */
export class PayloadDecodeError extends FlowFabricError {
  declare readonly kind: "PayloadDecode";
  declare readonly code: "payload_decode";
  declare readonly detail: {
    readonly at: "submit" | "handler" | "result" | "signal";
    readonly issues: readonly PayloadIssue[];
  };

  constructor(
    at: PayloadDecodeError["detail"]["at"],
    issues: readonly PayloadIssue[],
    cause?: unknown,
  ) {
    const kept = issues.slice(0, ISSUES_MAX).map((issue) => ({
      ...issue,
      message: issue.message.slice(0, ISSUE_MESSAGE_MAX),
    }));
    super({
      kind: "PayloadDecode",
      code: "payload_decode",
      detail: { at, issues: kept },
      message: `payload_decode: at ${at}: ${kept
        .map(({ message, path }) =>
          path === undefined ? message : `${path}: ${message}`,
        )
        .join("; ")}`,
      cause,
    });
  }
}

/** Deeper chains are cut; nobody wraps that often on purpose. */
const CAUSES_MAX = 16;

/** The engine's answer inside an error, looking through whatever wraps it. */
export function findEngineError(error: unknown): EngineError | undefined {
  let link: unknown = error;
  for (let depth = 0; depth < CAUSES_MAX; depth++) {
    if (isEngineError(link)) return link;
    if (!(link instanceof Error)) return undefined;
    link = link.cause;
  }
  return undefined;
}

/** Whether the same call may succeed later: back off 100 ms to 1 s with jitter, then repeat. Looks through causes. */
export function isRetryable(error: unknown): boolean {
  const engine = findEngineError(error);
  if (engine !== undefined) return engine.retryable;
  return (
    error instanceof FlowFabricError && error.code === "worker_at_capacity"
  );
}

/**
 * Whether a worker should stop rather than try again: its configuration is refused, it is not let in, or the store
 * is not for this library. What one bad record answers is not of this kind: others can still be worked on.
 */
export function isHopeless(error: unknown): boolean {
  if (error instanceof ConfigError) return true;
  const engine = findEngineError(error);
  if (engine === undefined || engine.retryable) return false;
  if (engine.kind === "Validation") return engine.code !== "corruption";
  if (engine.kind === "Unavailable") return true;
  return backendKind(engine) === "auth";
}

/** Whether it is unknown if the call arrived, so that only repeatable calls may be repeated. Looks through causes. */
export function isTransport(error: unknown): boolean {
  return findEngineError(error)?.kind === "Transport";
}

/** How the transport failed; nothing for every other error. Looks through causes. */
export function backendKind(error: unknown): TransportKind | undefined {
  const engine = findEngineError(error);
  return isEngineError(engine, "transport")
    ? engine.detail.backendKind
    : undefined;
}
