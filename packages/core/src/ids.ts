/**
 * Names of things. Each schema checks the shape at the edge; each type is branded, so that a lease id
 * cannot be passed for an attempt id. Source: specification 01 §2.
 */
import { v7 } from "uuid";
import { z } from "zod";

import {
  byteLength,
  IDEMPOTENCY_KEY_MAX_BYTES,
  IDENTITY_MAX_BYTES,
  LANE_ID_MAX_BYTES,
} from "./limits.js";
import {
  byLane,
  crc16,
  DEFAULT_PARTITIONS,
  type PartitionConfig,
  type Partitioning,
  type SoloPartitioner,
} from "./partitions.js";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const EXECUTION_ID =
  /^\{fp:(0|[1-9]\d{0,4})\}:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$/;

/** `{fp:N}:<uuid>`: partition and identity in one; stable across retries, reclaims and replays. */
export const ExecutionId = z
  .string()
  .refine((text) => parseExecutionId(text) !== undefined, {
    error: (issue) =>
      `${describeExecutionIdFault(String(issue.input))}: an execution id looks like {fp:7}:0192…, got '${String(issue.input)}'`,
  })
  .brand<"ExecutionId">();
export type ExecutionId = z.infer<typeof ExecutionId>;

const uuid = (what: string) =>
  z.string().regex(UUID, {
    error: (issue) =>
      `${what} must be a lower-case hyphenated UUID, got '${String(issue.input)}'`,
  });

export const FlowId = uuid("a flow id").brand<"FlowId">();
export type FlowId = z.infer<typeof FlowId>;
export const LeaseId = uuid("a lease id").brand<"LeaseId">();
export type LeaseId = z.infer<typeof LeaseId>;
export const AttemptId = uuid("an attempt id").brand<"AttemptId">();
export type AttemptId = z.infer<typeof AttemptId>;

export const SuspensionId = uuid("a suspension id").brand<"SuspensionId">();
export type SuspensionId = z.infer<typeof SuspensionId>;
export const WaitpointId = uuid("a waitpoint id").brand<"WaitpointId">();
export type WaitpointId = z.infer<typeof WaitpointId>;
export const SignalId = uuid("a signal id").brand<"SignalId">();
export type SignalId = z.infer<typeof SignalId>;

/** 1–64 bytes of printable ASCII. A queue of its own with one order. */
export const LaneId = z
  .string()
  .superRefine((text, ctx) => {
    const fault = laneFault(text);
    if (fault !== undefined)
      ctx.addIssue({ code: "custom", message: `lane id ${fault}` });
  })
  .brand<"LaneId">();
export type LaneId = z.infer<typeof LaneId>;
export const DEFAULT_LANE = "default" as LaneId;

function identity(what: string) {
  return z.string().superRefine((text, ctx) => {
    const fault = identityFault(text);
    if (fault !== undefined)
      ctx.addIssue({ code: "custom", message: `${what} ${fault}` });
  });
}

/** Logical worker or pool, shared by replicas, stable across restarts. */
export const WorkerId = identity("worker id").brand<"WorkerId">();
export type WorkerId = z.infer<typeof WorkerId>;
/** One process; unique per boot. */
export const WorkerInstanceId =
  identity("worker instance id").brand<"WorkerInstanceId">();
export type WorkerInstanceId = z.infer<typeof WorkerInstanceId>;
/** Tenant boundary. */
export const Namespace = identity("namespace").brand<"Namespace">();
export type Namespace = z.infer<typeof Namespace>;
export const DEFAULT_NAMESPACE = "default" as Namespace;

export const ZERO_CHARACTER = "must not contain zero characters";

/** Compared as bytes within (namespace, lane); empty means absent. */
export const IdempotencyKey = z
  .string()
  .refine(
    (key) => byteLength(key) <= IDEMPOTENCY_KEY_MAX_BYTES,
    `an idempotency key has at most ${IDEMPOTENCY_KEY_MAX_BYTES} bytes`,
  )
  .refine(hasNoZero, ZERO_CHARACTER);
