import type { ResumeCondition } from "@flowfabric/core";
import fc from "fast-check";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { running, taken } from "./builders.js";
import { group } from "./harness.js";
import { reproducible, scaled } from "./settings.js";
import { conditionTree, keysOf, playVotes, vote } from "./condition-model.js";
import {
  allOf,
  count,
  effectOf,
  keyed,
  onPending,
  signalInput,
  single,
  suspended,
  waitpointOf,
  type Suspended,
} from "./suspension-builders.js";

type Step = readonly [
  key: string,
  effect: string,
  signal?: {
    signalName?: string;
    sourceType?: string;
    sourceIdentity?: string;
  },
];

const SATISFIED = "resume_condition_satisfied";
const APPENDED = "appended_to_waitpoint";
const DUPLICATE = "appended_to_waitpoint_duplicate";
const REFUSED = "signal_ignored_matcher_failed";

/** Conditions, the keys they need, and what signal after signal does. */
const RUNS: readonly (readonly [
  name: string,
  condition: ResumeCondition,
  keys: readonly string[],
  ...steps: Step[],
])[] = [
  [
    "one name",
    single("a", "go"),
    ["a"],
    ["a", "no_op", { signalName: "Go" }],
    ["a", SATISFIED],
  ],
  ["any name", single("a"), ["a"], ["a", SATISFIED, { signalName: "x" }]],
  [
    "all of two keys",
    allOf(single("a", "go"), single("b")),
    ["a", "b"],
    ["b", APPENDED],
    ["b", DUPLICATE, { signalName: "x" }],
    ["a", REFUSED, { signalName: "x" }],
    ["a", SATISFIED],
  ],
  [
    "two names on one key, one signal for two leaves",
    allOf(single("a", "go"), single("a", "x"), single("a")),
    ["a"],
    ["a", APPENDED],
    ["a", DUPLICATE],
    ["a", SATISFIED, { signalName: "x" }],
  ],
  [
    "two distinct signals",
    count(2, "distinctSignals", ["a", "b"], "go"),
    ["a", "b"],
    ["a", APPENDED],
    ["b", REFUSED, { signalName: "x" }],
    ["a", SATISFIED],
  ],
  [
    "two of three waitpoints",
    count(2, "distinctWaitpoints", ["a", "b", "c"]),
    ["a", "b", "c"],
    ["c", APPENDED],
    ["c", DUPLICATE, { sourceIdentity: "x" }],
    ["a", SATISFIED],
  ],
  [
    "three distinct sources, as pairs",
    count(3, "distinctSources", ["a", "b"]),
    ["a", "b"],
    ["a", APPENDED, { sourceType: "a:b", sourceIdentity: "c" }],
    ["b", DUPLICATE, { sourceType: "a:b", sourceIdentity: "c" }],
    ["a", APPENDED, { sourceType: "a", sourceIdentity: "b:c" }],
    ["b", SATISFIED],
  ],
  [
    "two counts of one kind, each with its own",
    allOf(
      count(2, "distinctSources", ["a"]),
      count(1, "distinctSources", ["b"]),
    ),
    ["a", "b"],
    ["a", APPENDED, { sourceIdentity: "x" }],
    ["b", APPENDED, { sourceIdentity: "x" }],
    ["a", DUPLICATE, { sourceIdentity: "x" }],
    ["a", SATISFIED, { sourceIdentity: "y" }],
  ],
  [
    "a count of two keys beside a third key",
    allOf(count(2, "distinctWaitpoints", ["a", "b"]), single("c")),
    ["a", "b", "c"],
    ["a", APPENDED],
    ["c", APPENDED],
    ["c", DUPLICATE],
    ["a", DUPLICATE],
    ["b", SATISFIED],
  ],
  [
    "four levels",
    allOf(allOf(allOf(count(2, "distinctSignals", ["a"])))),
    ["a"],
    ["a", APPENDED],
    ["a", SATISFIED],
  ],
];

async function play(
  backend: Parameters<typeof effectOf>[0],
  { targets, args }: Suspended,
  steps: readonly Step[],
  name: string,
): Promise<void> {
  const keys = args.waitpoints.map(
    (binding) => (binding as { waitpointKey: string }).waitpointKey,
  );
  for (const [key, effect, change] of steps)
    expect(
      await effectOf(backend, targets[keys.indexOf(key)]!, change),
      name,
    ).toBe(effect);
}

