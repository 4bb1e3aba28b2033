/** The public surface, by subject. */
export * from "./aborts.js";
export * from "./backend.js";
export * from "./capabilities.js";
export * from "./checked.js";
export * from "./errors.js";
export * from "./events.js";
export * from "./grouped.js";
export * from "./handles.js";
export * from "./ids.js";
export * from "./iterate.js";
export * from "./json.js";
export * from "./limits.js";
export * from "./partitions.js";
export * from "./policies.js";
export * from "./snapshots.js";
export * from "./state.js";
export * from "./tails.js";
export {
  parseToken,
  redactToken,
  WaitpointToken,
  type ParsedToken,
} from "./waitpoint-token.js";
export * from "./streams.js";

export * from "./operations/admin.js";
export * from "./operations/admission.js";
export * from "./operations/claims.js";
export * from "./operations/events.js";
export * from "./operations/executions.js";
export * from "./operations/grants.js";
export {
  LeaseFence,
  storableText,
  TagKey,
  TagValue,
  type ExecutionRef,
} from "./operations/inputs.js";
export {
  INPUTS,
  type Args,
  type CreateExecutionArgs,
  type Implementation,
  type OperationName,
} from "./operations/inputs-by-operation.js";
export * from "./operations/leases.js";
export * from "./operations/maintenance.js";
export * from "./operations/outcomes.js";
export * from "./operations/reads.js";
export * from "./operations/reclaim.js";
export * from "./operations/secrets.js";
export * from "./operations/signals.js";
export {
  ResumePolicy,
  SuspendByTripleInput,
  SuspendInput,
  type WaitpointBinding,
} from "./operations/suspend-input.js";
export * from "./operations/suspension.js";
export * from "./operations/streams.js";
export * from "./operations/tags.js";
export * from "./operations/workers.js";

export * from "./rules/capabilities.js";
export * from "./rules/conditions.js";
export * from "./rules/fence.js";
export * from "./rules/frame-ids.js";
export * from "./rules/frames.js";
export * from "./rules/home.js";
export * from "./rules/keystore.js";
export * from "./rules/merge-patch.js";
export * from "./rules/order.js";
export * from "./rules/reclaim.js";
export * from "./rules/reconcile.js";
export * from "./rules/request.js";
export * from "./rules/retry.js";
export * from "./rules/suspension.js";
export * from "./rules/token.js";
export * from "./rules/stream-close.js";
export * from "./rules/stream-pages.js";

export * from "./sweeps/sweeps.js";
