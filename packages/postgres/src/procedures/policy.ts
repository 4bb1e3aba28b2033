/** The frozen policy of an execution: read only where something out of the ordinary happens. */
import {
  DEFAULT_POLICY,
  engineError,
  isEngineError,
  parsePolicy,
  type ExecutionPolicy,
} from "@flowfabric/core";
import { parseJson, type ExecutionRow } from "@flowfabric/core/sql";

import type { Session } from "../session.js";

export async function readPolicy(
  tx: Session,
  row: ExecutionRow,
): Promise<ExecutionPolicy> {
  const text =
    (await tx.get<{ policy: string | null }>(READ_POLICY, row.seq))?.policy ??
    null;
  return toPolicy(text);
}

export function toPolicy(text: string | null): ExecutionPolicy {
  if (text === null) return DEFAULT_POLICY;
  const policy = parsePolicy(parseJson(text, "policy"));
  if (isEngineError(policy))
    throw engineError("corruption", {
      context: "execution",
      field: "policy",
      message: policy.message,
    });
  return policy;
}

const READ_POLICY = `
  SELECT policy
  FROM inputs
  WHERE seq = ?`;