export const conditionsConformance = group("resume conditions", (test) => {
  for (const [name, resumeCondition, keys, ...steps] of RUNS)
    test(`${name}: each signal does what it does`, async ({ backend }) => {
      const held = await suspended(backend, { keys, resumeCondition });
      const { executionId } = held;
      await play(backend, held, steps.slice(0, -1), name);
      expect(await backend.readExecutionState({ executionId })).toBe(
        "suspended",
      );
      await play(backend, held, steps.slice(-1), name);
      expect(await backend.readExecutionState({ executionId })).toBe("waiting");
      const contributed = steps.filter(([, effect]) =>
        [SATISFIED, APPENDED].includes(effect),
      );
      const observed = await backend.observeSignals({ handle: held.handle });
      expect(observed).toHaveLength(contributed.length);
    });

  test("what came before counts as what comes later, in every form", async ({
    backend,
  }) => {
    await keyed(backend);
    for (const [name, resumeCondition, keys, ...steps] of RUNS) {
      if (keys.length > 1) continue;
      for (let early = 0; early <= steps.length; early++) {
        const claimed = await running(backend);
        const { handle } = claimed;
        const target = await waitpointOf(backend, claimed, "a");
        for (const [, , change] of steps.slice(0, early))
          expect(await effectOf(backend, target, change)).toBe(
            "buffered_for_pending_waitpoint",
          );
        const { kind } = await backend.suspend({
          handle,
          ...onPending(target, { resumeCondition }),
        });
        expect(kind, `${name}, ${early} before`).toBe(
          early === steps.length ? "alreadySatisfied" : "suspended",
        );
        for (const [, effect, change] of steps.slice(early))
          expect(await effectOf(backend, target, change), name).toBe(effect);
      }
    }
  });

  test("whatever the condition and the order, it is worth what its signals are worth", async ({
    backend,
  }) => {
    await keyed(backend);
    await fc.assert(
      fc.asyncProperty(
        conditionTree.filter((condition) => keysOf(condition).size > 0),
        fc.array(vote, { maxLength: 12 }),
        fc.nat(3),
        (condition, votes, early) =>
          playVotes(backend, condition, votes, early),
      ),
      { ...reproducible(), numRuns: scaled(150, 20) },
    );
  });

  test("for operators and for the timeout no signal is enough, whatever its name", async ({
    backend,
  }) => {
    for (const kind of ["operatorOnly", "timeoutOnly"] as const) {
      const { target, executionId } = await suspended(backend, {
        resumeCondition: { kind },
        timeoutAtMs: (await backend.serverTimeMs()) + 60_000,
      });
      expect(await effectOf(backend, target)).toBe("no_op");
      const marker = {
        operatorOnly: "__operator_only__",
        timeoutOnly: "__timeout_only__",
      }[kind];
      await expectRefused(
        effectOf(backend, target, { signalName: marker }),
        "invalid_input",
      );
      expect(
        (await backend.listPendingWaitpoints({ executionId })).entries,
      ).toMatchObject([{ requiredSignalNames: [marker] }]);
      expect(await backend.readExecutionState({ executionId })).toBe(
        "suspended",
      );
    }
    const { targets, executionId } = await suspended(backend, {
      resumeCondition: allOf(single("approve"), { kind: "operatorOnly" }),
    });
    expect(await effectOf(backend, targets[0]!)).toBe(APPENDED);
    expect(await backend.readExecutionState({ executionId })).toBe("suspended");
  });

  test("a waitpoint says which names count on it", async ({ backend }) => {
    const { executionId } = await suspended(backend, {
      keys: ["a", "b", "c"],
      resumeCondition: allOf(
        single("a", "x"),
        count(1, "distinctSignals", ["a", "b"], "y"),
        single("c"),
        single("c", "z"),
      ),
    });
    const { entries } = await backend.listPendingWaitpoints({ executionId });
    expect(
      entries.map(({ requiredSignalNames }) => requiredSignalNames),
    ).toEqual([["x", "y"], ["y"], []]);
  });

  test("signals that did not count are kept, but nobody is told that they helped", async ({
    backend,
  }) => {
    const { target, executionId, handle, laneId } = await suspended(backend, {
      resumeCondition: single("approve", "go"),
    });
    await effectOf(backend, target, { signalName: "other" });
    const { signalId } = signalInput(target);
    await backend.deliverSignal(signalInput(target, { signalId }));
    expect(await backend.observeSignals({ handle })).toMatchObject([
      { signalId },
    ]);
    const { events } = await backend.readEvents({ executionId });
    expect(
      events.flatMap(({ type, data }) => (type === "signal" ? [data] : [])),
    ).toMatchObject([{ effect: "no_op" }, { effect: SATISFIED, signalId }]);
    await taken(backend, laneId);
  });

  test(
    "ten thousand distinct signals resume with exactly the last one",
    { timeoutMs: 240_000 },
    async ({ backend }) => {
      const n = scaled(10_000, 1_000);
      const { target, executionId, handle } = await suspended(
        backend,
        { resumeCondition: count(n, "distinctSignals", ["approve"]) },
        { policy: { maxSignalsPerExecution: 0 } },
      );
      for (let sent = 0; sent < n - 1;) {
        const batch = Math.min(500, n - 1 - sent);
        const effects = await Promise.all(
          Array.from({ length: batch }, () => effectOf(backend, target)),
        );
        expect(new Set(effects)).toEqual(new Set([APPENDED]));
        sent += batch;
      }
      expect(await backend.readExecutionState({ executionId })).toBe(
        "suspended",
      );
      expect(await effectOf(backend, target)).toBe(SATISFIED);
      expect(await backend.observeSignals({ handle })).toHaveLength(n);
    },
  );
});