export type IdempotencyKey = z.infer<typeof IdempotencyKey>;

/** Not every store can hold one. */
export function hasNoZero(text: string): boolean {
  return !text.includes("\0");
}

/** What is wrong with a lane id: `empty`, `tooLong(n)`, `nonPrintable(byteIndex)`, or nothing. */
export function laneFault(text: string): string | undefined {
  if (text.length === 0) return "empty: give at least one character";
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length > LANE_ID_MAX_BYTES)
    return `tooLong(${bytes.length}): at most ${LANE_ID_MAX_BYTES} bytes`;
  const at = bytes.findIndex((byte) => byte < 0x20 || byte > 0x7e);
  return at < 0 ? undefined : `nonPrintable(${at}): printable ASCII only`;
}

/** What is wrong with a worker, instance or namespace name, or nothing. */
export function identityFault(text: string): string | undefined {
  if (text.length === 0) return "is empty";
  if (byteLength(text) > IDENTITY_MAX_BYTES)
    return `is longer than ${IDENTITY_MAX_BYTES} bytes`;
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  return /[\s\u0000-\u001f\u007f-\u009f]/u.test(text)
    ? "must not contain white space or control characters"
    : undefined;
}

/** Partition and uuid of an execution id, or nothing when it is malformed. */
export function parseExecutionId(
  text: string,
): { readonly partition: number; readonly uuid: string } | undefined {
  const match = EXECUTION_ID.exec(text);
  if (match === null) return undefined;
  const partition = Number(match[1]);
  return partition > 0xffff ? undefined : { partition, uuid: match[2]! };
}

function describeExecutionIdFault(text: string): string {
  const tag = /^\{fp:([^}]*)\}:/.exec(text);
  if (tag === null) return "missingTag";
  return /^(0|[1-9]\d{0,4})$/.test(tag[1]!) && Number(tag[1]) <= 0xffff
    ? "invalidUuid"
    : "invalidPartitionIndex";
}

export function formatExecutionId(partition: number, id: string): ExecutionId {
  return `{fp:${partition}}:${id}` as ExecutionId;
}

/** A fresh UUIDv7: sorts by time, and within one process by call. */
export function newUuid(): string {
  return v7();
}
export function newLeaseId(): LeaseId {
  return v7() as LeaseId;
}
export function newAttemptId(): AttemptId {
  return v7() as AttemptId;
}
export function newSuspensionId(): SuspensionId {
  return v7() as SuspensionId;
}
export function newWaitpointId(): WaitpointId {
  return v7() as WaitpointId;
}
export function newSignalId(): SignalId {
  return v7() as SignalId;
}

/**
 * Mints an id for an execution outside flows; `uuid` makes it deterministic. Pass a store's own `partitions`, which say
 * where its ids live.
 */
export function executionIdForLane(
  laneId: string,
  options: {
    partitions?: PartitionConfig & { readonly partitioner?: SoloPartitioner };
    uuid?: string;
    idempotencyKey?: string;
  } = {},
): ExecutionId {
  const {
    partitions = DEFAULT_PARTITIONS,
    uuid: id = v7(),
    idempotencyKey,
  } = options;
  const { partitioner = byLane } = partitions as Partial<Partitioning>;
  return formatExecutionId(
    partitioner(laneId, partitions.flow, idempotencyKey ?? id),
    id,
  );
}

/** Mints an id on a flow's partition; the same arguments give the same id. */
export function executionIdForFlow(
  flowId: string,
  options: { partitions?: PartitionConfig; uuid?: string } = {},
): ExecutionId {
  const { partitions = DEFAULT_PARTITIONS, uuid: id = v7() } = options;
  return formatExecutionId(
    crc16(Buffer.from(flowId.replaceAll("-", ""), "hex")) % partitions.flow,
    id,
  );
}
