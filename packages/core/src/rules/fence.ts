/**
 * No write by a worker that lost its lease: the one check in front of every fenced write.
 * The order is contractual. Source: specification 02 R3, 04 P1–P2.
 */
import {
  refuse,
  type ExecutionNotActiveDetail,
  type Refusal,
} from "../errors.js";
import { HOME, HOMES, type Home } from "../state.js";

export interface FenceTriple {
  readonly leaseId?: string | undefined;
  readonly leaseEpoch?: number | undefined;
  readonly attemptId?: string | undefined;
}

export interface FencedRecord {
  readonly home: Home;
  readonly leaseEpoch: number;
  readonly leaseId: string | undefined;
  readonly attemptId: string | undefined;
  readonly attemptIndex: number;
  readonly leaseExpiresAtMs: number | undefined;
}

export interface FenceRefusal extends Refusal {
  /** The lease has lapsed and nobody wrote that yet: a marking operation does so before it refuses. */
  readonly markLapsed?: true;
}

/** P1: is a whole triple there? `mayOverride` is true where the caller gave an operator's authority. */
export function checkTriple(
  fence: FenceTriple | undefined,
  mayOverride: boolean,
): Refusal | undefined {
  const given = [fence?.leaseId, fence?.leaseEpoch, fence?.attemptId].filter(
    (part) => part !== undefined,
  ).length;
  if (given === 3) return undefined;
  if (given > 0) return refuse("partial_fence_triple", {});
  return mayOverride ? undefined : refuse("fence_required", {});
}

/** P2: does the triple hold the live lease? Without a triple (override) the identity checks fall away. */
export function checkFence(
  record: FencedRecord,
  fence: FenceTriple | undefined,
  nowMs: number,
  attemptIndex?: number,
): FenceRefusal | undefined {
  if (HOMES[record.home].phase !== "active")
    return refuse("execution_not_active", notActiveDetail(record));
  if (record.home === HOME.revoked) return refuse("lease_revoked", {});
  if (record.home === HOME.lapsed) return refuse("lease_expired", {});
  if ((record.leaseExpiresAtMs ?? 0) <= nowMs)
    return { ...refuse("lease_expired", {}), markLapsed: true };
  if (fence?.leaseId === undefined) return undefined;
  const same =
    (attemptIndex === undefined || attemptIndex === record.attemptIndex) &&
    fence.leaseId === record.leaseId &&
    fence.leaseEpoch === record.leaseEpoch &&
    fence.attemptId === record.attemptId;
  return same ? undefined : refuse("stale_lease", {});
}

export function notActiveDetail(
  record: Pick<FencedRecord, "home" | "leaseEpoch" | "attemptId">,
): ExecutionNotActiveDetail {
  const { outcome, phase } = HOMES[record.home];
  return {
    terminalOutcome: outcome,
    leaseEpoch: record.leaseEpoch,
    lifecyclePhase: phase,
    attemptId: record.attemptId ?? "",
  };
}
