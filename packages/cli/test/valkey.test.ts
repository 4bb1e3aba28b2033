/** The command on Valkey: the same words, and one that names another store. */
import { randomUUID } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";

import {
  openClient,
  removeKeys,
  startOwnCluster,
} from "@flowfabric/valkey-testing";
import { afterAll, afterEach, describe, expect, inject, test } from "vitest";

import { said, Sandbox } from "./command.js";
import { demoTests } from "./demo-suite.js";
import { signalsTests } from "./signals-suite.js";

const url = inject("valkeyUrl");
const client = openClient(url);
const made: string[] = [];

/** An address with a prefix of its own. */
function newAddress(): string {
  const prefix = `cli_${randomUUID().replaceAll("-", "")}`;
  made.push(prefix);
  return `${url}?prefix=${prefix}`;
}

function keysOf(address: string): Promise<string[]> {
  return client.keys(`${new URL(address).searchParams.get("prefix")}:*`);
}

afterEach(async () => {
  for (const prefix of made.splice(0)) await removeKeys(client, prefix);
});
afterAll(() => client.disconnect());

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
  const shown = /on (?:valkey|redis):\/\/\S+\?prefix=cli_\w+, /;
  demoTests({ options, shown }, { options, shown });
});

test("demo on a cluster: a killed worker's files are taken over, and a second run reuses all", async () => {
  const cluster = await startOwnCluster();
  try {
    using box = new Sandbox();
    mkdirSync(box.path("texts"));
    for (let n = 0; n < 20; n++)
      writeFileSync(box.path(`texts/${n}.md`), `# Text ${n}\n`);
    const demo = ["demo", "texts", "--backend", `${cluster.url}?prefix=demo`];
    const first = await box.run(demo);
    expect(first.stderr).toBe("");
    expect(first.stdout).toMatch(
      /on valkey\+cluster:\/\/[\d.:,]+\?prefix=demo, /,
    );
    expect(first.stdout).toMatch(/and [1-9]\d* taken over from a dead worker/);
    expect(first.stdout).toContain("Each of 21 executions ended exactly once");
    expect(first.code).toBe(0);
    const second = await box.run(demo);
    expect(second.stdout).toContain("21 reused, 0 new");
    expect(second.code).toBe(0);
  } finally {
    await cluster.stop();
  }
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

test("there is nothing to migrate, and nothing is made", async () => {
  using box = new Sandbox();
  const address = newAddress();
  for (const more of [[], ["--dry-run"]])
    expect(
      await box.run(["migrate", "--backend", address, ...more]),
    ).toMatchObject({
      code: 0,
      stdout: "",
      stderr: expect.stringMatching(/^nothing to migrate: \S+\?prefix=cli_/),
    });
  expect(await keysOf(address)).toEqual([]);
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
    expect(stderr).toMatch(/^flowfabric: there is no store at \w+:.*\n$/);
  }
  expect(await keysOf(address)).toEqual([]);
});

test("a server that does not answer is told at once, and no message shows the password", async () => {
  using box = new Sandbox();
  for (const address of [
    "valkey://me:secret@127.0.0.1:1",
    "valkey+cluster://me:secret@127.0.0.1:1,127.0.0.1:2",
  ]) {
    const { code, stdout, stderr } = await box.run([
      "list",
      "--backend",
      address,
    ]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/ECONNREFUSED|Failed to refresh slots/);
    expect(stderr).not.toContain("secret");
  }
});
