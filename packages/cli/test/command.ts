/** Running the built command as a user would, in a folder of its own. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const MAIN = fileURLToPath(new URL("../dist/main.js", import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class Sandbox implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "flowfabric-cli-"));
  /** What FLOWFABRIC_DB names. */
  readonly db: string;

  constructor(db?: string) {
    this.db = db ?? join(this.folder, "store.db");
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Runs to the end. */
  async run(args: readonly string[], input = ""): Promise<Ended> {
    const { child, ended } = this.start(args);
    child.stdin?.end(input);
    return ended;
  }

  start(args: readonly string[]): {
    readonly child: ChildProcess;
    readonly ended: Promise<Ended>;
  } {
    const child = spawn(process.execPath, [MAIN, ...args], {
      cwd: this.folder,
      env: { ...process.env, FLOWFABRIC_DB: this.db, FORCE_COLOR: "" },
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
    const ended = new Promise<Ended>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => resolve({ code, stdout, stderr }));
    });
    return { child, ended };
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits until the child has written `text` to stderr. */
export function said(child: ChildProcess, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let seen = "";
    child.stderr?.on("data", (chunk: string) => {
      seen += chunk;
      if (seen.includes(text)) resolve();
    });
    child.once("close", () =>
      reject(new Error(`ended before it said '${text}': ${seen}`)),
    );
  });
}
