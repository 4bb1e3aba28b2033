import {
  parseExecutionId,
  partitionKey,
  type ExecutionId,
  type Grant,
  type GrantKind,
  type LaneId,
} from "@flowfabric/core";

export function toGrant(
  kind: GrantKind,
  executionId: ExecutionId,
  expiresAtMs: number,
  laneId: LaneId,
): Grant {
  const { partition, uuid } = parseExecutionId(executionId)!;
  return {
    kind,
    executionId,
    partitionKey: partitionKey({ family: "flow", index: partition }),
    grantKey: `grant:${uuid}`,
    expiresAtMs,
    laneId,
  };
}
