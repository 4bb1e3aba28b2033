/** Whether a repeated submission asks for the same as the stored one. Source: specification 04 W53. */
import type { CreateExecutionArgs } from "../operations/inputs-by-operation.js";
import { canonicalJson } from "../json.js";

/**
 * Everything a submitter chose, but for payload and policy, in one canonical text. Absent when all of it is
 * default, which is how most executions are stored: as nothing.
 */
export function requestFingerprint(
  args: CreateExecutionArgs,
): string | undefined {
  const chosen = {
    ...(args.priority === undefined ? {} : { priority: args.priority }),
    ...(args.delayUntilMs === undefined
      ? {}
      : { delayUntilMs: args.delayUntilMs }),
    ...(args.executionDeadlineAtMs === undefined
      ? {}
      : { executionDeadlineAtMs: args.executionDeadlineAtMs }),
    ...(args.creatorIdentity === undefined
      ? {}
      : { creatorIdentity: args.creatorIdentity }),
    ...(Object.keys(args.tags).length === 0 ? {} : { tags: args.tags }),
  };
  return Object.keys(chosen).length === 0 ? undefined : canonicalJson(chosen);
}

export interface StoredRequest {
  readonly namespace: string;
  readonly laneId: string;
  readonly executionKind: string;
  readonly inputPayload: Uint8Array;
  /** Canonical JSON of the policy as submitted. */
  readonly policyJson: string | undefined;
  readonly fingerprint: string | undefined;
}

export function sameRequest(
  stored: StoredRequest,
  args: CreateExecutionArgs,
): boolean {
  return (
    stored.namespace === args.namespace &&
    stored.laneId === args.laneId &&
    stored.executionKind === args.executionKind &&
    stored.fingerprint === requestFingerprint(args) &&
    stored.policyJson ===
      (args.policy === undefined ? undefined : canonicalJson(args.policy)) &&
    Buffer.compare(
      stored.inputPayload,
      args.inputPayload ?? new Uint8Array(),
    ) === 0
  );
}
