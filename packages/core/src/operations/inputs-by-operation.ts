/** The schema of every operation's input, by name: what the edge checks and what backends receive. */
import type { z } from "zod";

import type { EngineOperations } from "../backend.js";
import type { EngineError } from "../errors.js";
import { ShutdownPrepareInput } from "./admin.js";
import {
  BlockExecutionInput,
  BlockRouteInput,
  UnblockExecutionInput,
} from "./admission.js";
import {
  ClaimForWorkerInput,
  ClaimInput,
  ClaimManyInput,
  ScanEligibleInput,
} from "./claims.js";
import { ReadEventsInput, SubscribeInput, TailEventsInput } from "./events.js";
import {
  CancelExecutionInput,
  ChangePriorityInput,
  CreateExecutionInput,
  CreateInTransactionInput,
  HoldExecutionInput,
  ReplayExecutionInput,
  SubmitManyInput,
} from "./executions.js";
import {
  ClaimExecutionInput,
  ClaimResumedInput,
  IssueClaimGrantInput,
  IssueGrantAndClaimInput,
  ResumeToken,
} from "./grants.js";
import { ExecutionRef } from "./inputs.js";
import { HandleInput, RenewLeaseInput, RevokeLeaseInput } from "./leases.js";
import {
  ExpireExecutionInput,
  ExpirePendingWaitpointInput,
  ReconcileIndexInput,
  SweepInput,
  TrimRetentionInput,
} from "./maintenance.js";
import {
  CancelInput,
  CompleteAndClaimInput,
  CompleteExecutionInput,
  CompleteInput,
  CompleteManyInput,
  DelayInput,
  FailExecutionInput,
  FailInput,
  ProgressInput,
} from "./outcomes.js";
import { ListExecutionsInput, ListLanesInput } from "./reads.js";
import {
  IssueReclaimGrantInput,
  ListExpiredLeasesInput,
  ReclaimExecutionInput,
} from "./reclaim.js";
import { RotateSecretInput, SeedSecretInput } from "./secrets.js";
import { DeliverApprovalSignalInput, DeliverSignalInput } from "./signals.js";
import { SuspendByTripleInput, SuspendInput } from "./suspend-input.js";
import {
  CloseWaitpointInput,
  CreateWaitpointInput,
  ListPendingWaitpointsInput,
  ListSuspendedInput,
  ResumeExecutionInput,
  WaitpointRef,
} from "./suspension.js";
import {
  AppendFrameInput,
  AppendFramesInput,
  ReadStreamInput,
  ReadSummaryInput,
  TailStreamInput,
} from "./streams.js";
import {
  GetExecutionTagInput,
  SearchByTagsInput,
  SetExecutionTagInput,
  TagQuery,
} from "./tags.js";
import {
  ListWorkersInput,
  MarkWorkerDeadInput,
  RegisterWorkerInput,
  WatchWorkerInput,
  WorkerRef,
} from "./workers.js";

