/** A keystore that something other than this library wrote into: errors, never a guess and never a crash. */
import { isEngineError, type EngineBackend } from "@flowfabric/core";
import { expect, test } from "vitest";

import { newSchema, open, query } from "./stores.js";

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
  const schema = newSchema();
  const backend = await open({ schema });
  await backend.seedWaitpointHmacSecret({ kid: "k1", secretHex: SECRET_HEX });
  const target = await waitpoint(backend);
  const secrets = `"${schema}".waitpoint_secrets`;
  const signal = () =>
    outcomeOf(
      backend.deliverSignal({
        ...target,
        signalId: crypto.randomUUID(),
        signalName: "go",
      }),
    );
  return { backend, schema, secrets, signal };
}

test("a secret that is no clean hex is told to be none", async () => {
  const { backend, secrets, signal } = await seeded();
  expect(await signal()).toBe("ok");
  for (const secret of ["", "0", "0f0", "zz", "0f ", "+f", "0x0f"]) {
    await query(`UPDATE ${secrets} SET secret = $1`, [secret]);
    expect(await signal(), secret).toBe("invalid_secret");
    expect(await outcomeOf(waitpoint(backend)), secret).toBe("invalid_secret");
  }
  await query(`UPDATE ${secrets} SET secret = $1`, [SECRET_HEX]);
  expect(await signal()).toBe("ok");
});

test("an expiry that cannot be read is over", async () => {
  const { backend, secrets, signal } = await seeded();
  await backend.rotateWaitpointHmacSecretAll({
    newKid: "k2",
    newSecretHex: SECRET_HEX,
  });
  expect(await signal()).toBe("ok");
  for (const expiry of [null, 0, -1]) {
    await query(`UPDATE ${secrets} SET expires_at = $1 WHERE kid = 'k1'`, [
      expiry,
    ]);
    expect(await signal(), String(expiry)).toBe("token_expired");
    expect((await backend.listWaitpointHmacKids()).verifying).toEqual([]);
  }
});

test("a current kid without its secret signs nothing until it is given it again", async () => {
  const { backend, secrets, signal } = await seeded();
  await query(`DELETE FROM ${secrets}`);
  expect(await signal()).toBe("hmac_secret_not_initialized");
  const seed = { kid: "k1", secretHex: SECRET_HEX };
  expect(await backend.seedWaitpointHmacSecret(seed)).toEqual({
    kind: "seeded",
    kid: "k1",
  });
  expect(await signal()).toBe("ok");
});

test("neither token nor secret is in the tables but where the secret belongs", async () => {
  const { backend, schema } = await seeded();
  const { waitpointToken } = await waitpoint(backend);
  const digest = waitpointToken.reveal().slice(3);
  const tables = await query<{ name: string }>(
    "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = $1::REGNAMESPACE",
    [`"${schema}"`],
  );
  expect(tables.length).toBeGreaterThan(10);
  for (const { name } of tables) {
    const rows = JSON.stringify(
      await query(`SELECT t::TEXT FROM "${schema}".${name} AS t`),
    );
    expect(rows, name).not.toContain(digest);
    if (name !== "waitpoint_secrets")
      expect(rows, name).not.toContain(SECRET_HEX);
  }
});

test("of two kids only one signs, whoever writes them", async () => {
  const { secrets } = await seeded();
  await expect(
    query(
      `INSERT INTO ${secrets} (kid, secret, signs) VALUES ('k2', '0f', TRUE)`,
    ),
  ).rejects.toThrow("waitpoint_secrets_current");
});

test("of two secrets for one kid that come at the same time one is stored, and the other is told so", async () => {
  const schema = newSchema();
  const backends = [await open({ schema }), await open({ schema })];
  const secretsHex = [SECRET_HEX, OTHER_SECRET_HEX];
  for (let round = 0; round < 20; round++) {
    const newKid = `k${round}`;
    const rotations = await Promise.all(
      backends.map((backend, index) =>
        backend.rotateWaitpointHmacSecretAll({
          newKid,
          newSecretHex: secretsHex[index]!,
        }),
      ),
    );
    const answers = rotations.map(({ entries }) => entries[0]!.result);
    expect(answers.map(({ kind }) => kind).sort()).toEqual([
      "rejected",
      "rotated",
    ]);
    const won = answers.findIndex(({ kind }) => kind === "rotated");
    expect(answers[1 - won]).toMatchObject({ code: "rotation_conflict" });
    const again = { kid: newKid, secretHex: secretsHex[won]! };
    expect(await backends[0]!.seedWaitpointHmacSecret(again)).toMatchObject({
      kind: "alreadySeeded",
      sameSecret: true,
    });
  }
});

test("a rotation that fails is told as such, and a repeat completes it", async () => {
  const { backend, secrets } = await seeded();
  const rotate = async () =>
    (
      await backend.rotateWaitpointHmacSecretAll({
        newKid: "k2",
        newSecretHex: OTHER_SECRET_HEX,
      })
    ).entries;
  await query(`ALTER TABLE ${secrets} RENAME TO elsewhere`);
  expect(await rotate()).toMatchObject([
    { partition: 0, result: { kind: "rejected", code: "transport" } },
  ]);
  await query(
    `ALTER TABLE ${secrets.replace("waitpoint_secrets", "elsewhere")} RENAME TO waitpoint_secrets`,
  );
  expect(await rotate()).toEqual([
    {
      partition: 0,
      result: { kind: "rotated", previousKid: "k1", newKid: "k2", gcCount: 0 },
    },
  ]);
});
