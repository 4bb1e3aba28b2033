import { expect } from "vitest";

import { everythingAbout, expectRefused } from "./assertions.js";
import { taken, uuid } from "./builders.js";
import { group } from "./harness.js";
import {
  allOf,
  count,
  effectOf,
  signalInput,
  single,
  suspended,
  type Suspended,
} from "./suspension-builders.js";

const open = { resumeCondition: { kind: "operatorOnly" } } as const;

/** The same signal twice is one signal. */
export const signalRepeatsConformance = group("signals repeated", (test) => {
  test("the winner is recognised after the resume, the claim and the end", async ({
    backend,
  }) => {
    const { target, executionId, laneId } = await suspended(backend);
    const input = signalInput(target, { idempotencyKey: "vote-1" });
    await backend.deliverSignal(input);
    const duplicate = { kind: "duplicate", existingSignalId: input.signalId };
    const repeats = async () => {
      const before = await everythingAbout(backend, executionId);
      for (const again of [
        input,
        { ...input, signalId: uuid() },
        signalInput(target, { signalId: input.signalId }),
      ])
        expect(await backend.deliverSignal(again)).toEqual(duplicate);
      expect(await everythingAbout(backend, executionId)).toEqual(before);
    };
    await repeats();
    const { handle } = await taken(backend, laneId);
    await repeats();
    await backend.complete({ handle });
    await repeats();
    // Another one is told what has become of it, and a repeat without a token is nobody's business.
    await expectRefused(effectOf(backend, target), "target_not_signalable");
    await expectRefused(
      backend.deliverSignal({
        ...input,
        waitpointToken: `k1:${"0".repeat(64)}`,
      }),
      "invalid_token",
    );
  });

  test("a repeat is told before the limit", async ({ backend }) => {
    const { target } = await suspended(backend, open, {
      policy: { maxSignalsPerExecution: 1 },
    });
    const input = signalInput(target);
    await backend.deliverSignal(input);
    expect((await backend.deliverSignal(input)).kind).toBe("duplicate");
    await expectRefused(effectOf(backend, target), "signal_limit_exceeded");
  });

  test("a key is one waitpoint's; on two of them it makes two signals", async ({
    backend,
  }) => {
    const { targets } = await suspended(backend, {
      keys: ["a", "b"],
      resumeCondition: allOf(single("a"), single("b"), {
        kind: "operatorOnly",
      }),
    });
    for (const target of targets)
      expect(await effectOf(backend, target, { idempotencyKey: "k" })).toBe(
        "appended_to_waitpoint",
      );
    for (const target of targets)
      expect(await effectOf(backend, target, { idempotencyKey: "k" })).toBe(
        "duplicate",
      );
    // An id is the execution's.
    const input = signalInput(targets[0]!);
    await backend.deliverSignal(input);
    expect(
      await effectOf(backend, targets[1]!, { signalId: input.signalId }),
    ).toBe("duplicate");
  });

  test("a key is remembered for its time, an id for good", async (bench) => {
    const { backend } = bench;
    const { target } = await suspended(backend, open);
    const input = signalInput(target, {
      idempotencyKey: "k",
      dedupTtlMs: 5_000,
    });
    await backend.deliverSignal(input);
    const again = { idempotencyKey: "k", dedupTtlMs: 5_000 };
    await bench.passTime(4_000);
    expect(await effectOf(backend, target, again)).toBe("duplicate");
    await bench.passTime(1_000);
    const second = signalInput(target, again);
    expect((await backend.deliverSignal(second)).kind).toBe("accepted");
    expect(await backend.deliverSignal(signalInput(target, again))).toEqual({
      kind: "duplicate",
      existingSignalId: second.signalId,
    });
    expect((await backend.deliverSignal(input)).kind).toBe("duplicate");

    const unkept = { idempotencyKey: "u", dedupTtlMs: 0 };
    expect(await effectOf(backend, target, unkept)).toBe("no_op");
    expect(await effectOf(backend, target, unkept)).toBe("no_op");
    expect(await effectOf(backend, target, { idempotencyKey: "" })).toBe(
      "no_op",
    );
    expect(await effectOf(backend, target, { idempotencyKey: "" })).toBe(
      "no_op",
    );
  });

  test("a repeated signal counts for nothing more", async ({ backend }) => {
    const { target }: Suspended = await suspended(backend, {
      resumeCondition: count(2, "distinctSignals", ["approve"]),
    });
    const input = signalInput(target, { idempotencyKey: "k" });
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => backend.deliverSignal(input)),
    );
    expect(answers.filter(({ kind }) => kind === "accepted")).toHaveLength(1);
    expect(await effectOf(backend, target)).toBe("resume_condition_satisfied");
  });
});
