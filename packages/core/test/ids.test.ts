import {
  byLane,
  crc16,
  digest8,
  ExecutionId,
  executionIdForFlow,
  executionIdForLane,
  fnv1a64,
  formatExecutionId,
  IdempotencyKey,
  LaneId,
  newUuid,
  parseExecutionId,
  parsePartitionKey,
  partitionKey,
  spread,
  WorkerId,
} from "@flowfabric/core";
import { bytesToUuid, newUuidBytes } from "@flowfabric/core/records";
import fc from "fast-check";
import { expect, test } from "vitest";

import { named, readVectors } from "./vectors.js";

const vectors = readVectors<{
  crc16: { text: string; crc: number }[];
  fnv1a64: { text: string; hash: string; digest8: string }[];
  lanes: { laneId: string; partitions: number; partition: number }[];
  flows: { flowId: string; partitions: number; partition: number }[];
  spread: {
    laneId: string;
    spreadKey: string;
    partitions: number;
    partition: number;
  }[];
}>("hashes");
const UUID = "01990000-0000-7000-8000-0000000000e1";

test.each(named(vectors.crc16))("CRC16 %s", (_name, { text, crc }) => {
  expect(crc16(Buffer.from(text))).toBe(crc);
});
test.each(named(vectors.fnv1a64))("FNV-1a %s", (_name, one) => {
  expect(fnv1a64(one.text).toString(16).padStart(16, "0")).toBe(one.hash);
  expect(digest8(one.text)).toBe(one.digest8);
});
test.each(named(vectors.lanes))("lane %s", (_name, one) => {
  expect(byLane(one.laneId, one.partitions, "whatever")).toBe(one.partition);
  const id = executionIdForLane(one.laneId, {
    partitions: { flow: one.partitions, budget: 1, quota: 1 },
  });
  expect(parseExecutionId(id)?.partition).toBe(one.partition);
});
test.each(named(vectors.flows))("flow %s", (_name, one) => {
  const id = executionIdForFlow(one.flowId, { uuid: UUID });
  expect(id).toBe(`{fp:${one.partition}}:${UUID}`);
});
test.each(named(vectors.spread))("spread %s", (_name, one) => {
  expect(spread(one.laneId, one.partitions, one.spreadKey)).toBe(one.partition);
});

test("an execution id is read back as it was made", () => {
  fc.assert(
    fc.property(fc.nat(0xffff), fc.uuid(), (partition, uuid) => {
      const id = formatExecutionId(partition, uuid);
      expect(parseExecutionId(id)).toEqual({ partition, uuid });
      expect(ExecutionId.parse(id)).toBe(id);
    }),
  );
});

test("what is no execution id is refused by what is wrong with it", () => {
  for (const [text, fault] of [
    [UUID, "missingTag"],
    ["", "missingTag"],
    [`{b:1}:${UUID}`, "missingTag"],
    [`{fp:}:${UUID}`, "invalidPartitionIndex"],
    [`{fp:01}:${UUID}`, "invalidPartitionIndex"],
    [`{fp:-1}:${UUID}`, "invalidPartitionIndex"],
    [`{fp:65536}:${UUID}`, "invalidPartitionIndex"],
    [`{fp:1}:${UUID.toUpperCase()}`, "invalidUuid"],
    [`{fp:1}:${UUID}0`, "invalidUuid"],
    ["{fp:1}:", "invalidUuid"],
  ] as const) {
    const parsed = ExecutionId.safeParse(text);
    expect(parsed.success, text).toBe(false);
    expect(parsed.error?.issues[0]?.message).toContain(fault);
  }
});

test("ids of one process sort by the order of their making", () => {
  const ids = Array.from({ length: 5_000 }, () => newUuid());
  expect(ids).toEqual([...ids].sort());
  expect(new Set(ids).size).toBe(5_000);
});

test("equal idempotency keys meet in one partition, however work is spread", () => {
  const options = { partitioner: spread, idempotencyKey: "order-1" };
  const partitions = Array.from(
    { length: 20 },
    () => parseExecutionId(executionIdForLane("mail", options))?.partition,
  );
  expect(new Set(partitions).size).toBe(1);
});

test("a lane is 1 to 64 bytes of printable ASCII", () => {
  for (const lane of ["a", " ~", "x".repeat(64)])
    expect(LaneId.safeParse(lane).success, lane).toBe(true);
  for (const [lane, fault] of [
    ["", "empty"],
    ["x".repeat(65), "tooLong(65)"],
    ["ab\u007f", "nonPrintable(2)"],
    ["aß", "nonPrintable(1)"],
    ["a\nb", "nonPrintable(1)"],
  ] as const)
    expect(LaneId.safeParse(lane).error?.issues[0]?.message).toContain(fault);
});

test("a worker's name is 1 to 256 bytes without white space and control characters", () => {
  for (const name of ["w", "größe-模型", "x".repeat(256)])
    expect(WorkerId.safeParse(name).success, name).toBe(true);
  for (const name of [
    "",
    "a b",
    "a\tb",
    "a\u0085b",
    "a\u00a0b",
    "x".repeat(257),
    "ä".repeat(129),
  ])
    expect(WorkerId.safeParse(name).success, name).toBe(false);
});

test("an idempotency key has at most 256 bytes", () => {
  expect(IdempotencyKey.safeParse("ä".repeat(128)).success).toBe(true);
  expect(IdempotencyKey.safeParse("ä".repeat(129)).success).toBe(false);
});

test("many ids at once are so many UUIDv7, none twice, each behind the one before", () => {
  for (const count of [0, 1, 200]) {
    const before = newUuid();
    const bytes = newUuidBytes(count);
    const ids = Array.from({ length: count }, (_unused, nth) =>
      bytesToUuid(bytes.subarray(nth * 16, (nth + 1) * 16)),
    );
    expect(bytes).toHaveLength(count * 16);
    for (const id of ids) expect(id).toMatch(/^.{14}7.{4}[89ab]/);
    const all = [before, ...ids, newUuid()];
    expect([...new Set(all)].sort()).toEqual(all);
  }
});

test("a partition key is read back as it was written", () => {
  for (const family of ["flow", "budget", "quota"] as const)
    for (const index of [0, 7, 65_535])
      expect(parsePartitionKey(partitionKey({ family, index }))).toEqual({
        family,
        index,
      });
  for (const [key, fault] of [
    ["fp:7", "missingBraces"],
    ["{fp}", "malformedBody"],
    ["{fp:1:2}", "malformedBody"],
    ["{zz:1}", "unknownFamilyPrefix(zz)"],
    ["{toString:1}", "unknownFamilyPrefix(toString)"],
    ["{fp:x}", "invalidIndex(x)"],
    ["{fp:65536}", "invalidIndex(65536)"],
  ] as const)
    expect(() => parsePartitionKey(key)).toThrow(fault);
});
