import {
  decodeHandle,
  encodeHandle,
  type ErrorCode,
  type ResumeCondition,
} from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused, expectRefusedUnchanged } from "./assertions.js";
import {
  LEASE_TTL_MS,
  revoked,
  running,
  taken,
  UNKNOWN_ID,
  uuid,
} from "./builders.js";
import { group } from "./harness.js";
import {
  allOf,
  count,
  keyed,
  onPending,
  single,
  suspendArgs,
  suspended,
  waitpointOf,
  type SuspendArgs,
} from "./suspension-builders.js";

const fresh = (waitpointKey?: string) =>
  ({
    kind: "fresh",
    waitpointId: uuid(),
    ...(waitpointKey === undefined ? {} : { waitpointKey }),
  }) as SuspendArgs["waitpoints"][number];
const pending = () => ({ kind: "usePending", waitpointId: uuid() }) as never;

/** What each fault is told as, in the order in which one hides another. */
const FAULTS: readonly (readonly [
  reason: string,
  waitpoints: () => SuspendArgs["waitpoints"],
  condition: ResumeCondition,
])[] = [
  ["waitpoints_empty", () => [], single("a")],
  ["waitpoint_key_mismatch", () => [fresh("b"), pending()], single("a")],
  ["waitpoint_key_mismatch", () => [fresh()], single("a")],
  [
    "additional_waitpoint_binding_must_be_fresh at waitpoints[2]",
    () => [fresh("a"), fresh(""), pending()],
    allOf(single("a")),
  ],
  [
    "additional_waitpoint_binding_empty_key at waitpoints[1]",
    () => [pending(), fresh("")],
    allOf(single("a")),
  ],
  [
    "use_pending_with_extras_unsupported",
    () => [pending(), fresh("b")],
    allOf(single("q")),
  ],
  [
    "referenced_waitpoint_key_missing_binding: q",
    () => [fresh("a"), fresh("b")],
    allOf(single("a"), single("q")),
  ],
  [
    "extra_binding_not_referenced_by_condition: b",
    () => [fresh("a"), fresh("b"), fresh("a")],
    allOf(single("a")),
  ],
  [
    "extra_binding_not_referenced_by_condition: b",
    () => [fresh("a"), fresh("b")],
    { kind: "operatorOnly" },
  ],
  [
    "duplicate_waitpoint_binding",
    () => [fresh("a"), fresh("a")],
    allOf(single("a", "")),
  ],
  [
    "resume_condition: empty signal name",
    () => [fresh("a")],
    allOf(single("a", ""), single("a", "__x")),
  ],
  [
    "reserved_signal_name",
    () => [fresh("a")],
    allOf(single("a", "__x"), allOf()),
  ],
  [
    "allof_empty_members at path members[1]",
    () => [fresh("a")],
    allOf(single("a"), allOf()),
  ],
  [
    "count_n_zero at path <root>",
    () => [fresh("a")],
    count(0, "distinctSignals", ["a"]),
  ],
  [
    "count_exceeds_waitpoint_set: n=2 > waitpoints.len()=1 at path <root>",
    () => [fresh("a")],
    count(2, "distinctWaitpoints", ["a"]),
  ],
  [
    "condition_depth_exceeded: depth 5 exceeds cap 4 at path members[0].members[0].members[0].members[0]",
    () => [fresh("a")],
    allOf(allOf(allOf(allOf(allOf(single("a")))))),
  ],
];

