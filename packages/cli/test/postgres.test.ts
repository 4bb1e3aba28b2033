/** The command on Postgres: the same words, and one that names another store. */
import { existsSync, writeFileSync } from "node:fs";
import { randomUUID } from "node:crypto";

import pg from "pg";
import { afterEach, describe, expect, inject, test } from "vitest";

import { said, Sandbox } from "./command.js";
import { demoTests } from "./demo-suite.js";
import { signalsTests } from "./signals-suite.js";

const url = inject("postgresUrl");
const made: string[] = [];

/** An address with a schema of its own. */
function newAddress(): string {
  const schema = `cli_${randomUUID().replaceAll("-", "")}`;
  made.push(schema);
  const address = new URL(url);
  address.searchParams.set("schema", schema);
  return address.href;
}

function schemaOf(address: string): string {
  return new URL(address).searchParams.get("schema")!;
}

async function query(text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

function schemaRows(schema: string): Promise<unknown[]> {
  return query(`SELECT FROM pg_namespace WHERE nspname = '${schema}'`);
}

afterEach(async () => {
  for (const schema of made.splice(0))
    await query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
});

describe("demo", () => {
  const addresses = new WeakMap<Sandbox, string>();
  const options = (box: Sandbox): readonly string[] => {
    let address = addresses.get(box);
    if (address === undefined) {
      address = newAddress();
      addresses.set(box, address);
    }
    return ["--backend", address];
  };
  const shown = /on postgres:\/\/\S+\?schema=cli_\w+, /;
  demoTests({ options, shown }, { options, shown });

  test("without ?schema it keeps apart from other work in the database", async () => {
    using box = new Sandbox();
    writeFileSync(box.path("text.md"), "words\n");
    // The demo's own schema is one per database; here nobody else has one.
    const name = `demo_${randomUUID().replaceAll("-", "")}`;
    await query(`CREATE DATABASE "${name}"`);
    try {
      const address = new URL(url);
      address.pathname = `/${name}`;
      const ended = await box.run([
        ...["demo", "--backend", address.href, "--no-kill", "--workers", "1"],
      ]);
      expect(ended).toMatchObject({ code: 0, stderr: "" });
      expect(ended.stdout).toContain(`/${name}?schema=flowfabric_demo, `);
      expect(existsSync(box.path(".flowfabric/report.html"))).toBe(true);
      expect(existsSync(box.path(".flowfabric/demo.db"))).toBe(false);
    } finally {
      await query(`DROP DATABASE "${name}" WITH (FORCE)`);
    }
  });
});

describe("migrate", () => {
  test("makes a store once, and says so", async () => {
    using box = new Sandbox();
    const address = newAddress();
    const migrate = ["migrate", "--backend", address];
    const first = await box.run(migrate);
    expect(first).toMatchObject({ code: 0, stderr: "" });
    expect(first.stdout).toMatch(
      /^applied 0001_executions\napplied 0002_events\napplied 0003_workers\napplied 0004_suspension\napplied 0005_streams\npostgres:\S+ now has schema 5\n$/,
    );
    const again = await box.run(migrate);
    expect(again).toMatchObject({ code: 0, stderr: "" });
    expect(again.stdout).toMatch(/^up to date: \S+ has schema 5\n$/);
  });

  test("--dry-run prints the script and touches nothing; run by hand it is the same migration", async () => {
    using box = new Sandbox();
    const address = newAddress();
    const schema = schemaOf(address);
    const migrate = ["migrate", "--backend", address];
    const dry = await box.run([...migrate, "--dry-run"]);
    expect(dry.code).toBe(0);
    expect(dry.stderr).toMatch(
      /^5 migrations would be applied to .*changed\n$/,
    );
    expect(dry.stdout).toContain(`CREATE SCHEMA "${schema}"`);
    const order = [
      "executions",
      "events",
      "workers",
      "suspensions",
      "streams",
    ].map((table) => dry.stdout.indexOf(`CREATE TABLE ${table} (`));
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(order).not.toContain(-1);
    expect(await schemaRows(schema)).toEqual([]);

    await query(dry.stdout);
    expect((await box.run(migrate)).stdout).toContain("up to date");
    expect(await box.run([...migrate, "--dry-run"])).toMatchObject({
      code: 0,
      stdout: "",
    });
    expect(await box.run(["submit", "k", "--backend", address])).toMatchObject({
      code: 0,
      stderr: "",
    });
  });

  test("a newer store and a changed migration are refused with their codes", async () => {
    using box = new Sandbox();
    const address = newAddress();
    const ledger = `"${schemaOf(address)}".migrations`;
    await box.run(["migrate", "--backend", address]);
    await query(`INSERT INTO ${ledger} VALUES (999, 'later', 'x', 0)`);
    expect(await box.run(["migrate", "--backend", address])).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringContaining("library_version_mismatch"),
    });
    await query(`DELETE FROM ${ledger} WHERE version = 999`);
    await query(`UPDATE ${ledger} SET checksum = 'edited' WHERE version = 2`);
    expect(
      await box.run(["migrate", "--dry-run", "--backend", address]),
    ).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/^flowfabric: corruption: .*'events'/),
    });
  });
});

describe("signals and output", () => {
  signalsTests(() => new Sandbox(newAddress()));
});

test("submit, worker, result, inspect and list, told by the environment", async () => {
  using box = new Sandbox(newAddress());
  const submitted = await box.run(["submit", "echo", "--input", "[1]"]);
  expect(submitted).toMatchObject({ code: 0, stderr: "" });
  const id = submitted.stdout.trim();
  writeFileSync(
    box.path("handlers.mjs"),
    `export default { kind: "echo", handler: (bytes) => bytes };`,
  );
  const { child, ended } = box.start(["worker", "handlers.mjs"]);
  await said(child, "Ctrl-C drains");
  expect(await box.run(["result", id, "--wait", "10s"])).toEqual({
    code: 0,
    stdout: "[1]",
    stderr: "",
  });
  child.kill("SIGINT");
  expect(await ended).toMatchObject({ code: 0 });
  expect((await box.run(["inspect", id])).stdout).toContain("completed");
  expect((await box.run(["list", "--state", "completed"])).stdout).toContain(
    id,
  );
});

test("looking leaves no store behind where the address was mistyped", async () => {
  using box = new Sandbox();
  const address = newAddress();
  for (const command of [
    ["list"],
    ["inspect", "{fp:1}:0192f0c1-0000-7000-8000-000000000000"],
  ]) {
    const { code, stdout, stderr } = await box.run([
      ...command,
      "--backend",
      address,
    ]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^flowfabric: there is no store at postgres:.*\n$/);
  }
  expect(await schemaRows(schemaOf(address))).toEqual([]);
});

test("no message shows the password", async () => {
  using box = new Sandbox();
  const address = new URL(newAddress());
  address.password = "secret";
  for (const command of [
    ["list"],
    ["migrate"],
    ["migrate", "--dry-run"],
    ["inspect", "{fp:1}:0192f0c1-0000-7000-8000-000000000000"],
  ]) {
    const { stdout, stderr } = await box.run([
      ...command,
      "--backend",
      address.href,
    ]);
    expect(stdout + stderr).not.toContain("secret");
  }
});
