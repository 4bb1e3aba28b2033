/** What a condition is worth by its definition, from all its signals at once, and a store that must find the same one by one. */
import type { EngineBackend, ResumeCondition } from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { running } from "./builders.js";
import {
  allOf,
  count,
  onPending,
  signalInput,
  single,
  suspendRunning,
  waitpointOf,
  type Target,
} from "./suspension-builders.js";

const KEYS = ["a", "b", "c"];
const NAMES = ["x", "y"];

/** A signal, on one of the waitpoints that there are. */
export const vote = fc.record({
  at: fc.nat(2),
  signalName: fc.constantFrom(...NAMES, "z"),
  sourceType: fc.constantFrom("", "a", "a:b"),
  sourceIdentity: fc.constantFrom("", "b:c", "c"),
});
type Vote = typeof vote extends fc.Arbitrary<infer T> ? T : never;
type Cast = Vote & { readonly key: string };

const keys = fc.subarray(KEYS, { minLength: 1 });
const name = fc.option(fc.constantFrom(...NAMES), { nil: undefined });
const leaf = fc.oneof(
  fc.tuple(fc.constantFrom(...KEYS), name).map((of) => single(...of)),
  fc
    .tuple(
      fc.integer({ min: 1, max: 3 }),
      fc.constantFrom("distinctSignals" as const, "distinctSources" as const),
      keys,
      name,
    )
    .map((of) => count(...of)),
  // More than there are would be refused.
  fc
    .tuple(fc.integer({ min: 1, max: 3 }), keys, name)
    .map(([n, of, named]) =>
      count(Math.min(n, of.length), "distinctWaitpoints", of, named),
    ),
  fc.constant<ResumeCondition>({ kind: "operatorOnly" }),
);

/** Four levels at most, as the contract has it: three of `allOf` and a count. */
export const { conditionTree } = fc.letrec<{ conditionTree: ResumeCondition }>(
  (tie) => ({
    conditionTree: fc.oneof(
      { depthSize: "small", maxDepth: 3, withCrossShrink: true },
      leaf,
      fc
        .array(tie("conditionTree"), { minLength: 1, maxLength: 3 })
        .map((members) => allOf(...members)),
    ),
  }),
);

type Leaf = Extract<
  Extract<ResumeCondition, { kind: "composite" }>["body"],
  { kind: "count" }
>;

/** Every leaf as a count; a single one counts its waitpoint. */
function leavesOf(condition: ResumeCondition): Leaf[] {
  switch (condition.kind) {
    case "operatorOnly":
    case "timeoutOnly":
      return [];
    case "single":
      return [
        {
          kind: "count",
          n: 1,
          countKind: "distinctWaitpoints",
          matcher: condition.matcher,
          waitpoints: [condition.waitpointKey],
        },
      ];
    case "composite":
      return condition.body.kind === "allOf"
        ? condition.body.members.flatMap(leavesOf)
        : [condition.body];
  }
}

export function keysOf(condition: ResumeCondition): Set<string> {
  return new Set(leavesOf(condition).flatMap(({ waitpoints }) => waitpoints));
}

function matches({ matcher, waitpoints }: Leaf, one: Cast): boolean {
  return (
    waitpoints.includes(one.key) &&
    (matcher?.kind !== "byName" || matcher.name === one.signalName)
  );
}

/** What counts for a leaf, each once. */
function satisfiers(of: Leaf, votes: readonly Cast[]): number {
  const matching = votes.filter((one) => matches(of, one));
  return new Set(
    matching.map((one, index) => {
      switch (of.countKind) {
        case "distinctSignals":
          return index;
        case "distinctSources":
          return JSON.stringify([one.sourceType, one.sourceIdentity]);
        case "distinctWaitpoints":
          return one.key;
      }
    }),
  ).size;
}

function isSatisfied(
  condition: ResumeCondition,
  votes: readonly Cast[],
): boolean {
  if (condition.kind === "operatorOnly" || condition.kind === "timeoutOnly")
    return false;
  if (condition.kind === "composite" && condition.body.kind === "allOf")
    return condition.body.members.every((member) => isSatisfied(member, votes));
  return leavesOf(condition).every((one) => satisfiers(one, votes) >= one.n);
}

/**
 * Sends the votes one after the other, the first `early` of them before the suspend where that is possible, and compares
 * every answer with the definition.
 */
export async function playVotes(
  backend: EngineBackend,
  condition: ResumeCondition,
  votes: readonly Vote[],
  early: number,
): Promise<void> {
  const bound = [...keysOf(condition)].sort();
  const cast = votes.map((one) => ({
    ...one,
    key: bound[one.at % bound.length]!,
  }));
  const claimed = await running(backend);
  const { executionId } = claimed;
  const send = async (
    target: Target,
    { at: _at, key: _key, ...rest }: Cast,
  ) => {
    const answer = await backend.deliverSignal(signalInput(target, rest));
    return answer.kind === "accepted" ? answer.effect : answer.kind;
  };

  let sent = 0;
  let targets: readonly Target[];
  if (bound.length === 1 && early > 0) {
    const pending = await waitpointOf(backend, claimed, bound[0]);
    targets = [pending];
    for (; sent < Math.min(early, cast.length); sent++)
      expect(await send(pending, cast[sent]!)).toBe(
        "buffered_for_pending_waitpoint",
      );
    const { kind } = await backend.suspend({
      handle: claimed.handle,
      ...onPending(pending, { resumeCondition: condition }),
    });
    const isEnough = isSatisfied(condition, cast.slice(0, sent));
    expect(kind).toBe(isEnough ? "alreadySatisfied" : "suspended");
    if (isEnough) return;
  } else {
    const held = await suspendRunning(backend, claimed, {
      keys: bound,
      resumeCondition: condition,
    });
    targets = held.targets;
  }

  for (; sent < cast.length; sent++) {
    const one = cast[sent]!;
    const target = targets[bound.indexOf(one.key)]!;
    const isEnough = isSatisfied(condition, cast.slice(0, sent + 1));
    const effect = await send(target, one);
    expect(effect).toBe(effectBy(condition, cast.slice(0, sent), one));
    if (!isEnough) continue;
    expect(await backend.readExecutionState({ executionId })).toBe("waiting");
    await expectRefused(send(target, one), "waitpoint_closed");
    return;
  }
  expect(await backend.readExecutionState({ executionId })).toBe("suspended");
}

/** Specification 05 §6.3. */
function effectBy(
  condition: ResumeCondition,
  before: readonly Cast[],
  one: Cast,
): string {
  if (isSatisfied(condition, [...before, one]))
    return "resume_condition_satisfied";
  if (condition.kind !== "composite") return "no_op";
  const matching = leavesOf(condition).filter((leaf) => matches(leaf, one));
  if (matching.length === 0) return "signal_ignored_matcher_failed";
  const isNew = matching.some(
    (leaf) => satisfiers(leaf, [...before, one]) > satisfiers(leaf, before),
  );
  return isNew ? "appended_to_waitpoint" : "appended_to_waitpoint_duplicate";
}