export const INPUTS = {
  createExecution: CreateExecutionInput,
  submitMany: SubmitManyInput,
  createExecutionInTransaction: CreateInTransactionInput,
  cancelExecution: CancelExecutionInput,
  replayExecution: ReplayExecutionInput,
  changePriority: ChangePriorityInput,
  holdExecution: HoldExecutionInput,
  unholdExecution: ExecutionRef,

  describeExecution: ExecutionRef,
  readExecutionContext: ExecutionRef,
  readExecutionInfo: ExecutionRef,
  readExecutionState: ExecutionRef,
  getExecutionResult: ExecutionRef,
  readCurrentAttemptIndex: ExecutionRef,
  readTotalAttemptCount: ExecutionRef,
  getExecutionNamespace: ExecutionRef,
  listExecutions: ListExecutionsInput,
  listAttempts: ExecutionRef,
  listLanes: ListLanesInput,

  setExecutionTag: SetExecutionTagInput,
  getExecutionTag: GetExecutionTagInput,
  searchByTags: SearchByTagsInput,
  countByTags: TagQuery,

  claim: ClaimInput,
  claimMany: ClaimManyInput,
  claimForWorker: ClaimForWorkerInput,
  scanEligibleExecutions: ScanEligibleInput,

  issueClaimGrant: IssueClaimGrantInput,
  claimExecution: ClaimExecutionInput,
  claimResumedExecution: ClaimResumedInput,
  claimFromResumeGrant: ResumeToken,
  issueGrantAndClaim: IssueGrantAndClaimInput,

  blockExecutionForAdmission: BlockExecutionInput,
  blockRoute: BlockRouteInput,
  unblockExecution: UnblockExecutionInput,
  explainCapabilityMismatch: ExecutionRef,

  renew: HandleInput,
  renewLease: RenewLeaseInput,
  revokeLease: RevokeLeaseInput,

  issueReclaimGrant: IssueReclaimGrantInput,
  reclaimExecution: ReclaimExecutionInput,
  listExpiredLeases: ListExpiredLeasesInput,

  complete: CompleteInput,
  fail: FailInput,
  cancel: CancelInput,
  delay: DelayInput,
  progress: ProgressInput,
  completeMany: CompleteManyInput,
  completeAndClaim: CompleteAndClaimInput,
  completeExecution: CompleteExecutionInput,
  failExecution: FailExecutionInput,

  suspend: SuspendInput,
  suspendByTriple: SuspendByTripleInput,
  createWaitpoint: CreateWaitpointInput,
  closeWaitpoint: CloseWaitpointInput,
  observeSignals: HandleInput,
  resumeExecution: ResumeExecutionInput,
  readWaitpointToken: WaitpointRef,
  listPendingWaitpoints: ListPendingWaitpointsInput,
  listSuspended: ListSuspendedInput,

  deliverSignal: DeliverSignalInput,
  deliverApprovalSignal: DeliverApprovalSignalInput,

  seedWaitpointHmacSecret: SeedSecretInput,
  rotateWaitpointHmacSecretAll: RotateSecretInput,

  registerWorker: RegisterWorkerInput,
  heartbeatWorker: WorkerRef,
  deregisterWorker: WorkerRef,
  markWorkerDead: MarkWorkerDeadInput,
  listWorkers: ListWorkersInput,
  watchWorker: WatchWorkerInput,

  readEvents: ReadEventsInput,
  tailEvents: TailEventsInput,
  subscribeCompletion: SubscribeInput,
  subscribeLeaseHistory: SubscribeInput,
  subscribeSignalDelivery: SubscribeInput,
  subscribeInstanceTags: SubscribeInput,

  appendFrame: AppendFrameInput,
  appendFrames: AppendFramesInput,
  readStream: ReadStreamInput,
  tailStream: TailStreamInput,
  readSummary: ReadSummaryInput,

  sweep: SweepInput,
  markLeaseExpiredIfDue: ExecutionRef,
  promoteDelayed: ExecutionRef,
  expireExecution: ExpireExecutionInput,
  expireSuspension: ExecutionRef,
  expirePendingWaitpoint: ExpirePendingWaitpointInput,
  trimRetention: TrimRetentionInput,
  reconcileExecutionIndex: ReconcileIndexInput,

  shutdownPrepare: ShutdownPrepareInput,
} as const;

export type OperationName = keyof EngineOperations;
type InputName = keyof typeof INPUTS;

/** Parsed, and the id minted where the caller gave none. */
export type CreateExecutionArgs = z.output<typeof CreateExecutionInput> & {
  readonly executionId: NonNullable<
    z.output<typeof CreateExecutionInput>["executionId"]
  >;
};

interface SpecialArgs {
  createExecution: CreateExecutionArgs;
  createExecutionInTransaction: CreateExecutionArgs & {
    readonly transaction?: unknown;
  };
  /** Items that did not parse arrive as their refusal and are answered `rejected` at their index. */
  submitMany: {
    readonly items: readonly (CreateExecutionArgs | EngineError)[];
    readonly atomicity: "perItem" | "allOrNothing";
  };
}

/** What the backend's own method receives: parsed, defaulted, in range. */
export type Args<K extends InputName> = K extends keyof SpecialArgs
  ? SpecialArgs[K]
  : z.output<(typeof INPUTS)[K]>;

/** A group as a backend implements it, behind the edge that checks inputs. */
export type Implementation<Group> = {
  [K in keyof Group]: K extends InputName
    ? Group[K] extends (input: never) => infer Answer
      ? (args: Args<K>) => Answer
      : never
    : Group[K];
};
