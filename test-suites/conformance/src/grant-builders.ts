/** The two steps of a claim by grant, with what a test does not care about filled in. */
import {
  newAttemptId,
  newLeaseId,
  type ClaimExecutionInput,
  type ClaimResumedInput,
  type EngineBackend,
  type Grant,
  type IssueClaimGrantInput,
} from "@flowfabric/core";

import { LEASE_TTL_MS, WORKER } from "./builders.js";

export const GRANT_TTL_MS = 5_000;

export async function issueGrant(
  backend: EngineBackend,
  executionId: string,
  change: Partial<IssueClaimGrantInput> = {},
): Promise<Grant> {
  const { grant } = await backend.issueClaimGrant({
    executionId,
    ...WORKER,
    grantTtlMs: GRANT_TTL_MS,
    ...change,
  });
  return grant;
}

export function claimInput(
  executionId: string,
  change: Partial<ClaimExecutionInput> = {},
): ClaimExecutionInput {
  return {
    ...resumeInput(executionId),
    attemptId: newAttemptId(),
    ...change,
  };
}

export function resumeInput(
  executionId: string,
  change: Partial<ClaimResumedInput> = {},
): ClaimResumedInput {
  return {
    executionId,
    ...WORKER,
    leaseId: newLeaseId(),
    leaseTtlMs: LEASE_TTL_MS,
    ...change,
  };
}
