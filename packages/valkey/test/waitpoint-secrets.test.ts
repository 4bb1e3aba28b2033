/** A keystore that something other than this library wrote into, or only part of the cells: errors, never a guess and never a crash. */
import { isEngineError, type EngineBackend } from "@flowfabric/core";
import { valkeyBackend } from "@flowfabric/valkey";
import { openClient, removeKeys } from "@flowfabric/valkey-testing";
import type { Redis } from "ioredis";
import { afterAll, afterEach, expect, inject, test } from "vitest";

import { newPrefix } from "./stores.js";

const SECRET_HEX = "0f".repeat(32);
const OTHER_SECRET_HEX = "a5".repeat(32);
const url = inject("valkeyUrl");
const client = openClient(url) as Redis;

const opened: { backend: EngineBackend; prefix: string }[] = [];
async function open(cells = 1, prefix = newPrefix()) {
  const backend = await valkeyBackend({ url, prefix, cells });
  opened.push({ backend, prefix });
  return { backend, prefix, secrets: `${prefix}:{0}:secrets` };
}
afterEach(async () => {
  for (const { backend, prefix } of opened.splice(0)) {
    await backend.close();
    await removeKeys(client, prefix);
  }
});
afterAll(() => client.disconnect());

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
  const { backend, prefix, secrets } = await open();
  await backend.seedWaitpointHmacSecret({ kid: "k1", secretHex: SECRET_HEX });
  const target = await waitpoint(backend);
  const signal = () =>
    outcomeOf(
      backend.deliverSignal({
        ...target,
        signalId: crypto.randomUUID(),
        signalName: "go",
      }),
    );
  return { backend, prefix, secrets, target, signal };
}

test("a secret that is no clean hex is told to be none", async () => {
  const { backend, secrets, signal } = await seeded();
  expect(await signal()).toBe("ok");
  for (const secret of ["", "0", "0f0", "zz", "0f ", "+f", "0x0f"]) {
    await client.hset(secrets, "secret:k1", secret);
    expect(await signal(), secret).toBe("invalid_secret");
    expect(await outcomeOf(waitpoint(backend)), secret).toBe("invalid_secret");
  }
  await client.hset(secrets, "secret:k1", SECRET_HEX);
  expect(await signal()).toBe("ok");
});

test("an expiry that cannot be read is over", async () => {
  const { backend, secrets, signal } = await seeded();
  await backend.rotateWaitpointHmacSecretAll({
    newKid: "k2",
    newSecretHex: SECRET_HEX,
  });
  expect(await signal()).toBe("ok");
  for (const expiry of [
    "",
    "0",
    "-1",
    "1.5",
    "soon",
    "9e15",
    " 9999999999999",
  ]) {
    await client.hset(secrets, "expires_at:k1", expiry);
    expect(await signal(), expiry).toBe("token_expired");
    expect((await backend.listWaitpointHmacKids()).verifying).toEqual([]);
  }
  await client.hdel(secrets, "expires_at:k1");
  expect(await signal()).toBe("token_expired");
});

test("a current kid without its secret signs nothing until it is given it again", async () => {
  const { backend, secrets, signal } = await seeded();
  await client.hdel(secrets, "secret:k1");
  expect(await signal()).toBe("invalid_token");
  expect(await outcomeOf(waitpoint(backend))).toBe(
    "hmac_secret_not_initialized",
  );
  const seed = { kid: "k1", secretHex: SECRET_HEX };
  expect(await backend.seedWaitpointHmacSecret(seed)).toEqual({
    kind: "seeded",
    kid: "k1",
  });
  expect(await signal()).toBe("ok");
});

test("neither token nor secret is in any key but where the secret belongs", async () => {
  const { prefix, target } = await seeded();
  const digest = target.waitpointToken.reveal().slice(3);
  const keys = await client.keysBuffer(`${prefix}:*`);
  expect(keys.length).toBeGreaterThan(5);
  for (const key of keys) {
    const name = key.toString("latin1");
    const dumped = await client.dumpBuffer(key);
    for (const secret of [digest, Buffer.from(digest, "hex")])
      expect(dumped.includes(secret), name).toBe(false);
    if (!name.endsWith(":secrets"))
      for (const secret of [SECRET_HEX, Buffer.from(SECRET_HEX, "hex")])
        expect(dumped.includes(secret), name).toBe(false);
  }
});

test("of two first keys at once one is everywhere, and the other nowhere", async () => {
  for (let round = 0; round < 10; round++) {
    const { backend, prefix } = await open(4);
    const other = (await open(4, prefix)).backend;
    const seeds = await Promise.all(
      [backend, other].map((one, place) =>
        outcomeOf(
          one.seedWaitpointHmacSecret({
            kid: `k${place}`,
            secretHex: SECRET_HEX,
          }),
        ),
      ),
    );
    expect([...seeds].sort()).toEqual(["invalid_input", "ok"]);
    const kids = await Promise.all(
      [0, 1, 2, 3].map((cell) =>
        client.hget(`${prefix}:{${cell}}:secrets`, "current_kid"),
      ),
    );
    expect(new Set(kids)).toEqual(new Set([`k${seeds.indexOf("ok")}`]));
  }
});

test("a rotation that fails in one cell succeeds in the others, and a repeat completes it", async () => {
  const { backend, prefix } = await open(4);
  await backend.seedWaitpointHmacSecret({ kid: "k1", secretHex: SECRET_HEX });
  const broken = `${prefix}:{2}:secrets`;
  await client.rename(broken, `${broken}:aside`);
  await client.set(broken, "of another kind");

  const rotation = { newKid: "k2", newSecretHex: OTHER_SECRET_HEX };
  const { entries } = await backend.rotateWaitpointHmacSecretAll(rotation);
  expect(entries.map(({ partition }) => partition)).toEqual([0, 1, 2, 3]);
  expect(entries.map(({ result }) => result.kind)).toEqual([
    "rotated",
    "rotated",
    "rejected",
    "rotated",
  ]);
  await client.rename(`${broken}:aside`, broken);
  const again = await backend.rotateWaitpointHmacSecretAll(rotation);
  expect(again.entries.map(({ result }) => result)).toEqual([
    { kind: "noop", kid: "k2" },
    { kind: "noop", kid: "k2" },
    { kind: "rotated", previousKid: "k1", newKid: "k2", gcCount: 0 },
    { kind: "noop", kid: "k2" },
  ]);
});