/** In which order what is wrong with a suspend is told; nothing of it leaves a trace. */
export const suspendRefusalsConformance = group("suspends refused", (test) => {
  test("what is wrong with waitpoints and condition is told before anything is read", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, handle, fence } = claimed;
    for (const [reason, waitpoints, resumeCondition] of FAULTS) {
      const args = suspendArgs({ waitpoints: waitpoints(), resumeCondition });
      await expectRefused(
        backend.suspend({ handle, ...args }),
        "invalid_input",
        { reason },
      );
      await expectRefusedUnchanged(
        backend,
        executionId,
        () =>
          backend.suspendByTriple({ executionId: UNKNOWN_ID, fence, ...args }),
        "invalid_input",
        { reason },
      );
    }
    for (const change of [
      { suspensionId: "x" },
      { reasonCode: "bored" },
      { timeoutBehavior: "panic" },
      { continuationMetadataPointer: "x".repeat(4_097) },
      { idempotencyKey: "é".repeat(129) },
      { resumePolicy: { resumeDelayMs: -1 } },
      { resumeCondition: count(10_001, "distinctSignals", ["approve"]) },
    ])
      await expectRefused(
        backend.suspend({ handle, ...suspendArgs(), ...(change as object) }),
        "invalid_input",
      );
    expect(await backend.readExecutionState({ executionId })).toBe("active");
  });

  test("a fresh waitpoint without a key is named after its id", async ({
    backend,
  }) => {
    const waitpointId = uuid();
    const { outcome } = await suspended(backend, {
      waitpoints: [{ kind: "fresh", waitpointId }],
      resumeCondition: single(`wpk:${waitpointId}`),
    });
    expect(outcome.details.waitpointKey).toBe(`wpk:${waitpointId}`);
  });

  test("a handle that suspended is told so first of all", async ({
    backend,
  }) => {
    const { handle } = await suspended(backend);
    await expectRefused(
      backend.suspend({
        handle: { ...handle, backend: "elsewhere" },
        ...suspendArgs(),
        waitpoints: [],
      }),
      "already_suspended",
    );
  });

  test("timeouts long past are mistakes, and without one nothing can wait for it", async ({
    backend,
  }) => {
    await keyed(backend);
    const { handle, executionId } = await running(backend);
    const now = await backend.serverTimeMs();
    const suspend = (change: Partial<SuspendArgs>) => () =>
      backend.suspend({ handle, ...suspendArgs(change) });
    await expectRefusedUnchanged(
      backend,
      executionId,
      suspend({ timeoutAtMs: now - 600_001 }),
      "invalid_input",
      { reason: "timeout_at_in_past" },
    );
    await expectRefusedUnchanged(
      backend,
      executionId,
      suspend({ resumeCondition: { kind: "timeoutOnly" } }),
      "invalid_input",
      { reason: "timeout_only_without_deadline" },
    );
    await suspend({ timeoutAtMs: now - 500_000 })();
    expect(await backend.expireSuspension({ executionId })).toEqual({
      kind: "applied",
      behavior: "fail",
    });
  });

  test("then the handle, the lease and the attempt, each in its turn", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const suspend = (
      { handle }: { handle: Awaited<ReturnType<typeof running>>["handle"] },
      change: Partial<SuspendArgs> = {},
    ) => backend.suspend({ handle, ...suspendArgs(change) });
    const live = await running(backend);
    await expectRefused(
      suspend({ handle: { ...live.handle, backend: "elsewhere" } }),
      "handle_from_other_backend",
    );
    const label = backend.backendLabel();
    const ofAnotherAttempt = {
      handle: encodeHandle(label, "fresh", {
        ...decodeHandle(live.handle, label),
        attemptIndex: 5,
      }),
    };
    await expectRefusedUnchanged(
      backend,
      live.executionId,
      () => suspend(ofAnotherAttempt),
      "invalid_lease_for_suspend",
    );
    await expectRefused(
      backend.createWaitpoint({
        ...ofAnotherAttempt,
        waitpointKey: "a",
        expiresInMs: 1_000,
      }),
      "stale_lease",
    );
    const done = await running(backend);
    await backend.complete({ handle: done.handle });
    await expectRefusedUnchanged(
      backend,
      done.executionId,
      () => suspend(done),
      "execution_not_active",
      { terminalOutcome: "success", lifecyclePhase: "terminal" },
    );
    const gone = await revoked(bench);
    await expectRefusedUnchanged(
      backend,
      gone.executionId,
      () => suspend(gone),
      "lease_revoked",
    );
    const lapsing = await running(backend);
    await bench.passTime(LEASE_TTL_MS);
    // What is wrong with its waitpoint would come later.
    const unknown = { waitpoints: [pending()] } as never;
    await expectRefused(suspend(lapsing, unknown), "lease_expired");
    const { stateVector } = (await backend.describeExecution(lapsing))!;
    expect(stateVector.ownershipState).toBe("lease_expired_reclaimable");
    const { events } = await backend.readEvents(lapsing);
    expect(events.at(-1)?.type).toBe("lease_expired");
    await taken(backend, lapsing.laneId);
    await expectRefused(suspend(lapsing), "stale_lease");
  });

  test("then the waitpoints", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const claimed = await running(backend, {}, { leaseTtlMs: 900_000 });
    const { executionId, handle, laneId } = claimed;
    const refused = (
      args: SuspendArgs,
      code: ErrorCode,
      detail?: Record<string, unknown>,
    ) =>
      expectRefusedUnchanged(
        backend,
        executionId,
        () => backend.suspend({ handle, ...args }),
        code,
        detail,
      );
    const target = await waitpointOf(backend, claimed, "a", 800_000);
    const on = (change: Partial<SuspendArgs> = {}) =>
      onPending(target, { resumeCondition: single("a"), ...change });
    await refused(on({ waitpoints: [pending()] }), "waitpoint_not_found");
    await refused(on({ resumeCondition: single("b") }), "invalid_input", {
      reason: "waitpoint_key_mismatch",
    });
    await refused(
      on({ resumeCondition: allOf(single("a"), single("b")) }),
      "invalid_input",
      { reason: "referenced_waitpoint_key_missing_binding: b" },
    );
    await refused(
      suspendArgs({
        waitpoints: [
          { kind: "fresh", waitpointId: target.waitpointId, waitpointKey: "a" },
        ],
        resumeCondition: single("a"),
      }),
      "waitpoint_already_exists",
    );
    // Another execution's waitpoints are unknown to it.
    const stranger = await waitpointOf(backend, await running(backend), "a");
    await refused(
      onPending(stranger, { resumeCondition: single("a") }),
      "waitpoint_not_found",
    );
    await backend.rotateWaitpointHmacSecretAll({
      newKid: "k2",
      newSecretHex: "77".repeat(32),
      graceMs: 0,
    });
    await bench.passTime(1);
    await refused(on(), "waitpoint_not_token_bound");

    // One that an earlier attempt made is closed with it.
    await backend.revokeLease({ executionId });
    const next = await taken(backend, laneId);
    await expectRefused(
      backend.suspend({ handle: next.handle, ...on() }),
      "waitpoint_not_pending",
    );
  });

  test("a refused suspend leaves every waitpoint as it was", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, handle } = claimed;
    const used = await waitpointOf(backend, claimed, "b");
    const before = await backend.listPendingWaitpoints({ executionId });
    // The first of two fresh ones would be fine.
    await expectRefusedUnchanged(
      backend,
      executionId,
      () =>
        backend.suspend({
          handle,
          ...suspendArgs({
            keys: ["a", "b"],
            waitpoints: [
              fresh("a"),
              {
                kind: "fresh",
                waitpointId: used.waitpointId,
                waitpointKey: "b",
              },
            ],
          }),
        }),
      "waitpoint_already_exists",
    );
    expect(await backend.listPendingWaitpoints({ executionId })).toEqual(
      before,
    );
  });
});
