import { existsSync, readdirSync, writeFileSync } from "node:fs";

import SqliteDriver from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { said, Sandbox } from "./command.js";

let box: Sandbox;
beforeEach(() => {
  box = new Sandbox();
});
afterEach(() => {
  box[Symbol.dispose]();
});

/** A store from an earlier call of this test. */
async function submit(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await box.run(["submit", ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return stdout.trim();
}

const HANDLERS = `
export default {
  greet: {
    kind: "greet",
    handler: (bytes) => ({ text: "Hello " + JSON.parse(new TextDecoder().decode(bytes)).name }),
  },
  bad: {
    kind: "bad",
    handler: async () => {
      throw new Error("no luck");
    },
  },
};
`;

/** Runs a worker until `until` has happened, then ends it as a terminal does. */
async function withWorker(until: () => Promise<unknown>): Promise<string> {
  writeFileSync(box.path("handlers.mjs"), HANDLERS);
  const { child, ended } = box.start(["worker", "handlers.mjs"]);
  await said(child, "Ctrl-C drains");
  await until();
  child.kill("SIGINT");
  const { code, stderr } = await ended;
  expect(code).toBe(0);
  return stderr;
}

test("submit, list, worker, result, inspect", async () => {
  const greeting = await submit(
    "greet",
    "--input",
    '{"name":"Ada"}',
    "--tag",
    "shop.album=pets",
  );
  const bad = await submit(
    "bad",
    "--max-retries",
    "1",
    "--retry-delay",
    "10ms",
  );

  const waiting = await box.run(["list", "--state", "waiting", "--json"]);
  expect(
    waiting.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { executionId: string })
      .map(({ executionId }) => executionId),
  ).toEqual([greeting, bad]);

  const log = await withWorker(async () => {
    const result = await box.run(["result", greeting, "--wait", "10s"]);
    expect(result).toEqual({
      code: 0,
      stdout: '{"text":"Hello Ada"}',
      stderr: "",
    });
    const failed = await box.run(["result", bad, "--wait", "10s"]);
    expect(failed).toEqual({
      code: 1,
      stdout: "",
      stderr: `flowfabric: ${bad} failed (handler_error): no luck\n`,
    });
  });
  expect(log).toContain("runs greet, bad on lane default");
  expect(log).toContain("drained: 1 completed, 2 failed, 0 handed back");

  const table = await box.run(["list"]);
  expect(table.stdout).toMatch(/^ID +KIND +LANE +STATE +ATTEMPTS +AGE +NOTE\n/);
  expect(table.stdout).toMatch(/bad +default +failed +2 .* no luck\n$/);

  const shown = await box.run(["inspect", bad]);
  expect(shown.stdout).toContain(
    "state        failed (handler_error): no luck",
  );
  expect(shown.stdout).toMatch(/1 +retry +ended failure/);
  expect(shown.stdout).toContain("retry_scheduled");

  const json = await box.run(["inspect", greeting, "--json"]);
  expect(JSON.parse(json.stdout)).toMatchObject({
    snapshot: { publicState: "completed", tags: { "shop.album": "pets" } },
    input: '{"name":"Ada"}',
    result: '{"text":"Hello Ada"}',
    attempts: [{ attemptState: "ended_success" }],
    events: [{ type: "created" }, { type: "claimed" }, { type: "completed" }],
  });
});

test("the same key gives the same execution, and says so beside the data", async () => {
  const first = await submit("k", "--key", "a", "--input", "1");
  const again = await box.run(["submit", "k", "--key", "a", "--input", "2"]);
  expect(again.stdout.trim()).toBe(first);
  expect(again.stderr).toMatch(/^duplicate: .* with other content\n$/);
});

test("input comes from a file, from stdin, or as it is", async () => {
  writeFileSync(box.path("in.json"), '{ "n": 1.0 }');
  const inputOf = async (id: string) => {
    const { stdout } = await box.run(["inspect", id, "--json"]);
    return (JSON.parse(stdout) as { input: string }).input;
  };
  expect(await inputOf(await submit("k", "--input", "@in.json"))).toBe(
    '{ "n": 1.0 }',
  );
  expect(await inputOf(await submit("k", "--raw", "--input", "not json"))).toBe(
    "not json",
  );
  const piped = await box.run(["submit", "k", "--input", "-"], "[1]");
  expect(await inputOf(piped.stdout.trim())).toBe("[1]");
});

test("cancel and replay", async () => {
  const id = await submit("k", "--delay", "1h");
  expect(await box.run(["cancel", id, "--reason", "too slow"])).toEqual({
    code: 0,
    stdout: `cancelled ${id}\n`,
    stderr: "",
  });
  expect(await box.run(["cancel", id])).toMatchObject({ code: 0 });
  const { stdout } = await box.run(["inspect", id]);
  expect(stdout).toContain("cancelled: too slow");

  expect(await box.run(["replay", id])).toMatchObject({
    code: 0,
    stdout: `replayed ${id}: waiting\n`,
  });
  const refused = await box.run(["replay", id]);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/^flowfabric: execution_not_terminal: .*\n$/);
});

