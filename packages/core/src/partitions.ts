/**
 * Which partition an id belongs to. Partitions bound one atomic unit where a store is spread over
 * several nodes; the count is fixed per deployment. Source: specification 01 §2.1, §3.
 */
import { invalidInput } from "./errors.js";

/** Counts per family. Stored at first boot; a later mismatch refuses to start. */
export interface PartitionConfig {
  readonly flow: number;
  readonly budget: number;
  readonly quota: number;
}
export const DEFAULT_PARTITIONS: PartitionConfig = {
  flow: 256,
  budget: 32,
  quota: 32,
};

/** Names the partition of a lane's executions outside flows. Must be pure, and below `count`. */
export type SoloPartitioner = (
  laneId: string,
  count: number,
  spreadKey: string,
) => number;

/** How a store places ids: whoever mints one for it goes by this. */
export interface Partitioning extends PartitionConfig {
  /** Of executions outside flows. */
  readonly partitioner: SoloPartitioner;
}

/** All executions of a lane in one partition: total order, one hot spot per lane. The default. */
export const byLane: SoloPartitioner = (laneId, count) =>
  crc16(Buffer.from(laneId)) % count;

/** A busy lane over all partitions; equal idempotency keys still meet in one. */
export const spread: SoloPartitioner = (laneId, count, spreadKey) =>
  crc16(Buffer.from(`${laneId}\u0000${spreadKey}`)) % count;

/** CRC16-CCITT/XModem, the slot function of Valkey Cluster. */
export function crc16(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes)
    crc = ((crc << 8) ^ CRC16_TABLE[((crc >> 8) ^ byte) & 0xff]!) & 0xffff;
  return crc;
}

const CRC16_TABLE = Uint16Array.from({ length: 256 }, (_unused, index) => {
  let crc = index << 8;
  for (let bit = 0; bit < 8; bit++)
    crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
  return crc & 0xffff;
});

/** FNV-1a, 64 bit, of UTF-8 text. For spreading and digests, never for security. */
export function fnv1a64(text: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(text))
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}

/** Eight hex digits for log lines: the halves of {@link fnv1a64} folded together. */
export function digest8(text: string): string {
  const hash = fnv1a64(text);
  return Number((hash ^ (hash >> 32n)) & 0xffffffffn)
    .toString(16)
    .padStart(8, "0");
}

export type PartitionFamily = "flow" | "budget" | "quota";
export interface Partition {
  readonly family: PartitionFamily;
  readonly index: number;
}

const PREFIXES = { fp: "flow", b: "budget", q: "quota" } as const;

/** `{fp:7}` and the like: a routing handle for round trips, opaque to users. */
export function partitionKey(partition: Partition): string {
  const prefix = { flow: "fp", budget: "b", quota: "q" }[partition.family];
  return `{${prefix}:${partition.index}}`;
}

/** @throws EngineError `invalid_input` with `missingBraces`, `malformedBody`, `unknownFamilyPrefix` or `invalidIndex`. */
export function parsePartitionKey(key: string): Partition {
  if (!key.startsWith("{") || !key.endsWith("}"))
    throw invalidInput("partitionKey", `missingBraces: '${key}'`);
  const [prefix, index, rest] = key.slice(1, -1).split(":");
  if (prefix === undefined || index === undefined || rest !== undefined)
    throw invalidInput("partitionKey", `malformedBody: '${key}'`);
  if (!Object.hasOwn(PREFIXES, prefix))
    throw invalidInput("partitionKey", `unknownFamilyPrefix(${prefix})`);
  if (!/^(0|[1-9]\d{0,4})$/.test(index) || Number(index) > 0xffff)
    throw invalidInput("partitionKey", `invalidIndex(${index})`);
  return {
    family: PREFIXES[prefix as keyof typeof PREFIXES],
    index: Number(index),
  };
}
