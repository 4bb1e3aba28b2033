/** Every example from outside, as users run it: it checks itself, and says what its README shows. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { expect, test } from "vitest";

const FOLDER = join(import.meta.dirname, "..");
/** The examples' own guard, and time for two of them at once on a busy machine. */
const TIMEOUT_MS = 90_000;

const NAMES = readdirSync(FOLDER).filter((name) =>
  existsSync(join(FOLDER, name, "main.ts")),
);

async function run(name: string, args: readonly string[]) {
  const program = join(FOLDER, "dist", name, "main.js");
  const child = spawn(process.execPath, [program, ...args]);
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  const [code] = (await once(child, "close")) as [number | null];
  return { code, stdout, stderr };
}

/** What roles say; text that is streamed beside that is cut where it happens to be. */
function transcript(stdout: string): string {
  return stdout
    .split("\n")
    .filter((line) => /^(\[|PASS|FAIL)/.test(line))
    .map((line) => `${line}\n`)
    .join("");
}

export function exampleTests(backend: string): void {
  test("there are examples", () => {
    expect(NAMES).toContain("deploy-approval");
  });

  for (const name of NAMES)
    test(
      `${name}, twice at the same time`,
      { timeout: TIMEOUT_MS },
      async () => {
        const runs = [1, 2].map(() => run(name, ["--backend", backend]));
        const expected = readFileSync(
          join(FOLDER, name, "expected.txt"),
          "utf8",
        );
        for (const { code, stdout, stderr } of await Promise.all(runs)) {
          expect(stderr).toBe("");
          expect(transcript(stdout)).toBe(expected);
          expect(stdout).not.toContain("ffsig1_");
          expect(code).toBe(0);
        }
        expect(readFileSync(join(FOLDER, name, "README.md"), "utf8")).toContain(
          expected,
        );
      },
    );

  test("a wrong flag is told, and a store that is not there is no failure", async () => {
    expect(await run("llm-stream", ["--backend", "oracle"])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("usage: npm run example llm-stream"),
    });
    for (const missing of ["postgres://127.0.0.1:1/x", "valkey://127.0.0.1:1"])
      expect(
        await run("deploy-approval", ["--backend", missing]),
      ).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("start one: docker run"),
      });
  });
}
