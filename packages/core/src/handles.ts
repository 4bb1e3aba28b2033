/**
 * The attempt cookie a worker holds: everything a fenced call needs, as opaque bytes. Borrowed, never
 * used up, so that calls can be repeated after transport faults. Not authenticated: the fence protects
 * state. Source: specification 01 §7.
 */
import { isUtf8 } from "node:buffer";

import { z } from "zod";

import { engineError } from "./errors.js";
import {
  parseExecutionId,
  type AttemptId,
  type ExecutionId,
  type LaneId,
  type LeaseId,
  type WorkerInstanceId,
} from "./ids.js";

export const BACKEND_LABELS = ["valkey", "postgres", "sqlite"] as const;
/** Which family of store made a handle. A fourth backend picks a label of its own. */
export type BackendLabel = (typeof BACKEND_LABELS)[number] | (string & {});

export const HANDLE_KINDS = [
  "fresh",
  "resumed",
  "reclaimed",
  "suspended",
] as const;
export type HandleKind = (typeof HANDLE_KINDS)[number];

export const Handle = z.object({
  backend: z.string(),
  kind: z.enum(HANDLE_KINDS),
  opaque: z.instanceof(Uint8Array) as unknown as z.ZodType<
    Uint8Array,
    Uint8Array
  >,
});
export interface Handle {
  readonly backend: BackendLabel;
  readonly kind: HandleKind;
  readonly opaque: Uint8Array;
}

export interface HandlePayload {
  readonly executionId: ExecutionId;
  readonly attemptIndex: number;
  readonly attemptId: AttemptId;
  readonly leaseId: LeaseId;
  readonly leaseEpoch: number;
  readonly leaseTtlMs: number;
  readonly laneId: LaneId;
  readonly workerInstanceId: WorkerInstanceId;
}

const MAGIC = 0x02;
const WIRE_VERSION = 0x01;
const TAGS: Readonly<Record<string, number>> = {
  valkey: 0x01,
  postgres: 0x02,
  sqlite: 0x03,
};
/** Backends outside this repository share one tag; their label tells them apart. */
const FOREIGN_TAG = 0x7f;

export function encodeHandle(
  backend: BackendLabel,
  kind: HandleKind,
  payload: HandlePayload,
): Handle {
  const { executionId, attemptId, leaseId, laneId, workerInstanceId } = payload;
  const instanceBytes = Buffer.byteLength(workerInstanceId);
  // All strings but the instance id are ASCII by their own rules.
  const size =
    3 +
    4 * 5 +
    4 +
    8 +
    8 +
    executionId.length +
    attemptId.length +
    leaseId.length +
    laneId.length +
    instanceBytes;
  const bytes = Buffer.allocUnsafeSlow(size);
  let at = 0;
  bytes[at++] = MAGIC;
  bytes[at++] = WIRE_VERSION;
  bytes[at++] = TAGS[backend] ?? FOREIGN_TAG;
  const text = (value: string, length: number) => {
    at = bytes.writeUInt32LE(length, at);
    at += bytes.write(value, at, "utf8");
  };
  const u64 = (value: number) => {
    at = bytes.writeUInt32LE(value % 0x1_0000_0000, at);
    at = bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at);
  };
  text(executionId, executionId.length);
  at = bytes.writeUInt32LE(payload.attemptIndex, at);
  text(attemptId, attemptId.length);
  text(leaseId, leaseId.length);
  u64(payload.leaseEpoch);
  u64(payload.leaseTtlMs);
  text(laneId, laneId.length);
  text(workerInstanceId, instanceBytes);
  return { backend, kind, opaque: bytes };
}

/**
 * @throws EngineError `corruption` (field tells what is wrong) for undecodable bytes,
 * `handle_from_other_backend` where the outer label or the inner tag is not the callee's.
 */
export function decodeHandle(
  handle: Handle,
  backend: BackendLabel,
): HandlePayload {
  const bytes = Buffer.from(
    handle.opaque.buffer,
    handle.opaque.byteOffset,
    handle.opaque.byteLength,
  );
  let at = 3;
  const fail = (field: string, message: string) =>
    engineError("corruption", { context: "handle_codec", field, message });
  const need = (length: number) => {
    if (at + length > bytes.length)
      throw fail(
        "truncated",
        `${bytes.length} bytes end inside a field at ${at}`,
      );
  };
  const text = (field: string) => {
    need(4);
    const length = bytes.readUInt32LE(at);
    at += 4;
    need(length);
    const value = bytes.toString("utf8", at, at + length);
    // It stands where bytes were not UTF-8, and where it was written itself.
    if (value.includes("\ufffd") && !isUtf8(bytes.subarray(at, at + length)))
      throw fail(`invalidUtf8(${field})`, "not UTF-8");
    at += length;
    return value;
  };
  const u32 = () => {
    need(4);
    const value = bytes.readUInt32LE(at);
    at += 4;
    return value;
  };
  const u64 = (field: string) => {
    const value = u32() + u32() * 0x1_0000_0000;
    if (!Number.isSafeInteger(value))
      throw fail(`parseField(${field})`, "not a safe integer");
    return value;
  };

  if (bytes.length < 3) throw fail("truncated", "shorter than its header");
  if (bytes[0] !== MAGIC) throw fail("badMagic", `first byte is ${bytes[0]}`);
  if (bytes[1] !== WIRE_VERSION)
    throw fail("badWireVersion", `version ${bytes[1]}`);
  const inner =
    Object.keys(TAGS).find((label) => TAGS[label] === bytes[2]) ??
    (bytes[2] === FOREIGN_TAG ? handle.backend : undefined);
  if (inner === undefined) throw fail("badBackendTag", `tag ${bytes[2]}`);
  if (handle.backend !== backend || inner !== backend) {
    throw engineError("handle_from_other_backend", {
      expected: backend,
      actual: inner === backend ? handle.backend : inner,
    });
  }

  const payload: HandlePayload = {
    executionId: text("executionId") as ExecutionId,
    attemptIndex: u32(),
    attemptId: text("attemptId") as AttemptId,
    leaseId: text("leaseId") as LeaseId,
    leaseEpoch: u64("leaseEpoch"),
    leaseTtlMs: u64("leaseTtlMs"),
    laneId: text("laneId") as LaneId,
    workerInstanceId: text("workerInstanceId") as WorkerInstanceId,
  };
  if (at !== bytes.length)
    throw fail("trailingBytes", `${bytes.length - at} bytes too many`);
  if (parseExecutionId(payload.executionId) === undefined)
    throw fail("parseField(executionId)", "not an execution id");
  return payload;
}
