import { isEngineError } from "@flowfabric/core";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import Sqlite from "better-sqlite3";
import { expect, onTestFinished, test } from "vitest";
import { z } from "zod";

import { Client } from "../src/client.js";
import { connect } from "../src/connect.js";
import { defineExecution } from "../src/definition.js";
import { PayloadDecodeError } from "../src/errors.js";
import { openStore, withFaults } from "./store.js";

const Mail = defineExecution({ kind: "mail", input: z.string() });

async function openBoth() {
  const store = await openStore();
  const db = new Sqlite(store.path);
  onTestFinished(() => void db.close());
  return { ...store, db, client: new Client({ backend: store.backend }) };
}

test("rolled back it never existed, committed it is claimed at once", async () => {
  const { backend, db, client } = await openBoth();
  await using conn = await connect({ backend });

  db.exec("BEGIN");
  client.submitInTransaction(db, Mail, { input: "undone" });
  db.exec("ROLLBACK");
  expect((await client.list()).executions).toEqual([]);

  const parked = conn.claimNext({ maxWaitMs: 10_000 });
  const submitted = db.transaction(() =>
    client.submitInTransaction(db, Mail, { input: "kept" }),
  )();
  await using task = await parked;

  expect(submitted).toMatchObject({ kind: "created" });
  expect(task?.executionId).toBe(submitted.executionId);
});

test("the answer is synchronous, and so are its refusals", async () => {
  const { db, client } = await openBoth();
  const slow: StandardSchemaV1<string> = {
    "~standard": {
      version: 1,
      vendor: "hand",
      validate: async (value) => ({ value: value as string }),
    },
  };

  expect(() =>
    client.submitInTransaction(db, Mail, { input: "no transaction" }),
  ).toThrow(/no open transaction/);
  db.exec("BEGIN");
  expect(() =>
    client.submitInTransaction(db, Mail, { input: 1 as unknown as string }),
  ).toThrow(PayloadDecodeError);
  try {
    client.submitInTransaction(
      db,
      defineExecution({ kind: "slow", input: slow }),
      { input: "x" },
    );
    expect.unreachable();
  } catch (error) {
    expect(isEngineError(error, "invalid_input")).toBe(true);
  }
  db.exec("ROLLBACK");
});

test("the untyped form joins a transaction, too", async () => {
  const { db, client } = await openBoth();

  const { executionId } = db.transaction(() =>
    client.submitInTransaction(db, {
      executionKind: "raw",
      inputPayload: Uint8Array.of(1, 2),
    }),
  )();

  expect(await client.inspect(executionId)).toMatchObject({
    executionKind: "raw",
  });
});

test("a store that cannot join one refuses before anything else", async () => {
  const { backend: real } = await openStore();
  const { backend, calls, clear } = withFaults(
    new Proxy(real, {
      get: (target, name, receiver) =>
        name === "capabilities"
          ? () => ({
              ...target.capabilities(),
              supports: {
                ...target.capabilities().supports,
                callerTransaction: false,
              },
            })
          : (Reflect.get(target, name, receiver) as unknown),
    }),
  );
  const client = new Client({ backend });
  clear();

  expect(() =>
    client.submitInTransaction({}, Mail, { input: 1 as unknown as string }),
  ).toThrow(expect.objectContaining({ code: "unavailable" }) as Error);
  expect(calls()).toEqual(["capabilities"]);
});
