import { expect } from "vitest";

import { eventTypes, everythingAbout, expectRefused } from "./assertions.js";
import { running, taken, UNKNOWN_ID, uuid, type Taken } from "./builders.js";
import { group } from "./harness.js";
import {
  effectOf,
  keyed,
  onPending,
  plain,
  single,
  suspendArgs,
  suspendRunning,
  waitpointOf,
} from "./suspension-builders.js";

const DAY_MS = 86_400_000;

/** A lost reply is not a lost suspend. */
export const suspendRepeatsConformance = group("suspends repeated", (test) => {
  test("the same key by the same lease is answered as the first time, whatever else is asked for", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, handle, fence } = claimed;
    const args = suspendArgs({ keys: ["a", "b"], idempotencyKey: "once" });
    const first = await backend.suspend({ handle, ...args });
    const before = await everythingAbout(backend, executionId);
    const others = suspendArgs({ keys: ["c"], idempotencyKey: "once" });
    for (const repeat of [
      () => backend.suspend({ handle, ...args }),
      () => backend.suspend({ handle, ...others }),
      () => backend.suspendByTriple({ executionId, fence, ...others }),
    ]) {
      expect(plain(await repeat())).toEqual(plain(first));
      expect(await everythingAbout(backend, executionId)).toEqual(before);
    }
    // Also once it has gone on without us.
    await backend.resumeExecution({ executionId });
    const next = await taken(backend, claimed.laneId);
    expect(plain(await backend.suspend({ handle, ...args }))).toEqual(
      plain(first),
    );
    await suspendRunning(backend, next);
    expect(plain(await backend.suspend({ handle, ...args }))).toEqual(
      plain(first),
    );
  });

  test("without a key the suspension's own id does, while it is the last one", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, handle } = claimed;
    const args = suspendArgs();
    const first = await backend.suspend({ handle, ...args });
    expect(plain(await backend.suspend({ handle, ...args }))).toEqual(
      plain(first),
    );
    expect(await eventTypes(backend, executionId)).toEqual([
      "created",
      "claimed",
      "suspended",
    ]);
    await expectRefused(
      backend.suspend({ handle, ...suspendArgs() }),
      "execution_not_active",
      { lifecyclePhase: "suspended" },
    );
    await backend.resumeExecution({ executionId });
    await suspendRunning(backend, await taken(backend, claimed.laneId));
    await expectRefused(
      backend.suspend({ handle, ...args }),
      "execution_not_active",
    );
  });

  test("that nothing had to be waited for is answered again too", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, handle } = claimed;
    const target = await waitpointOf(backend, claimed, "a");
    await effectOf(backend, target);
    const args = onPending(target, {
      resumeCondition: single("a"),
      idempotencyKey: "once",
    });
    const first = await backend.suspend({ handle, ...args });
    expect(first.kind).toBe("alreadySatisfied");
    const before = await everythingAbout(backend, executionId);
    expect(plain(await backend.suspend({ handle, ...args }))).toEqual(
      plain(first),
    );
    expect(await everythingAbout(backend, executionId)).toEqual(before);
  });

  test("neither another lease nor another execution is told of it", async ({
    backend,
  }) => {
    await keyed(backend);
    const claimed = await running(backend);
    const { executionId, fence } = claimed;
    const args = suspendArgs({ idempotencyKey: "once" });
    const first = await backend.suspend({ handle: claimed.handle, ...args });
    const by = (change: object, id: string = executionId) =>
      backend.suspendByTriple({
        executionId: id,
        fence: { ...fence, ...change },
        ...args,
      });
    for (const change of [
      { leaseId: uuid() },
      { leaseEpoch: 2 },
      { attemptId: uuid() },
    ])
      await expectRefused(by(change), "execution_not_active");
    await expectRefused(by({ leaseId: undefined }), "partial_fence_triple");
    await expectRefused(by({}, UNKNOWN_ID), "execution_not_found");

    const other = await running(backend);
    await expectRefused(by({}, other.executionId), "stale_lease");
    const fresh = suspendArgs({ idempotencyKey: "once" });
    const second = await backend.suspend({ handle: other.handle, ...fresh });
    expect(second.details.waitpointId).not.toBe(first.details.waitpointId);

    // A later lease of the same execution suspends anew under the same key.
    await backend.resumeExecution({ executionId });
    const next = await taken(backend, claimed.laneId);
    const third = await backend.suspend({
      handle: next.handle,
      ...suspendArgs({ idempotencyKey: "once" }),
    });
    expect(third.details.waitpointId).not.toBe(first.details.waitpointId);
  });

  test("an outcome is remembered a minute longer than its timeout, a week at most", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const remembers = async (timeoutMs: number | undefined, passMs: number) => {
      const claimed: Taken = await running(backend);
      const { handle, executionId } = claimed;
      const args = suspendArgs({
        idempotencyKey: "once",
        ...(timeoutMs === undefined
          ? {}
          : {
              timeoutAtMs: (await backend.serverTimeMs()) + timeoutMs,
              timeoutBehavior: "autoResume" as const,
            }),
      });
      await backend.suspend({ handle, ...args });
      await backend.resumeExecution({ executionId });
      // Behind it another one, so that only the key leads back.
      await suspendRunning(backend, await taken(backend, claimed.laneId));
      await bench.passTime(passMs);
      return backend.suspend({ handle, ...args }).then(
        () => true,
        () => false,
      );
    };
    expect(await remembers(1_000, 50_000)).toBe(true);
    expect(await remembers(1_000, 61_001)).toBe(false);
    expect(await remembers(undefined, 6 * DAY_MS)).toBe(true);
    expect(await remembers(undefined, 7 * DAY_MS + 1)).toBe(false);
    expect(await remembers(30 * DAY_MS, 7 * DAY_MS + 1)).toBe(false);
  });

  test("once its key was rotated out, a token is not shown again", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const claimed = await running(backend);
    const args = suspendArgs({ idempotencyKey: "once" });
    const suspend = () => backend.suspend({ handle: claimed.handle, ...args });
    await suspend();
    await backend.rotateWaitpointHmacSecretAll({
      newKid: "k2",
      newSecretHex: "77".repeat(32),
      graceMs: 1_000,
    });
    await suspend();
    await bench.passTime(1_001);
    await expectRefused(suspend(), "token_expired");
  });
});
