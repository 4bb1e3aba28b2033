/**
 * What a backend can do, flag by flag. Static after opening; the conformance suite treats two backends
 * differently only through these flags. Source: specification 01 §15.
 */

/** Every operation that a store might not be able to offer. Ours offer all but where a comment says so. */
export const SUPPORT_FLAGS = [
  "submitMany",
  "cancelExecution",
  "changePriority",
  "replayExecution",
  "holdExecution",
  "readExecutionState",
  "readExecutionInfo",
  "getExecutionResult",
  "tagSearch",
  "claimMany",
  "claimForWorker",
  "blockExecutionForAdmission",
  "explainCapabilityMismatch",
  "revokeLease",
  "issueReclaimGrant",
  "listExpiredLeases",
  "completeMany",
  "completeAndClaim",
  "registerWorker",
  "heartbeatWorker",
  "markWorkerDead",
  "listWorkers",
  "watchWorker",
  "executionEvents",
  "subscribeCompletion",
  "subscribeLeaseHistory",
  "subscribeSignalDelivery",
  "subscribeInstanceTags",
  "listPendingWaitpoints",
  "seedWaitpointHmacSecret",
  "rotateWaitpointHmacSecretAll",
  /** Frames and summaries of attempts, in all modes. */
  "attemptStreams",
  /** Submissions join the caller's own transaction: SQL stores only. */
  "callerTransaction",
  /** Works on calls while the caller's own thread goes on: not where the store is embedded. */
  "concurrentCalls",
  /** `prepare` does real work (loads or migrates) rather than only verifying. */
  "prepare",
] as const;
export type SupportFlag = (typeof SUPPORT_FLAGS)[number];
export type Supports = { readonly [F in SupportFlag]: boolean };

/** All flags on, with exceptions. */
export function supports(exceptions: Partial<Supports> = {}): Supports {
  const all = Object.fromEntries(
    SUPPORT_FLAGS.map((flag) => [flag, true]),
  ) as Supports;
  return { ...all, ...exceptions };
}

export interface Capabilities {
  readonly identity: {
    readonly family: string;
    readonly version: {
      readonly major: number;
      readonly minor: number;
      readonly patch: number;
    };
  };
  readonly supports: Supports;
}
