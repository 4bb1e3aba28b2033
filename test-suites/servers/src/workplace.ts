/**
 * Where a server runs, and whom it runs as: a folder of its own, and never root. A test run by root hands its servers to a
 * user without rights, with programs and data in folders that this user can read.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import {
  chownSync,
  closeSync,
  cpSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";

/** A folder for one server, gone with it, and what its processes are started with. */
export class Workplace {
  readonly directory: string;
  readonly #owner: { uid: number; gid: number } | undefined;

  constructor(name: string, parent = "/tmp") {
    this.directory = mkdtempSync(join(parent, `flowfabric-${name}-`));
    this.#owner = process.getuid?.() === 0 ? unprivilegedUser() : undefined;
    this.own(this.directory);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Hands a file or folder to the user that the server runs as. */
  own(path: string): void {
    if (this.#owner !== undefined)
      chownSync(path, this.#owner.uid, this.#owner.gid);
  }

  /** The same programs where that user can start them: a clone may lie below a folder that is its owner's alone. */
  reachable(directory: string): string {
    if (this.#owner === undefined || isOpenToAll(directory)) return directory;
    const copy = this.path("programs");
    // With what lies beside them: libraries and shared files are found from there.
    cpSync(dirname(directory), copy, {
      recursive: true,
      verbatimSymlinks: true,
    });
    return join(copy, directory.slice(dirname(directory).length + 1));
  }

  run(program: string, args: readonly string[]): void {
    execFileSync(program, args, {
      ...this.#owner,
      cwd: this.directory,
      stdio: ["ignore", "ignore", "pipe"],
    });
  }

  /**
   * Goes with this process, also where the run is broken off.
   * @param end what it ends at once by: what it keeps goes anyway
   */
  start(
    program: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
    end: NodeJS.Signals = "SIGQUIT",
  ): StartedProgram {
    const log = this.path("log");
    const output = openSync(log, "a");
    const child = spawn(program, args, {
      ...this.#owner,
      cwd: this.directory,
      env: { ...process.env, ...env },
      stdio: ["ignore", output, output],
    });
    closeSync(output);
    return new StartedProgram(child, log, end);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const UNFINISHED = Symbol.for("flowfabric.servers.unfinished");
const processWide = globalThis as { [UNFINISHED]?: Set<StartedProgram> };

/** One listener for all of them, however often this module is loaded (once per test project): of more than ten Node warns. */
const unfinished = (processWide[UNFINISHED] ??= endWithProcess());

function endWithProcess(): Set<StartedProgram> {
  const programs = new Set<StartedProgram>();
  process.once("exit", () => {
    for (const program of programs) program.kill();
  });
  return programs;
}

/** A crash report is long. */
const LAST_WORDS_LENGTH = 6_000;

export class StartedProgram {
  readonly #child: ChildProcess;
  readonly #log: string;
  readonly #end: NodeJS.Signals;
  readonly #ended: Promise<void>;

  constructor(child: ChildProcess, log: string, end: NodeJS.Signals) {
    this.#child = child;
    this.#log = log;
    this.#end = end;
    this.#ended = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        // Nobody stopped it: whatever fails next, this is why.
        if (unfinished.delete(this))
          console.error(
            `${child.spawnfile} ended by itself with ${code ?? signal}: ${this.lastWords()}`,
          );
        resolve();
      });
      child.once("error", () => resolve());
    });
    unfinished.add(this);
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** What it wrote last, for a message. */
  lastWords(): string {
    return readFileSync(this.#log, "utf8").trim().slice(-LAST_WORDS_LENGTH);
  }

  /** At once, where no other signal is given. */
  async stop(signal: NodeJS.Signals = this.#end): Promise<void> {
    unfinished.delete(this);
    if (!this.running || this.#child.pid === undefined) return;
    this.#child.kill(signal);
    await this.#ended;
  }

  /** Does not wait for what comes of it. */
  signal(signal: NodeJS.Signals): void {
    if (signal === "SIGKILL") unfinished.delete(this);
    if (this.running) this.#child.kill(signal);
  }

  /** At once, for the last moment of this process. */
  kill(): void {
    this.signal(this.#end);
  }
}

function unprivilegedUser(): { uid: number; gid: number } {
  const idOf = (flag: string) =>
    Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }));
  return { uid: idOf("-u"), gid: idOf("-g") };
}

function isOpenToAll(directory: string): boolean {
  for (let at = directory; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o005) !== 0o005) return false;
    if (at === dirname(at)) return true;
  }
}
