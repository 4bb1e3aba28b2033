/** The demo from outside, on whichever store it is told. */
import type { ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Sandbox } from "./command.js";

const FILES = 30;

/** A test runs the demo up to three times, each with processes of its own, on a machine that may be busy. */
const TIMEOUT_MS = 120_000;

export interface DemoStore {
  /** The options that name the store, for every command alike; none: the demo's own default. */
  readonly options: (box: Sandbox) => readonly string[];
  /** As the demo shows it. */
  readonly shown: RegExp;
}

let box: Sandbox;

/**
 * @param usual a store as most people name it
 * @param shared one that other commands are told by the same words
 */
export function demoTests(usual: DemoStore, shared: DemoStore): void {
  vi.setConfig({ testTimeout: TIMEOUT_MS });
  beforeEach(() => {
    box = new Sandbox();
    mkdirSync(join(box.folder, "texts", "node_modules"), { recursive: true });
  });
  afterEach(() => {
    box[Symbol.dispose]();
  });

  test("a killed worker's files are taken over, everything ends once, and a second run reuses it", async () => {
    writeTexts(FILES);
    writeFileSync(
      join(box.folder, "texts", "picture.bin"),
      new Uint8Array([1, 0, 2]),
    );
    writeFileSync(
      join(box.folder, "texts", "node_modules", "skipped.txt"),
      "skipped",
    );

    const first = await box.run(["demo", "texts", ...usual.options(box)]);
    expect(first.stderr).toBe("");
    expect(first.stdout).toContain(`${FILES} text files in`);
    expect(first.stdout).toMatch(usual.shown);
    expect(first.stdout).toContain("left out: 1 binary");
    expect(first.stdout).toContain(`0 reused, ${FILES + 1} new`);
    expect(first.stdout).toMatch(
      /✗ kill -9 worker-\d .* while it held [12] files?/,
    );
    expect(first.stdout).toMatch(/and [1-9]\d* taken over from a dead worker/);
    expect(first.stdout).toMatch(/failed poison\/.*ENOENT.*unreadable_file/);
    expect(first.stdout).toContain(
      `Each of ${FILES + 1} executions ended exactly once`,
    );
    expect(first.stdout).toContain(
      `${FILES} text files with ${FILES * 4} words:`,
    );
    expect(first.stdout).toMatch(
      /Suspended until .*\n.*second process .* signals 'approved'\.\n✓ Published, approved by second-process: /,
    );
    expect(first.code).toBe(0);
    const report = readFileSync(box.path(".flowfabric/report.html"), "utf8");
    expect(report).toContain('data-kill="true"');
    expect(report).not.toMatch(/https?:/);
    expect(readFileSync(box.path(".flowfabric/.gitignore"), "utf8")).toBe(
      "*\n",
    );

    writeFileSync(join(box.folder, "texts", "text-0.md"), "changed\n");
    const second = await box.run([
      "demo",
      "texts",
      ...usual.options(box),
      "--no-kill",
    ]);
    expect(second.stdout).toContain(`${FILES} reused, 1 new`);
    expect(second.code).toBe(0);

    const third = await box.run(["demo", "texts", ...usual.options(box)]);
    expect(third.stdout).toContain(`${FILES + 1} reused, 0 new`);
    expect(third.stdout).toContain("nothing to kill");
    expect(third.stdout).toMatch(/failed poison\/.*stored by an earlier run/);
    expect(third.stdout).toContain("of the run that did the work");
    expect(second.stdout).toContain("✓ Published, approved by");
    expect(third.stdout).toContain(
      "✓ Published by an earlier run, approved by",
    );
    expect(third.stdout).not.toContain("Suspended");
    expect(third.code).toBe(0);
  });

  test("Ctrl-C drains, and the next run goes on; one worker is replaced when it is killed", async () => {
    writeTexts(FILES);
    const { child, ended } = box.start([
      "demo",
      "texts",
      ...usual.options(box),
      "--workers",
      "1",
    ]);
    child.stdout?.on("data", (text: string) => {
      if (text.includes(` of ${FILES + 1} files`)) child.kill("SIGINT");
    });
    const stopped = await ended;
    expect(stopped.stdout).toContain("The next run goes on from here.");
    expect(stopped.code).toBe(130);

    const next = await box.run([
      "demo",
      "texts",
      ...usual.options(box),
      "--workers",
      "1",
    ]);
    expect(next.stdout).toMatch(/\d+ reused, 0 new, \d+ continued/);
    expect(next.stdout).toContain("worker-2 takes its place");
    expect(next.stdout).toContain("ended exactly once");
    expect(next.code).toBe(0);
  });

  test("--manual waits for a person across runs, and a no is a no", async () => {
    writeTexts(2);
    const demo = [
      ...["demo", "texts", ...usual.options(box), "--manual"],
      ...["--no-kill", "--workers", "1"],
    ];
    const published = box.path(".flowfabric/report.md");
    const interrupted = box.start(demo);
    const first = await approvalCommand(interrupted.child);
    interrupted.child.kill("SIGINT");
    expect((await interrupted.ended).code).toBe(130);
    expect(existsSync(published)).toBe(false);

    const waiting = box.start(demo);
    const approve = await approvalCommand(waiting.child);
    expect(approve).toEqual(first);
    // Addresses are shown without their passwords.
    const store = usual.options(box);
    expect(await box.run([...approve, ...store])).toMatchObject({
      code: 0,
      stdout: "resumed\n",
    });
    const approved = await waiting.ended;
    expect(approved.stdout).toContain("✓ Published, approved by ");
    expect(approved.stdout).toContain(readFileSync(published, "utf8"));
    expect(approved.code).toBe(0);

    writeFileSync(join(box.folder, "texts", "text-0.md"), "more words now\n");
    const asking = box.start(demo);
    const reject = await approvalCommand(asking.child);
    expect(
      await box.run([
        ...[...reject, ...store],
        ...["--name", "rejected", "--source", "eve"],
      ]),
    ).toMatchObject({ code: 0 });
    const rejected = await asking.ended;
    expect(rejected.stdout).toContain(
      "✗ Not published, failed: eve answered 'rejected'",
    );
    expect(rejected.code).toBe(0);
  });

  test("a folder without text files is nothing to do", async () => {
    const { code, stdout } = await box.run([
      "demo",
      "texts",
      ...usual.options(box),
    ]);
    expect(stdout).toContain("no text files");
    expect(code).toBe(0);
  });

  test("--fresh starts over, but deletes no store that holds other work", async () => {
    writeTexts(2);
    const demo = [
      "demo",
      "texts",
      ...shared.options(box),
      "--no-kill",
      "--workers",
      "1",
    ];
    expect(await box.run(demo)).toMatchObject({ code: 0 });
    const fresh = await box.run([...demo, "--fresh"]);
    expect(fresh.stdout).toContain("0 reused, 3 new");

    expect(
      await box.run(["submit", "mine", ...shared.options(box)]),
    ).toMatchObject({ code: 0 });
    const refused = await box.run([...demo, "--fresh"]);
    expect(refused.stderr).toContain("which also holds the lane default");
    expect(refused.code).toBe(1);
  });
}

/** The arguments of the command that a person is asked to run. */
function approvalCommand(child: ChildProcess): Promise<string[]> {
  return new Promise((resolve, reject) => {
    let seen = "";
    child.stdout?.on("data", (text: string) => {
      seen += text;
      const command = /npx flowfabric (signal .*)\n/.exec(seen)?.[1];
      if (command !== undefined)
        resolve(command.split(" ").map((word) => word.replaceAll("'", "")));
    });
    child.once("close", () => reject(new Error(`nobody was asked: ${seen}`)));
  });
}

function writeTexts(count: number): void {
  for (let n = 0; n < count; n++)
    writeFileSync(
      join(box.folder, "texts", `text-${n}.md`),
      `# Text ${n}\n\nsome words\n`,
    );
}
