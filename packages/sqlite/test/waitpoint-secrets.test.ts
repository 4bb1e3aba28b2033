/** A keystore that something other than this library wrote into: errors, never a guess and never a crash. */
import { isEngineError, type EngineBackend } from "@flowfabric/core";
import { expect, test } from "vitest";

import { newPath, open, openRaw } from "./files.js";

const SECRET_HEX = "0f".repeat(32);
const OTHER_SECRET_HEX = "a5".repeat(32);

async function waitpoint(backend: EngineBackend) {
  await backend.createExecution({ executionKind: "k" });
  const { claimed } = await backend.claimMany({
    workerId: "w",
    workerInstanceId: "w-1",
    lanes: ["default"],
    max: 1,
    leaseTtlMs: 60_000,
  });
  const { handle, executionId } = claimed[0]!;
  const { waitpointId, hmacToken } = await backend.createWaitpoint({
    handle,
    waitpointKey: "a",
    expiresInMs: 60_000,
  });
  return { executionId, waitpointId, waitpointToken: hmacToken };
}

async function outcomeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "ok";
  } catch (error) {
    if (!isEngineError(error)) throw error;
    return error.code;
  }
}

async function seeded() {
  const path = newPath();
  const backend = await open({ path });
  await backend.seedWaitpointHmacSecret({ kid: "k1", secretHex: SECRET_HEX });
  const target = await waitpoint(backend);
  const raw = openRaw(path);
  const signal = () =>
    outcomeOf(
      backend.deliverSignal({
        ...target,
        signalId: crypto.randomUUID(),
        signalName: "go",
      }),
    );
  return { backend, raw, signal };
}

test("a secret that is no clean hex is told to be none", async () => {
  const { backend, raw, signal } = await seeded();
  expect(await signal()).toBe("ok");
  for (const secret of ["", "0", "0f0", "zz", "0f ", "+f", "0x0f"]) {
    raw.prepare("UPDATE waitpoint_secrets SET secret = ?").run(secret);
    expect(await signal(), secret).toBe("invalid_secret");
    expect(await outcomeOf(waitpoint(backend)), secret).toBe("invalid_secret");
  }
  raw.prepare("UPDATE waitpoint_secrets SET secret = ?").run(SECRET_HEX);
  expect(await signal()).toBe("ok");
});

test("an expiry that cannot be read is over", async () => {
  const { backend, raw, signal } = await seeded();
  await backend.rotateWaitpointHmacSecretAll({
    newKid: "k2",
    newSecretHex: SECRET_HEX,
  });
  expect(await signal()).toBe("ok");
  for (const expiry of [null, 0, -1, 1.5, "soon"]) {
    raw
      .prepare("UPDATE waitpoint_secrets SET expires_at = ? WHERE kid = 'k1'")
      .run(expiry);
    expect(await signal(), String(expiry)).toBe("token_expired");
    expect((await backend.listWaitpointHmacKids()).verifying).toEqual([]);
  }
});

test("a current kid without its secret signs nothing until it is given it again", async () => {
  const { backend, raw, signal } = await seeded();
  raw.prepare("DELETE FROM waitpoint_secrets").run();
  expect(await signal()).toBe("hmac_secret_not_initialized");
  const seed = { kid: "k1", secretHex: SECRET_HEX };
  expect(await backend.seedWaitpointHmacSecret(seed)).toEqual({
    kind: "seeded",
    kid: "k1",
  });
  expect(await signal()).toBe("ok");
});

test("neither token nor secret is in the file but where the secret belongs", async () => {
  const { backend, raw } = await seeded();
  const { waitpointToken } = await waitpoint(backend);
  const digest = waitpointToken.reveal().slice(3);
  const tables = raw
    .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")
    .pluck()
    .all() as string[];
  for (const table of tables) {
    const rows = JSON.stringify(raw.prepare(`SELECT * FROM ${table}`).all());
    expect(rows, table).not.toContain(digest);
    if (table !== "waitpoint_secrets")
      expect(rows, table).not.toContain(SECRET_HEX);
  }
});

test("a rotation that the file is in the way of is told as such, and a repeat completes it", async () => {
  const path = newPath();
  const backend = await open({ path, busyTimeoutMs: 50 });
  await backend.seedWaitpointHmacSecret({ kid: "k1", secretHex: SECRET_HEX });
  const rotate = async () =>
    (
      await backend.rotateWaitpointHmacSecretAll({
        newKid: "k2",
        newSecretHex: OTHER_SECRET_HEX,
      })
    ).entries;
  const raw = openRaw(path);
  raw.prepare("BEGIN IMMEDIATE").run();
  expect(await rotate()).toMatchObject([
    { partition: 0, result: { kind: "rejected", code: "retry_exhausted" } },
  ]);
  raw.prepare("ROLLBACK").run();
  expect(await rotate()).toEqual([
    {
      partition: 0,
      result: { kind: "rotated", previousKid: "k1", newKid: "k2", gcCount: 0 },
    },
  ]);
});
