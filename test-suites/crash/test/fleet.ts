/** Real processes: started, listened to, killed. What a test leaves behind is killed with it. */
import { fork, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";

import { onTestFinished } from "vitest";

import type { Command, Report, ReportOf } from "../src/reports.js";

/** Where tsc puts the programs; `npm test` builds before it runs. */
const PROGRAMS = new URL("../dist/programs/", import.meta.url);

/** Longer than anything should take on a busy machine; a wait that ends here has failed. */
const PATIENCE_MS = 30_000;

export type ProgramName =
  | "claimer"
  | "hammer"
  | "holder"
  | "opener"
  | "signaller"
  | "submitter"
  | "worker";

export type ProgramOptions = { readonly store: string } & Readonly<
  Record<string, unknown>
>;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class Program {
  readonly name: ProgramName;
  /** Everything it has told so far. */
  readonly reports: Report[] = [];
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #listeners = new Set<() => void>();
  #exit: Exit | undefined;
  #complaints = "";

  private constructor(name: ProgramName, child: ChildProcess) {
    this.name = name;
    this.#child = child;
    child.stderr?.on("data", (chunk: Buffer) => {
      this.#complaints += chunk.toString();
    });
    child.on("message", (message: Report) => {
      this.reports.push(message);
      for (const listener of [...this.#listeners]) listener();
    });
    // Behind "close" nothing comes any more, neither reports nor complaints.
    this.exited = new Promise((resolve) => {
      child.on("close", (code, signal) => {
        this.#exit = { code, signal };
        for (const listener of [...this.#listeners]) listener();
        resolve(this.#exit);
      });
    });
  }

  /** Whoever starts one kills it; {@link start} leaves that to the end of the test. */
  static spawn(name: ProgramName, options: ProgramOptions): Program {
    const child = fork(
      fileURLToPath(new URL(`${name}.js`, PROGRAMS)),
      [JSON.stringify(options)],
      // Not vitest's own flags: with those the packages' sources would be loaded.
      { stdio: ["ignore", "inherit", "pipe", "ipc"], execArgv: [] },
    );
    return new Program(name, child);
  }

  static start(name: ProgramName, options: ProgramOptions): Program {
    const program = Program.spawn(name, options);
    onTestFinished(() => program.kill());
    return program;
  }

  /** Started, and its store is open. */
  static async ready(
    name: ProgramName,
    options: ProgramOptions,
  ): Promise<Program> {
    const program = Program.start(name, options);
    await program.told("ready");
    return program;
  }

  get isRunning(): boolean {
    return this.#exit === undefined;
  }

  /** @throws with what it said last, where it has ended */
  requireRunning(): void {
    if (!this.isRunning) throw this.#silent("ended");
  }

  signal(name: NodeJS.Signals): void {
    if (this.isRunning) this.#child.kill(name);
  }

  /** As a power cut would, as far as this process is concerned. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.exited;
  }

  command(command: Command): void {
    this.#child.send(command);
  }

  /** All reports of a kind so far. */
  all<K extends Report["kind"]>(kind: K): ReportOf<K>[] {
    return this.reports.filter(
      (report): report is ReportOf<K> => report.kind === kind,
    );
  }

  /** The first report of a kind, said already or still to come. Rejects where the program ends without it. */
  told<K extends Report["kind"]>(
    kind: K,
    matches: (report: ReportOf<K>) => boolean = () => true,
    patienceMs: number = PATIENCE_MS,
  ): Promise<ReportOf<K>> {
    return new Promise((resolve, reject) => {
      const end = (act: () => void) => {
        clearTimeout(timer);
        this.#listeners.delete(look);
        act();
      };
      const look = () => {
        const found = this.all(kind).find(matches);
        if (found !== undefined) end(() => resolve(found));
        else if (this.#exit !== undefined)
          end(() => reject(this.#silent(`ended without '${kind}'`)));
      };
      const timer = setTimeout(
        () => end(() => reject(this.#silent(`did not say '${kind}'`))),
        patienceMs,
      );
      this.#listeners.add(look);
      look();
    });
  }

  #silent(what: string): Error {
    const exit = this.#exit === undefined ? "" : JSON.stringify(this.#exit);
    return new Error(`${this.name} ${what} ${exit}\n${this.#complaints}`);
  }
}

/** Workers, or others, of which some die: each is replaced as soon as it is gone. */
export class Fleet {
  readonly #name: ProgramName;
  readonly #options: ProgramOptions;
  readonly #members: Program[] = [];
  /** Everyone there ever was. */
  readonly all: Program[] = [];
  #deaths = 0;
  #closed = false;

  constructor(options: ProgramOptions, name: ProgramName = "worker") {
    this.#name = name;
    this.#options = options;
    onTestFinished(() => this.close());
  }

  get deaths(): number {
    return this.#deaths;
  }

  async hire(count: number): Promise<void> {
    for (let index = 0; index < count; index++) this.#hire(index);
    await Promise.all(this.#members.map((member) => member.told("ready")));
  }

  member(index: number): Program {
    return this.#members[index % this.#members.length]!;
  }

  /** Kills them all, and nobody comes after them. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#members.map((member) => member.kill()));
  }

  #hire(index: number): void {
    const member = Program.spawn(this.#name, this.#options);
    this.#members[index] = member;
    this.all.push(member);
    void member.exited.then(() => {
      if (this.#closed) return;
      this.#deaths++;
      this.#hire(index);
    });
  }
}

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Looks until it holds. */
export async function until(
  what: string,
  holds: () => Promise<boolean>,
  patienceMs: number = PATIENCE_MS,
): Promise<void> {
  const endsAtMs = performance.now() + patienceMs;
  while (!(await holds())) {
    if (performance.now() > endsAtMs)
      throw new Error(`waited ${patienceMs} ms in vain for ${what}`);
    await pause(20);
  }
}
