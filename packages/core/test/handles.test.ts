import {
  decodeHandle,
  encodeHandle,
  HANDLE_KINDS,
  isEngineError,
  type HandleKind,
  type HandlePayload,
} from "@flowfabric/core";
import fc from "fast-check";
import { expect, test } from "vitest";

import { named, readVectors } from "./vectors.js";

const vectors = readVectors<{
  good: {
    backend: string;
    kind: HandleKind;
    payload: HandlePayload;
    hex: string;
  }[];
  corrupt: { name: string; hex: string; field: string }[];
}>("handles");

const bytesOf = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));

function refusalOf(call: () => unknown) {
  try {
    call();
  } catch (error) {
    if (isEngineError(error)) return { code: error.code, detail: error.detail };
    throw error;
  }
  throw new Error("expected a refusal");
}

test.each(
  vectors.good.map((one) => [`${one.backend} ${one.kind}`, one] as const),
)("%s", (_name, one) => {
  const { backend, kind, payload, hex } = one;
  const handle = encodeHandle(backend, kind, payload);
  expect(handle).toMatchObject({ backend, kind });
  expect(Buffer.from(handle.opaque).toString("hex")).toBe(hex);
  expect(
    decodeHandle({ backend, kind, opaque: bytesOf(hex) }, backend),
  ).toEqual(payload);
});

test.each(named(vectors.corrupt))("%s is corruption", (_name, one) => {
  const handle = {
    backend: "sqlite",
    kind: "fresh" as const,
    opaque: bytesOf(one.hex),
  };
  expect(refusalOf(() => decodeHandle(handle, "sqlite"))).toMatchObject({
    code: "corruption",
    detail: { context: "handle_codec", field: one.field },
  });
});

test("a handle of another store is told apart by its label and by its bytes", () => {
  const { payload, kind } = vectors.good[0]!;
  const valkey = encodeHandle("valkey", kind, payload);
  const wrong = {
    code: "handle_from_other_backend",
    detail: { expected: "sqlite", actual: "valkey" },
  };
  expect(refusalOf(() => decodeHandle(valkey, "sqlite"))).toEqual(wrong);
  const relabelled = { ...valkey, backend: "sqlite" };
  expect(refusalOf(() => decodeHandle(relabelled, "sqlite"))).toEqual(wrong);
  const mislabelled = { ...valkey, backend: "postgres" };
  expect(refusalOf(() => decodeHandle(mislabelled, "valkey"))).toEqual({
    code: "handle_from_other_backend",
    detail: { expected: "valkey", actual: "postgres" },
  });
});

const payloads = fc.record({
  executionId: fc
    .tuple(fc.nat(0xffff), fc.uuid())
    .map(([partition, uuid]) => `{fp:${partition}}:${uuid}`),
  attemptIndex: fc.integer({ min: 0, max: 0xffff_ffff }),
  attemptId: fc.uuid(),
  leaseId: fc.uuid(),
  leaseEpoch: fc.maxSafeNat(),
  leaseTtlMs: fc.maxSafeNat(),
  laneId: fc.string({ minLength: 1, maxLength: 64, unit: "grapheme-ascii" }),
  workerInstanceId: fc.string({
    minLength: 1,
    maxLength: 40,
    unit: "grapheme",
  }),
}) as unknown as fc.Arbitrary<HandlePayload>;

test("what stands in a text for bytes that are none may be part of it", () => {
  const payload = {
    ...vectors.good[0]!.payload,
    workerInstanceId: "\ufffd",
  } as HandlePayload;
  const handle = encodeHandle("sqlite", "fresh", payload);
  expect(decodeHandle(handle, "sqlite")).toEqual(payload);
});

test("every handle is read back as it was made", () => {
  fc.assert(
    fc.property(
      fc.constantFrom("valkey", "postgres", "sqlite", "mine"),
      fc.constantFrom(...HANDLE_KINDS),
      payloads,
      (backend, kind, payload) => {
        const handle = encodeHandle(backend, kind, payload);
        expect(decodeHandle(handle, backend)).toEqual(payload);
      },
    ),
  );
});

test("cut short or lengthened, no handle is read", () => {
  fc.assert(
    fc.property(payloads, fc.nat(), (payload, at) => {
      const handle = encodeHandle("sqlite", "fresh", payload);
      const { opaque } = handle;
      const cut = opaque.slice(0, at % opaque.length);
      const longer = Uint8Array.from([...opaque, 0]);
      for (const changed of [cut, longer])
        expect(
          refusalOf(() =>
            decodeHandle({ ...handle, opaque: changed }, "sqlite"),
          ).code,
        ).toBe("corruption");
    }),
  );
});

test("random bytes are refused with a code, never with anything else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (opaque) => {
      const { code } = refusalOf(() =>
        decodeHandle({ backend: "sqlite", kind: "fresh", opaque }, "sqlite"),
      );
      expect(["corruption", "handle_from_other_backend"]).toContain(code);
    }),
  );
});
