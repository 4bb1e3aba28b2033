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
export {
  StreamedFrame,
  type StreamEvent,
  type StreamQuery,
} from "./stream-reader.js";
export type { ExecutionResult, ResultQuery } from "./results.js";
export { SignalToken, type SignalTarget } from "./signal-token.js";
export { signalBridge, type SignalBridgeOptions } from "./signal-bridge.js";
export type { ReceivedSignal, Signal, SignalResult } from "./signals.js";
export type { WaitpointHmac } from "./signing-key.js";
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
export type { ClaimedTask, TaskState, TrySuspendResult } from "./task.js";
export type {
  PendingWaitpoint,
  Suspended,
  SuspendedWaitpoint,
  SuspendOnPendingRequest,
  SuspendRequest,
  SuspensionDetails,
} from "./suspension.js";
export { when } from "./when.js";
export type { TaskStream, WriteOptions } from "./task-stream.js";

export {
  EngineError,
  FlowFabricError,
  isEngineError,
  WaitpointToken,
  type AppendedFrame,
  type CountKind,
  type ErrorCode,
  type ExecutionId,
  type ExecutionPolicyInput,
  type ExecutionSnapshot,
  type PublicState,
  type ResumeCondition,
  type ResumePolicy,
  type SignalEffect,
  type StreamCloseReason,
  type StreamMode,
  type SuspensionReason,
  type TimeoutBehavior,
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
