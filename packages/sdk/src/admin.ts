/**
 * Every operation for users and operators that `Client` has no method of its own for, under the contract's
 * own names. A thin layer: it fills in the client's namespace and takes an `AbortSignal`. What each operation
 * does, checks and answers stands with the contract in `@flowfabric/core`.
 */
import type {
  AdminOperations,
  AdmissionOperations,
  ClaimOperations,
  EngineBackend,
  EngineOperations,
  EventOperations,
  ExecutionOperations,
  GrantOperations,
  LeaseOperations,
  OutcomeOperations,
  ReadOperations,
  ReclaimOperations,
  SecretOperations,
  SignalOperations,
  StreamOperations,
  SuspensionOperations,
  TagOperations,
  WorkerOperations,
} from "@flowfabric/core";

import { requireReadBounds, requireTailBounds } from "./stream-bounds.js";
import { abortable, type CallOptions } from "./waiting.js";

type Offered = Pick<
  ExecutionOperations,
  | "createExecution"
  | "submitMany"
  | "cancelExecution"
  | "replayExecution"
  | "changePriority"
  | "holdExecution"
  | "unholdExecution"
> &
  ReadOperations &
  TagOperations &
  Pick<ClaimOperations, "claimForWorker" | "scanEligibleExecutions"> &
  Pick<GrantOperations, "issueClaimGrant" | "issueGrantAndClaim"> &
  Pick<ReclaimOperations, "issueReclaimGrant" | "listExpiredLeases"> &
  AdmissionOperations &
  Pick<LeaseOperations, "revokeLease"> &
  Pick<OutcomeOperations, "completeExecution" | "failExecution"> &
  Pick<
    WorkerOperations,
    | "registerWorker"
    | "heartbeatWorker"
    | "deregisterWorker"
    | "markWorkerDead"
    | "listWorkers"
  > &
  EventOperations &
  Pick<StreamOperations, "readStream" | "tailStream" | "readSummary"> &
  SignalOperations &
  Pick<
    SuspensionOperations,
    | "suspendByTriple"
    | "closeWaitpoint"
    | "resumeExecution"
    | "readWaitpointToken"
    | "listPendingWaitpoints"
    | "listSuspended"
  > &
  SecretOperations &
  Pick<AdminOperations, "ping">;

/** What the client fills in may be left out. */
type Defaulted<Input> = Input extends { namespace?: unknown }
  ? Omit<Input, "namespace"> & { readonly namespace?: string | undefined }
  : Input;

/** The contract's operation with a last argument for the caller's abort, and the client's namespace as default. */
type Bound<Operation> = Operation extends () => infer Answer
  ? (options?: CallOptions) => Answer
  : Operation extends (input: infer Input) => infer Answer
    ? (input: Defaulted<Input>, options?: CallOptions) => Answer
    : never;

export type FlowFabricAdmin = {
  readonly [Name in keyof Offered]: Bound<Offered[Name]>;
} & Pick<EngineBackend, "capabilities">;

/** `none`: the operation is not about one namespace. `filter`: the namespace goes into the feed's filter. */
const OPERATIONS: {
  readonly [Name in keyof Offered]: "namespace" | "filter" | "items" | "none";
} = {
  createExecution: "namespace",
  submitMany: "items",
  cancelExecution: "namespace",
  replayExecution: "namespace",
  changePriority: "namespace",
  holdExecution: "namespace",
  unholdExecution: "namespace",

  describeExecution: "namespace",
  readExecutionContext: "namespace",
  readExecutionInfo: "namespace",
  readExecutionState: "namespace",
  getExecutionResult: "namespace",
  readCurrentAttemptIndex: "namespace",
  readTotalAttemptCount: "namespace",
  getExecutionNamespace: "none",
  listExecutions: "namespace",
  listAttempts: "namespace",
  listLanes: "none",

  setExecutionTag: "namespace",
  getExecutionTag: "namespace",
  searchByTags: "namespace",
  countByTags: "namespace",

  claimForWorker: "namespace",
  scanEligibleExecutions: "none",
  issueClaimGrant: "namespace",
  issueGrantAndClaim: "namespace",
  issueReclaimGrant: "namespace",
  listExpiredLeases: "namespace",

  blockExecutionForAdmission: "namespace",
  blockRoute: "namespace",
  unblockExecution: "namespace",
  explainCapabilityMismatch: "namespace",
  revokeLease: "namespace",
  completeExecution: "namespace",
  failExecution: "namespace",

  registerWorker: "namespace",
  heartbeatWorker: "namespace",
  deregisterWorker: "namespace",
  markWorkerDead: "namespace",
  listWorkers: "namespace",

  readEvents: "namespace",
  tailEvents: "namespace",
  subscribeCompletion: "filter",
  subscribeLeaseHistory: "filter",
  subscribeSignalDelivery: "filter",
  subscribeInstanceTags: "filter",
  readStream: "namespace",
  tailStream: "namespace",
  readSummary: "namespace",

  suspendByTriple: "namespace",
  closeWaitpoint: "namespace",
  deliverSignal: "namespace",
  deliverApprovalSignal: "namespace",
  resumeExecution: "namespace",
  readWaitpointToken: "namespace",
  listPendingWaitpoints: "namespace",
  listSuspended: "none",
  seedWaitpointHmacSecret: "none",
  rotateWaitpointHmacSecretAll: "none",
  listWaitpointHmacKids: "none",
  ping: "none",
};

type Fields = Readonly<Record<string, unknown>>;

/** What is wrong with these is the program's configuration: told before anything is sent. @throws ConfigError */
const CHECKS: { readonly [Name in keyof Offered]?: (input: Fields) => void } = {
  readStream: (input) => requireReadBounds("read_stream", input),
  tailStream: (input) => requireTailBounds("tail_stream", input),
};

export function adminOf(
  backend: EngineBackend,
  namespace: string,
): FlowFabricAdmin {
  const operations = backend as unknown as Record<
    keyof EngineOperations,
    (input?: Fields) => Promise<unknown>
  >;
  const fill = (input: Fields): Fields => ({ namespace, ...given(input) });
  const complete = {
    namespace: fill,
    filter: (input: Fields) => ({
      ...input,
      filter: fill((input["filter"] ?? {}) as Fields),
    }),
    items: (input: Fields) => ({
      ...input,
      items: Array.isArray(input["items"])
        ? (input["items"] as Fields[]).map(fill)
        : input["items"],
    }),
    none: (input: Fields) => input,
  };
  const bound = Object.entries(OPERATIONS).map(([name, rule]) => [
    name,
    name === "ping"
      ? (options?: CallOptions) => abortable(backend.ping(), options?.signal)
      : async (input: Fields = {}, options?: CallOptions) => {
          CHECKS[name as keyof Offered]?.(input);
          return abortable(
            operations[name as keyof Offered](complete[rule](input)),
            options?.signal,
          );
        },
  ]);
  return Object.freeze({
    ...(Object.fromEntries(bound) as Omit<FlowFabricAdmin, "capabilities">),
    capabilities: () => backend.capabilities(),
  });
}

/** A namespace that is there but undefined must not hide the default. */
function given(input: Fields): Fields {
  if (input["namespace"] !== undefined) return input;
  const { namespace: _absent, ...rest } = input;
  return rest;
}
