import {
  ATTEMPT_STATES,
  BLOCKING_REASONS,
  derivePublicState,
  EVENT_TYPES,
  HOME,
  HOMES,
  isRunnableHome,
  isTerminalHome,
  packState,
  unpackState,
  vectorOf,
  WAITPOINT_STATES,
  type AttemptState,
  type BlockingReason,
  type Home,
  type StateVector,
} from "@flowfabric/core";
import { expect, test } from "vitest";

import { named, readVectors } from "./vectors.js";

const vectors = readVectors<{
  publicState: (Parameters<typeof derivePublicState>[0] & {
    publicState: string;
  })[];
  homes: {
    home: Home;
    name: keyof typeof HOME;
    reason: BlockingReason;
    attemptState: AttemptState;
    vector: StateVector;
    publicState: string;
    packed: number;
  }[];
  notPacked: number[];
}>("state");

test.each(named(vectors.publicState))(
  "public state of %s",
  (_name, { publicState, ...vector }) => {
    expect(derivePublicState(vector)).toBe(publicState);
  },
);

test.each(named(vectors.homes))("%s", (_name, one) => {
  expect(HOME[one.name]).toBe(one.home);
  expect(vectorOf(one.home, one.reason, one.attemptState)).toEqual(one.vector);
  expect(HOMES[one.home].publicState).toBe(one.publicState);
  expect(derivePublicState(one.vector)).toBe(one.publicState);
  expect(packState(one.home, one.reason, one.attemptState)).toBe(one.packed);
  expect(unpackState(one.packed)).toEqual(one.vector);
  expect(isTerminalHome(one.home)).toBe(
    one.vector.lifecyclePhase === "terminal",
  );
  expect(isRunnableHome(one.home)).toBe(
    one.vector.lifecyclePhase === "runnable",
  );
});

test("every home has a case", () => {
  expect(new Set(vectors.homes.map((one) => one.home))).toEqual(
    new Set(Object.values(HOME)),
  );
});

test("names keep the numbers that they are stored as", () => {
  const codes =
    readVectors<
      Record<
        "events" | "waitpointStates" | "blockingReasons" | "attemptStates",
        Record<string, number>
      >
    >("codes");
  const numbered = (names: readonly string[]) =>
    Object.fromEntries(names.map((name, number) => [name, number]));
  // What is made when read has no number.
  const { trimmed: _trimmed, ...events } = numbered(EVENT_TYPES);
  expect(codes).toEqual({
    events,
    waitpointStates: numbered(WAITPOINT_STATES),
    blockingReasons: numbered(BLOCKING_REASONS),
    attemptStates: numbered(ATTEMPT_STATES),
  });
});

test.each(vectors.notPacked)("%d is no packed state", (packed) => {
  expect(unpackState(packed)).toBeUndefined();
});

test("packing keeps apart every combination", () => {
  const packed = new Set<number>();
  let combinations = 0;
  for (const home of Object.values(HOME))
    for (const reason of BLOCKING_REASONS)
      for (const attemptState of ATTEMPT_STATES) {
        combinations += 1;
        packed.add(packState(home, reason, attemptState));
      }
  expect(packed.size).toBe(combinations);
});
