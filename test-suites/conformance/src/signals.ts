import { expect } from "vitest";

import {
  everythingAbout,
  expectRefused,
  expectRefusedUnchanged,
} from "./assertions.js";
import {
  bytes,
  HOUR_MS,
  LEASE_TTL_MS,
  running,
  taken,
  UNKNOWN_ID,
  uuid,
} from "./builders.js";
import { group, type Group } from "./harness.js";
import { signalRacesConformance } from "./signals-races.js";
import { signalRepeatsConformance } from "./signals-repeats.js";
import { signalFeedConformance } from "./signals-told.js";
import {
  effectOf,
  keyed,
  onPending,
  signalInput,
  single,
  suspended,
  suspendRunning,
  waitpointOf,
} from "./suspension-builders.js";

const SHA256_HEX = "0".repeat(64);

const delivering = group("signals", (test) => {
  test("a token opens its own waitpoint and no other", async ({ backend }) => {
    const held = await suspended(backend, { keys: ["a", "b"] });
    const other = await suspended(backend);
    const [target, sibling] = held.targets;
    const refused = (change: object) =>
      expectRefused(
        effectOf(backend, { ...target!, ...change }),
        "invalid_token",
      );
    await refused({ token: sibling!.token });
    await refused({ token: other.target.token });
    await refused({ waitpointId: sibling!.waitpointId });
    await refused({ waitpointId: other.target.waitpointId });
    await refused({ waitpointId: uuid() });
    await refused({ executionId: other.executionId });
    await refused({ executionId: UNKNOWN_ID });
    const text = target!.token.reveal();
    const spoil = (at: number) =>
      `${text.slice(0, at)}${text[at] === "0" ? "1" : "0"}${text.slice(at + 1)}`;
    await Promise.all(
      Array.from(text, (_character, at) => refused({ token: spoil(at) })),
    );
    expect(await backend.readExecutionState(held)).toBe("suspended");
    expect(await effectOf(backend, target!)).toBe("appended_to_waitpoint");
  });

  test("a token of the wrong form is refused by its form", async ({
    backend,
  }) => {
    const { target } = await suspended(backend);
    const text = target.token.reveal();
    const [kid, digest] = text.split(":") as [string, string];
    const send = (token: string | undefined) =>
      backend.deliverSignal({
        ...signalInput(target),
        waitpointToken: token,
      });
    await expectRefused(send(""), "missing_token");
    await expectRefused(send(undefined), "missing_token");
    for (const token of [
      `${kid}${digest}`,
      `:${digest}`,
      `${kid}:`,
      `${kid}:${digest.slice(0, 40)}`,
      `${kid}:${digest.slice(1)}`,
      `${kid}:${digest}0`,
      `${kid}:${digest.toUpperCase()}`,
      `nobody:${digest}`,
      `${kid}:${SHA256_HEX}`,
      `${kid}::${digest}`,
      "nonsense",
    ])
      await expectRefused(send(token), "invalid_token");
    // Handed over as text or as it was given out.
    expect((await send(text)).kind).toBe("accepted");
  });

  test("a refused token tells nothing of what exists, and leaves the note of it only", async (bench) => {
    const { backend } = bench;
    const held = await suspended(backend);
    const { executionId, target, laneId } = held;
    const bad = { token: `k1:${SHA256_HEX}` as never };
    const targets = [
      { ...target, ...bad },
      { ...target, ...bad, waitpointId: uuid() },
      { ...target, ...bad, executionId: UNKNOWN_ID as never },
    ];
    const refuseAll = async () => {
      for (const one of targets)
        await expectRefused(effectOf(backend, one), "invalid_token", {});
    };
    const withoutNote = async () => {
      const about = (await everythingAbout(backend, executionId)) as {
        snapshot: { lastHmacValidationFailedAtMs?: number };
      };
      const { lastHmacValidationFailedAtMs: notedAtMs, ...snapshot } =
        about.snapshot;
      return { notedAtMs, rest: { ...about, snapshot } };
    };
    const before = await withoutNote();
    expect(before.notedAtMs).toBeUndefined();
    await refuseAll();
    const first = await withoutNote();
    expect(first.rest).toEqual(before.rest);
    expect(first.notedAtMs).toBeGreaterThan(0);
    // At most once per second.
    await bench.passTime(2_000);
    await refuseAll();
    expect((await withoutNote()).notedAtMs).toBeGreaterThan(first.notedAtMs!);

    await effectOf(backend, target);
    await refuseAll();
    const claimed = await taken(backend, laneId);
    await refuseAll();
    await backend.complete({ handle: claimed.handle });
    await refuseAll();
  });

  test("the form of a signal is looked at before its token", async ({
    backend,
  }) => {
    const { target } = await suspended(backend, {
      resumeCondition: { kind: "operatorOnly" },
    });
    const bad = { ...target, token: "" as never };
    const long = "é".repeat(129);
    for (const change of [
      { signalId: "x" },
      { signalName: "" },
      { signalName: long },
      { signalName: "__timeout" },
      { signalCategory: long },
      { sourceType: long },
      { sourceIdentity: long },
      { correlationId: long },
      { payloadEncoding: long },
      { idempotencyKey: long },
      { dedupTtlMs: -1 },
      { resumeDelayMs: -1 },
      { maxSignalsPerExecution: -1 },
    ])
      await expectRefused(effectOf(backend, bad, change), "invalid_input");
    await expectRefused(effectOf(backend, bad), "missing_token");
    const widest = "é".repeat(128);
    expect(
      await effectOf(backend, target, {
        signalName: widest,
        signalCategory: widest,
        sourceType: widest,
        sourceIdentity: widest,
        correlationId: widest,
        idempotencyKey: widest,
      }),
    ).toBe("no_op");
  });

  test(
    "payloads are as large as the store takes, and not one byte larger",
    { open: { maxPayloadBytes: 65_536 } },
    async ({ backend }) => {
      const { target, handle } = await suspended(backend);
      await expectRefused(
        effectOf(backend, target, { payload: new Uint8Array(65_537) }),
        "payload_too_large",
        { maxBytes: 65_536, actualBytes: 65_537 },
      );
      const payload = Uint8Array.from(
        { length: 65_536 },
        (_unused, at) => at * 31,
      );
      await effectOf(backend, target, { payload });
      const [observed] = await backend.observeSignals({ handle });
      expect(Buffer.compare(observed!.payload!, payload)).toBe(0);
    },
  );

  test("a signal satisfies once, and what comes then is too late", async ({
    backend,
  }) => {
    const { target, executionId, laneId } = await suspended(backend);
    const input = signalInput(target);
    expect(await backend.deliverSignal(input)).toEqual({
      kind: "accepted",
      signalId: input.signalId,
      effect: "resume_condition_satisfied",
    });
    const { events } = await backend.readEvents({ executionId });
    expect(events.at(-1)).toMatchObject({
      type: "signal",
      actor: "client",
      reason: "go",
      toState: {
        lifecyclePhase: "runnable",
        attemptState: "attempt_interrupted",
      },
    });
    await expectRefusedUnchanged(
      backend,
      executionId,
      () => effectOf(backend, target),
      "waitpoint_closed",
    );
    const claimed = await taken(backend, laneId);
    await expectRefused(effectOf(backend, target), "waitpoint_closed");
    await backend.complete({ handle: claimed.handle });
    await expectRefused(effectOf(backend, target), "target_not_signalable");
  });

  test("signals are counted over all waitpoints, and there is a last one", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend, {
      policy: { maxSignalsPerExecution: 4 },
    });
    const { executionId } = claimed;
    const early = await waitpointOf(backend, claimed, "a");
    await effectOf(backend, early);
    await effectOf(backend, early);
    const held = await suspendRunning(backend, claimed, {
      resumeCondition: { kind: "operatorOnly" },
    });
    await effectOf(backend, held.target);
    await expectRefused(
      effectOf(backend, held.target, { maxSignalsPerExecution: 3 }),
      "signal_limit_exceeded",
      { limit: 3 },
    );
    // A sender cannot raise it.
    expect(
      await effectOf(backend, held.target, { maxSignalsPerExecution: 100 }),
    ).toBe("no_op");
    for (const target of [held.target, early])
      await expectRefused(
        effectOf(backend, target, { maxSignalsPerExecution: 0 }),
        "signal_limit_exceeded",
        { limit: 4 },
      );
    const { entries } = await backend.listPendingWaitpoints({ executionId });
    expect(
      Object.fromEntries(
        entries.map((one) => [
          one.waitpointKey,
          [one.signalCount, one.matchedSignalCount],
        ]),
      ),
    ).toEqual({ a: [2, 0], approve: [2, 0] });
    expect(entries[0]!.lastSignalAtMs).toBeGreaterThan(0);
    // What is closed is told before what is full.
    await backend.resumeExecution({ executionId });
    await expectRefused(effectOf(backend, held.target), "waitpoint_closed");
  });

  test("a signal may come while the attempt is lost, and what time changed is written first", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId } = claimed;
    const target = await waitpointOf(backend, claimed, "a", HOUR_MS);
    await bench.passTime(LEASE_TTL_MS);
    expect(await effectOf(backend, target)).toBe(
      "buffered_for_pending_waitpoint",
    );
    const { events } = await backend.readEvents({ executionId });
    expect(events.map(({ type }) => type)).toEqual([
      "created",
      "claimed",
      "lease_expired",
      "signal",
    ]);
  });

  test("operators need no token, but the right names", async (bench) => {
    const { backend } = bench;
    const held = await suspended(backend, {
      resumeCondition: single("approve", "approved"),
    });
    const { executionId, target, laneId, handle } = held;
    const { waitpointId } = target;
    const approve = (change: object = {}) =>
      backend.deliverApprovalSignal({
        executionId,
        laneId,
        waitpointId,
        signalName: "approved",
        idempotencySuffix: "1",
        ...change,
      });
    await expectRefused(
      approve({ executionId: UNKNOWN_ID }),
      "execution_not_found",
    );
    await expectRefused(approve({ laneId: "elsewhere" }), "invalid_input");
    await expectRefused(
      approve({ waitpointId: uuid() }),
      "waitpoint_not_found",
    );
    await expectRefused(approve({ signalName: "__approved" }), "invalid_input");
    await expectRefused(approve({ idempotencySuffix: "" }), "invalid_input");
    expect(await approve({ signalName: "rejected" })).toMatchObject({
      kind: "accepted",
      effect: "no_op",
    });
    // Long after tokens of this key are worth nothing.
    await backend.rotateWaitpointHmacSecretAll({
      newKid: "k2",
      newSecretHex: "77".repeat(32),
      graceMs: 0,
    });
    await bench.passTime(1_000);
    const answer = await approve();
    expect(answer).toMatchObject({
      kind: "accepted",
      effect: "resume_condition_satisfied",
    });
    const { signalId } = answer as { signalId: string };
    expect(await approve()).toEqual({
      kind: "duplicate",
      existingSignalId: signalId,
    });
    await expectRefused(
      approve({ idempotencySuffix: "2" }),
      "waitpoint_closed",
    );
    const [observed] = await backend.observeSignals({ handle });
    expect(observed).toMatchObject({
      signalId,
      signalCategory: "approval",
      sourceType: "operator",
      sourceIdentity: "",
    });
    expect(observed).not.toHaveProperty("payload");
  });

  test("with the execution its signals are purged", async (bench) => {
    const { backend } = bench;
    const { target, executionId } = await suspended(
      backend,
      { keys: ["a", "b"] },
      { policy: { streamPolicy: { retentionTtlMs: 0 } } },
    );
    await effectOf(backend, target, {
      payload: bytes("x"),
      idempotencyKey: "k",
    });
    await backend.cancelExecution({ executionId, reason: "r" });
    while ((await backend.sweep({ name: "retention_trimmer" })).more);
    await expectRefused(effectOf(backend, target), "invalid_token");
    await expectRefused(
      backend.listPendingWaitpoints({ executionId }),
      "execution_not_found",
    );
    expect(await backend.reconcileExecutionIndex({})).toEqual({
      processed: 0,
      errors: 0,
    });
  });

  test("a pending waitpoint does not suspend anybody", async ({ backend }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const target = await waitpointOf(backend, claimed, "a");
    expect(await effectOf(backend, target)).toBe(
      "buffered_for_pending_waitpoint",
    );
    expect(await backend.observeSignals(claimed)).toEqual([]);
    await backend.renew({ handle: claimed.handle });
    await expectRefused(
      backend.suspend({
        handle: claimed.handle,
        ...onPending(target, { resumeCondition: single("b") }),
      }),
      "invalid_input",
    );
  });
});

/** Messages from outside, each counted once. */
export const signalsConformance: Group = (harness, registrar) => {
  delivering(harness, registrar);
  signalRepeatsConformance(harness, registrar);
  signalRacesConformance(harness, registrar);
  signalFeedConformance(harness, registrar);
};
