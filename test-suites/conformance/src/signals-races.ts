import { isEngineError, type EngineBackend } from "@flowfabric/core";
import { expect } from "vitest";

import { eventTypes } from "./assertions.js";
import { HOUR_MS, running, taken } from "./builders.js";
import { group } from "./harness.js";
import { scaled } from "./settings.js";
import {
  count,
  effectOf,
  keyed,
  onPending,
  signalInput,
  suspended,
  waitpointOf,
  type Suspended,
} from "./suspension-builders.js";

/** What a race was answered with: its effect, or the refusal's code. */
async function raced(call: Promise<unknown>): Promise<string> {
  try {
    const answer = (await call) as string | { kind: string };
    return typeof answer === "string" ? answer : answer.kind;
  } catch (error) {
    if (!isEngineError(error)) throw error;
    return `!${error.code}`;
  }
}

/** A round waits more than it works. */
const RACES_AT_ONCE = 20;
const SATISFIED = "resume_condition_satisfied";
const TOO_LATE = ["!waitpoint_closed", "!target_not_signalable"];

export const signalRacesConformance = group("signals racing", (test) => {
  test("of a thousand that would satisfy, one does", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    const { target, executionId, handle } = await suspended(backend);
    const answers = await Promise.all(
      Array.from({ length: 1_000 }, (_unused, n) =>
        raced(effectOf(n % 2 === 0 ? backend : other, target)),
      ),
    );
    expect(answers.filter((answer) => answer === SATISFIED)).toHaveLength(1);
    for (const answer of answers)
      expect([SATISFIED, ...TOO_LATE]).toContain(answer);
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "suspended",
      "signal",
    ]);
    expect(await backend.observeSignals({ handle })).toHaveLength(1);
  });

  test("signals that race the suspend are all delivered, in order, once each", async (bench) => {
    const { backend } = bench;
    const other = await bench.reopen();
    await keyed(backend);
    for (let round = 0; round < scaled(20, 3); round++) {
      const claimed = await running(backend, {}, { leaseTtlMs: HOUR_MS });
      const { executionId, handle, laneId } = claimed;
      const target = await waitpointOf(backend, claimed, "a", HOUR_MS);
      const inputs = Array.from({ length: 100 }, () => signalInput(target));
      const signals = inputs.map((input, n) =>
        (n % 2 === 0 ? backend : other).deliverSignal(input),
      );
      const suspend = backend.suspend({
        handle,
        ...onPending(target, {
          resumeCondition: count(100, "distinctSignals", ["a"]),
        }),
      });
      const answers = await Promise.all(signals);
      const { kind } = await suspend;
      expect(new Set(answers.map((answer) => answer.kind))).toEqual(
        new Set(["accepted"]),
      );
      const own = kind === "suspended" ? await taken(backend, laneId) : claimed;
      const observed = await backend.observeSignals(own);
      const { events } = await backend.readEvents({ executionId });
      const accepted = events.flatMap(({ type, data }) =>
        type === "signal" ? [data!["signalId"]] : [],
      );
      expect(observed.map(({ signalId }) => signalId)).toEqual(accepted);
      expect(new Set(accepted)).toEqual(
        new Set(inputs.map(({ signalId }) => signalId)),
      );
      expect(accepted).toHaveLength(100);
    }
  });

  const against: Record<
    string,
    {
      call: (backend: EngineBackend, executionId: string) => Promise<unknown>;
      won: string;
      lost: string;
      state: string;
    }
  > = {
    "its timeout": {
      call: (backend, executionId) => backend.expireSuspension({ executionId }),
      won: "applied",
      lost: "notSuspendedCleaned",
      state: "failed",
    },
    "a cancellation": {
      call: (backend, executionId) =>
        backend.cancelExecution({ executionId, reason: "r" }),
      won: "cancelled",
      // What a signal has made runnable can be cancelled still.
      lost: "cancelled",
      state: "cancelled",
    },
    "an operator": {
      call: (backend, executionId) => backend.resumeExecution({ executionId }),
      won: "resumed",
      lost: "!execution_not_suspended",
      state: "waiting",
    },
  };
  for (const [what, { call, won, lost, state }] of Object.entries(against))
    test(
      `the last vote against ${what} ends in exactly one of both`,
      { timeoutMs: 180_000 },
      async (bench) => {
        const { backend } = bench;
        const other = await bench.reopen();
        await keyed(backend);
        const timeoutAtMs = (await backend.serverTimeMs()) + HOUR_MS;
        const begin = async (): Promise<Suspended> => {
          const held = await suspended(backend, {
            keys: ["a", "b", "c"],
            resumeCondition: count(2, "distinctWaitpoints", ["a", "b", "c"]),
            timeoutAtMs: timeoutAtMs + passedMs,
          });
          await effectOf(backend, held.targets[0]!);
          return held;
        };
        const race = async (
          { executionId, targets }: Suspended,
          round: number,
        ) => {
          const calls = [
            () => raced(effectOf(backend, targets[1]!)),
            () => raced(call(other, executionId)),
          ];
          const [vote, rival] =
            round % 2 === 0
              ? await Promise.all([calls[0]!(), calls[1]!()])
              : (await Promise.all([calls[1]!(), calls[0]!()])).reverse();
          const after = await backend.readExecutionState({ executionId });
          if (vote === SATISFIED) {
            expect(rival, what).toBe(lost);
            expect(after).toBe(lost === won ? state : "waiting");
          } else {
            expect(TOO_LATE).toContain(vote);
            expect(rival, what).toBe(won);
            expect(after).toBe(state);
          }
          const { entries } = await backend.listPendingWaitpoints({
            executionId,
          });
          expect(entries).toEqual([]);
          // Told once as well, whatever was answered.
          const { events } = await backend.readEvents({ executionId });
          const ways = events.filter(
            ({ fromState, toState }) =>
              fromState?.lifecyclePhase === "suspended" &&
              toState?.lifecyclePhase !== "suspended",
          );
          expect(ways.map(({ type }) => type)).toHaveLength(1);
        };
        const rounds = scaled(500, 100);
        let passedMs = 0;
        for (let round = 0; round < rounds; round += RACES_AT_ONCE) {
          const batch = Array.from(
            { length: Math.min(RACES_AT_ONCE, rounds - round) },
            begin,
          );
          const held = await Promise.all(batch);
          // All are due at once, with no claim left beside which the engine would see to it.
          await bench.passTime(2 * HOUR_MS);
          passedMs += 2 * HOUR_MS;
          await Promise.all(held.map((one, at) => race(one, round + at)));
        }
      },
    );
});
