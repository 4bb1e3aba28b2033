import type { EngineBackend, RotateSecretInput } from "@flowfabric/core";
import { expect } from "vitest";

import { expectRefused } from "./assertions.js";
import { running, uuid } from "./builders.js";
import { group } from "./harness.js";
import {
  effectOf,
  keyed,
  KID,
  OTHER_SECRET_HEX,
  SECRET_HEX,
  suspendArgs,
  suspended,
  waitpointOf,
} from "./suspension-builders.js";

const THIRD_SECRET_HEX = "3c".repeat(32);

/** Every partition answers this. */
async function expectRotation(
  backend: EngineBackend,
  input: RotateSecretInput,
  result: object,
): Promise<void> {
  const { entries } = await backend.rotateWaitpointHmacSecretAll(input);
  expect(entries.length).toBeGreaterThan(0);
  expect(entries).toEqual(
    entries.map((_entry, partition) => ({ partition, result })),
  );
}

/** The keys that tokens are signed with. */
export const secretsConformance = group("secrets", (test) => {
  test("the first key is installed once, and what is stored wins", async ({
    backend,
  }) => {
    const seed = (kid: string, secretHex: string) =>
      backend.seedWaitpointHmacSecret({ kid, secretHex });
    expect(await backend.listWaitpointHmacKids()).toEqual({ verifying: [] });
    expect(await seed("a", SECRET_HEX)).toEqual({ kind: "seeded", kid: "a" });
    const again = (sameSecret: boolean) => ({
      kind: "alreadySeeded",
      kid: "a",
      sameSecret,
    });
    expect(await seed("a", SECRET_HEX)).toEqual(again(true));
    expect(await seed("a", SECRET_HEX.toUpperCase())).toEqual(again(true));
    expect(await seed("a", OTHER_SECRET_HEX)).toEqual(again(false));
    await expectRefused(seed("b", SECRET_HEX), "invalid_input");
    expect(await backend.listWaitpointHmacKids()).toEqual({
      currentKid: "a",
      verifying: [],
    });
  });

  test("of two first keys at the same time one wins everywhere", async (bench) => {
    const other = await bench.reopen();
    const answers = await Promise.allSettled([
      bench.backend.seedWaitpointHmacSecret({
        kid: "a",
        secretHex: SECRET_HEX,
      }),
      other.seedWaitpointHmacSecret({ kid: "b", secretHex: OTHER_SECRET_HEX }),
    ]);
    const won = answers.findIndex(({ status }) => status === "fulfilled");
    expect(answers.map(({ status }) => status).sort()).toEqual([
      "fulfilled",
      "rejected",
    ]);
    expect(answers[1 - won]).toMatchObject({
      reason: { code: "invalid_input" },
    });
    expect(await other.listWaitpointHmacKids()).toEqual({
      currentKid: ["a", "b"][won],
      verifying: [],
    });
  });

  test("kids, secrets and graces of the wrong shape are refused", async ({
    backend,
  }) => {
    const rotate = (change: object) =>
      backend.rotateWaitpointHmacSecretAll({
        newKid: "b",
        newSecretHex: SECRET_HEX,
        ...change,
      });
    for (const kid of ["", "a:b", "a|b", "é", "a\n", "k".repeat(65)]) {
      await expectRefused(
        backend.seedWaitpointHmacSecret({ kid, secretHex: SECRET_HEX }),
        "invalid_kid",
      );
      await expectRefused(rotate({ newKid: kid }), "invalid_kid");
    }
    for (const secretHex of [
      "",
      "00",
      SECRET_HEX.slice(1),
      `${SECRET_HEX}00`,
      "zz".repeat(32),
      `+${SECRET_HEX.slice(1)}`,
    ])
      await expectRefused(
        backend.seedWaitpointHmacSecret({ kid: "a", secretHex }),
        "invalid_secret_hex",
      );
    for (const newSecretHex of ["", "0", "zz", "0 ", "00".repeat(129)])
      await expectRefused(rotate({ newSecretHex }), "invalid_secret_hex");
    for (const graceMs of [-1, 0.5, Number.NaN, Infinity, "5", null])
      await expectRefused(rotate({ graceMs }), "invalid_grace_ms");
    expect(await backend.listWaitpointHmacKids()).toEqual({ verifying: [] });
  });

  test("a rotation signs with the new key and lets the old one verify for its grace", async (bench) => {
    const { backend } = bench;
    const { target, executionId } = await suspended(backend, {
      resumeCondition: { kind: "operatorOnly" },
    });
    const before = await backend.serverTimeMs();
    await expectRotation(
      backend,
      { newKid: "k2", newSecretHex: OTHER_SECRET_HEX, graceMs: 10_000 },
      { kind: "rotated", previousKid: KID, newKid: "k2", gcCount: 0 },
    );
    const [verifying] = (await backend.listWaitpointHmacKids()).verifying;
    expect(verifying?.kid).toBe(KID);
    expect(verifying?.expiresAtMs).toBeGreaterThanOrEqual(before + 10_000);

    expect(await effectOf(backend, target)).toBe("no_op");
    const fresh = await waitpointOf(backend, await running(backend));
    expect(fresh.token.reveal()).toMatch(/^k2:/);
    // What was made with the old key is shown with the old key, while that is good for anything.
    const { waitpointId } = target;
    const shown = await backend.readWaitpointToken({
      executionId,
      waitpointId,
    });
    expect(shown?.reveal()).toBe(target.token.reveal());

    await bench.passTime(10_001);
    await expectRefused(effectOf(backend, target), "token_expired");
    expect(
      await backend.readWaitpointToken({ executionId, waitpointId }),
    ).toBeUndefined();
    expect(await backend.listPendingWaitpoints({ executionId })).toMatchObject({
      entries: [{ tokenKid: KID }],
    });
    expect(await effectOf(backend, fresh)).toBe(
      "buffered_for_pending_waitpoint",
    );
    expect(await backend.listWaitpointHmacKids()).toEqual({
      currentKid: "k2",
      verifying: [],
    });
  });

  test("each key keeps its own grace, and nothing comes back before it is over", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const rotates = (
      newKid: string,
      newSecretHex: string,
      graceMs: number,
      result: object,
    ) => expectRotation(backend, { newKid, newSecretHex, graceMs }, result);
    const made = async () =>
      await waitpointOf(backend, await running(backend), "a", 900_000);
    const byFirst = await made();
    await rotates("k2", OTHER_SECRET_HEX, 5_000, {
      kind: "rotated",
      previousKid: KID,
      newKid: "k2",
      gcCount: 0,
    });
    const bySecond = await made();
    await rotates("k3", THIRD_SECRET_HEX, 60_000, {
      kind: "rotated",
      previousKid: "k2",
      newKid: "k3",
      gcCount: 0,
    });
    const byThird = await made();
    for (const target of [byFirst, bySecond, byThird])
      expect(await effectOf(backend, target)).toBe(
        "buffered_for_pending_waitpoint",
      );

    // The same again changes nothing; anything else is told to be in the way.
    const before = await backend.listWaitpointHmacKids();
    await rotates("k3", THIRD_SECRET_HEX.toUpperCase(), 1, {
      kind: "noop",
      kid: "k3",
    });
    for (const [kid, secret] of [
      ["k3", SECRET_HEX],
      ["k2", OTHER_SECRET_HEX],
      [KID, SECRET_HEX],
    ] as const)
      await rotates(kid, secret, 1, {
        kind: "rejected",
        code: "rotation_conflict",
        detail: { kid },
      });
    expect(await backend.listWaitpointHmacKids()).toEqual(before);

    await bench.passTime(5_001);
    await expectRefused(effectOf(backend, byFirst), "token_expired");
    expect(await effectOf(backend, bySecond)).toBe(
      "buffered_for_pending_waitpoint",
    );
    // Past its grace a kid is as good as any other, and the one that is over goes.
    await rotates(KID, THIRD_SECRET_HEX, 0, {
      kind: "rotated",
      previousKid: "k3",
      newKid: KID,
      gcCount: 1,
    });
    await expectRefused(effectOf(backend, byFirst), "invalid_token");
  });

  test("without a grace the old key is over with the next millisecond", async (bench) => {
    const { backend } = bench;
    await keyed(backend);
    const target = await waitpointOf(backend, await running(backend));
    await backend.rotateWaitpointHmacSecretAll({
      newKid: "k2",
      newSecretHex: OTHER_SECRET_HEX,
      graceMs: 0,
    });
    await bench.passTime(1);
    await expectRefused(effectOf(backend, target), "token_expired");
  });

  test("one rotation at a time", async ({ backend }) => {
    await keyed(backend);
    const rotate = (newKid: string) =>
      backend.rotateWaitpointHmacSecretAll({
        newKid,
        newSecretHex: OTHER_SECRET_HEX,
      });
    const first = rotate("k2");
    await expectRefused(rotate("k3"), "concurrency_limit_exceeded");
    await first;
    expect((await backend.listWaitpointHmacKids()).currentKid).toBe("k2");
    await rotate("k3");
    expect((await backend.listWaitpointHmacKids()).currentKid).toBe("k3");
  });

  test("without a key nothing is made, suspended or signalled", async ({
    backend,
  }) => {
    const claimed = await running(backend);
    const { executionId, handle } = claimed;
    const before = await backend.describeExecution({ executionId });
    const code = "hmac_secret_not_initialized";
    await expectRefused(waitpointOf(backend, claimed), code, {
      op: "waitpoint_hmac",
    });
    await expectRefused(backend.suspend({ handle, ...suspendArgs() }), code);
    await expectRefused(
      backend.deliverSignal({
        executionId,
        waitpointId: uuid(),
        signalId: uuid(),
        signalName: "go",
        waitpointToken: `k1:${"0".repeat(64)}`,
      }),
      code,
    );
    expect(await backend.describeExecution({ executionId })).toEqual({
      ...before,
      lastHmacValidationFailedAtMs: expect.any(Number) as number,
    });
  });
});