describe("migrate", () => {
  test("makes a store once, and says so", async () => {
    const first = await box.run(["migrate"]);
    expect(first).toMatchObject({ code: 0, stderr: "" });
    expect(first.stdout.split("\n")).toEqual([
      "applied 0001_executions",
      "applied 0002_events",
      "applied 0003_workers",
      "applied 0004_suspension",
      "applied 0005_streams",
      `${box.db} now has schema 5`,
      "",
    ]);
    expect(await box.run(["migrate"])).toEqual({
      code: 0,
      stdout: `up to date: ${box.db} has schema 5\n`,
      stderr: "",
    });
    await submit("k");
  });

  test("--dry-run prints the script and touches nothing; run by hand it is the same migration", async () => {
    const dry = await box.run(["migrate", "--dry-run"]);
    expect(dry.code).toBe(0);
    expect(dry.stderr).toBe(
      `5 migrations would be applied to ${box.db}; nothing was changed\n`,
    );
    expect(readdirSync(box.folder)).toEqual([]);
    const order = ["executions", "events", "workers", "streams"].map((table) =>
      dry.stdout.indexOf(`CREATE TABLE ${table} (`),
    );
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(order).not.toContain(-1);

    const byHand = new SqliteDriver(box.db);
    byHand.pragma("journal_mode = WAL");
    byHand.exec(dry.stdout);
    byHand.close();
    const nothing = await box.run(["migrate", "--dry-run"]);
    expect(nothing).toMatchObject({ code: 0, stdout: "" });
    expect(nothing.stderr).toContain("up to date");
    expect(readdirSync(box.folder)).toEqual(["store.db"]);
    expect((await box.run(["migrate"])).stdout).toContain("up to date");
    await submit("k");
  });

  test("a dry run makes no folder either", async () => {
    const path = box.path("new/store.db");
    const dry = await box.run(["migrate", "--dry-run", "--backend", path]);
    expect(dry).toMatchObject({ code: 0 });
    expect(existsSync(box.path("new"))).toBe(false);
    expect(await box.run(["migrate", "--backend", path])).toMatchObject({
      code: 0,
    });
    expect(existsSync(path)).toBe(true);
  });

  test("a newer store and a changed migration are refused with their codes, and left alone", async () => {
    await box.run(["migrate"]);
    const change = (sql: string) => {
      const database = new SqliteDriver(box.db);
      database.exec(sql);
      database.close();
    };
    change("INSERT INTO migrations VALUES (999, 'later', 'x', 0)");
    for (const args of [["migrate"], ["migrate", "--dry-run"]]) {
      const { code, stdout, stderr } = await box.run(args);
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
      expect(stderr).toMatch(/library_version_mismatch/);
    }
    change("DELETE FROM migrations WHERE version = 999");
    change("UPDATE migrations SET checksum = 'edited' WHERE version = 2");
    for (const args of [["migrate"], ["migrate", "--dry-run"]])
      expect(await box.run(args)).toMatchObject({
        code: 1,
        stdout: "",
        stderr: expect.stringMatching(/^flowfabric: corruption: .*'events'/),
      });
  });
});

describe("errors are one line and an exit code", () => {
  const cases: readonly (readonly [
    name: string,
    args: readonly string[],
    code: number,
    line: RegExp,
  ])[] = [
    ["unknown command", ["bogus"], 2, /unknown command 'bogus'/],
    ["missing argument", ["submit"], 2, /missing required argument 'kind'/],
    [
      "bad number",
      ["list", "--limit", "0"],
      2,
      /'--limit <n>' argument '0'.*1 to 1000/,
    ],
    [
      "bad input",
      ["submit", "k", "--input", "{x"],
      2,
      /--input '\{x' is not JSON.*--raw/,
    ],
    ["other store", ["list", "--db", "mysql://u:pw@h"], 2, /kind "mysql:"/],
    [
      "no store",
      ["list", "--db", "missing.db"],
      1,
      /no store at .*missing\.db/,
    ],
    ["no module", ["worker", "nothing.mjs"], 2, /no handlers module/],
    ["no folder", ["demo", "nowhere"], 2, /no folder .*nowhere/],
  ];
  test.each(cases)("%s", async (_name, args, code, line) => {
    const ended = await box.run(args);
    expect(ended.stderr).toMatch(line);
    expect(ended.stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(ended.stderr).toMatch(/^flowfabric: /);
    expect(ended).toMatchObject({ code, stdout: "" });
  });

  test("an id that is none, and one that is unknown", async () => {
    await submit("k");
    const none = await box.run(["inspect", "nope"]);
    expect(none.code).toBe(1);
    expect(none.stderr).toMatch(/looks like \{fp:7\}/);
    const unknown = await box.run([
      "inspect",
      "{fp:1}:0192f0c1-0000-7000-8000-000000000000",
    ]);
    expect(unknown.code).toBe(1);
    expect(unknown.stderr).toMatch(/there is no execution/);
  });

  test("a module without handlers", async () => {
    writeFileSync(box.path("empty.mjs"), "export const a = 1;");
    const { code, stderr } = await box.run(["worker", "empty.mjs"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/no default export that names handlers/);
  });

  test("a stack only on request", async () => {
    const { stderr } = await box.run([
      "list",
      "--db",
      "missing.db",
      "--verbose",
    ]);
    expect(stderr).toMatch(/\n +at /);
  });
});
