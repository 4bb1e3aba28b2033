/** The public surface, by subject. */
export {
  Client,
  type ClientOptions,
  type ListQuery,
  type SubmitItem,
  type SynchronousTransaction,
} from "./client.js";
export type {
  Submission,
  SubmissionFields,
  SubmitItemResult,
  SubmitResult,
  UntypedSubmission,
} from "./submissions.js";
export type { ExecutionResult, ResultQuery } from "./results.js";
export type { FlowFabricAdmin } from "./admin.js";

export {
  defineExecution,
  type DefinitionFields,
  type ExecutionDefinition,
  type HandlerInputOf,
  type HandlerOutputOf,
  type InputOf,
  type OutputOf,
  type SubmissionDefaults,
} from "./definition.js";
export { jsonCodec, type Codec } from "./codec.js";

export {
  Worker,
  type RunOptions,
  type WorkerOptions,
  type WorkerReport,
  type WorkerStats,
} from "./worker.js";
export {
  dataKey,
  type DataKey,
  type DataToken,
  type Handler,
  type HandlerTools,
  type WorkerFailure,
} from "./handlers.js";

export { connect, type ClaimQuery, type WorkerConnection } from "./connect.js";
export type { ReclaimRequest, ReclaimResult } from "./grant-claims.js";
export type { ConnectOptions, WorkerConfig } from "./worker-config.js";
export type { ClaimedTask, TaskState } from "./task.js";

export {
  EngineError,
  FlowFabricError,
  isEngineError,
  type ErrorCode,
  type ExecutionId,
  type ExecutionPolicyInput,
  type ExecutionSnapshot,
  type PublicState,
} from "@flowfabric/core";
export {
  backendKind,
  ConfigError,
  isRetryable,
  isTransport,
  LeaseLostError,
  PayloadDecodeError,
  TaskFailure,
  TaskCancelledError,
  TaskConsumedError,
  WorkerAtCapacityError,
  WorkerDisposedError,
  type PayloadIssue,
  type TerminalOperation,
} from "./errors.js";
export type { Logger, LogFields } from "./logger.js";
export type { CallOptions } from "./waiting.js";
