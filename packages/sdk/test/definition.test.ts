import { expect, test } from "vitest";
import { z } from "zod";

import { jsonCodec } from "../src/codec.js";
import { defineExecution, isDefinition } from "../src/definition.js";
import { ConfigError } from "../src/errors.js";

test.each([
  ["kind", { kind: "", input: z.string() }],
  ["kind", { kind: "x".repeat(257), input: z.string() }],
  ["lane_id", { kind: "k", input: z.string(), laneId: "grün" }],
  ["input", { kind: "k", input: {} as never }],
  ["output", { kind: "k", input: z.string(), output: 7 as never }],
])("a wrong %s is refused", (field, fields) => {
  expect(() => defineExecution(fields)).toThrow(
    expect.objectContaining({
      detail: expect.objectContaining({
        context: "definition",
        field,
      }) as unknown,
    }) as ConfigError,
  );
});

test("a definition is told from a bag of options", () => {
  const definition = defineExecution({ kind: "k", input: z.string() });

  expect(isDefinition(definition)).toBe(true);
  expect(isDefinition({ kind: "k", input: z.string() })).toBe(false);
  expect(isDefinition(undefined)).toBe(false);
});

test("JSON round-trips, and refuses what it would lose", () => {
  const value = { text: "grün 🚀", list: [1, null, true] };

  expect(jsonCodec.decode(jsonCodec.encode(value))).toEqual(value);
  expect(jsonCodec.decode(jsonCodec.encode(null))).toBe(null);
  expect(() => jsonCodec.encode(() => {})).toThrow(TypeError);
  expect(() => jsonCodec.encode(1n)).toThrow(TypeError);
  expect(() => jsonCodec.decode(Uint8Array.of(0xff))).toThrow();
});
