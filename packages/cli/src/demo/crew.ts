/** The worker processes of the demo: starting, watching, killing and draining them. */
import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

import { RefusedError } from "../errors.js";
import type { WorkerJob } from "./worker-process.js";

const PROGRAM = fileURLToPath(new URL("./worker-process.js", import.meta.url));
/** A worker that has not drained by then is ended. */
const DRAIN_MS = 12_000;
const COMPLAINT_MAX = 2_000;

export interface Member {
  /** As people see it: `worker-1`. */
  readonly name: string;
  /** As the engine sees it; another one in every run. */
  readonly instanceId: string;
  readonly pid: number;
}

interface Hired extends Member {
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
}

export class Crew {
  readonly #job: Omit<WorkerJob, "instanceId">;
  readonly #runId: string;
  readonly #onLoss: (line: string) => void;
  readonly #names = new Map<string, string>();
  readonly #hired = new Map<string, Hired>();
  readonly #failure = new AbortController();
  #stopping = false;

  /** @param onLoss hears of a worker that ended untold while others go on */
  constructor(
    job: Omit<WorkerJob, "instanceId">,
    runId: string,
    onLoss: (line: string) => void,
  ) {
    this.#job = job;
    this.#runId = runId;
    this.#onLoss = onLoss;
  }

  /** Aborts when the last worker ends untold. */
  get failure(): AbortSignal {
    return this.#failure.signal;
  }

  /** Names by instance id, of everyone who ever was in the crew. */
  get names(): ReadonlyMap<string, string> {
    return this.#names;
  }

  get living(): Member[] {
    return [...this.#hired.values()];
  }

  hire(name: string): void {
    // The engine refuses an instance id while it still counts as alive, as that of a killed worker does.
    const instanceId = `${name}-${this.#runId}`;
    const child = fork(
      PROGRAM,
      [JSON.stringify({ ...this.#job, instanceId })],
      {
        // Its own group: Ctrl-C reaches the demo alone, which then lets everyone finish.
        detached: true,
        stdio: ["ignore", "ignore", "pipe", "ipc"],
      },
    );
    const ended = this.#untilEnded(name, child);
    if (child.pid === undefined)
      throw new RefusedError(`could not start ${name}: no process`);
    this.#names.set(instanceId, name);
    this.#hired.set(name, { name, instanceId, pid: child.pid, child, ended });
  }

  async #untilEnded(name: string, child: ChildProcess): Promise<void> {
    let complaint = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      complaint = (complaint + text).slice(-COMPLAINT_MAX);
    });
    // Not "close": it never comes for a child whose channel was closed from this side.
    const how = await new Promise<string>((resolve) => {
      child.once("error", ({ message }) => resolve(message));
      child.once("exit", (code, signal) =>
        resolve(signal ?? `exit code ${code}`),
      );
    });
    const expected = this.#stopping || !this.#hired.has(name);
    this.#hired.delete(name);
    if (expected) return;
    // What it wrote last may still be on its way.
    if (child.stderr?.readableEnded === false) await once(child.stderr, "end");
    const line = `${name} ended by itself (${how}) ${complaint}`.trim();
    if (this.#hired.size > 0) this.#onLoss(line);
    else this.#failure.abort(new RefusedError(line));
  }

  /** SIGKILL: no handler, no goodbye. */
  async kill(name: string): Promise<void> {
    const member = this.#hired.get(name);
    if (member === undefined) return;
    this.#hired.delete(name);
    member.child.kill("SIGKILL");
    await member.ended;
  }

  /** Lets everyone finish what they hold. */
  async drain(): Promise<void> {
    this.#stopping = true;
    const members = [...this.#hired.values()];
    for (const { child } of members) if (child.connected) child.disconnect();
    const late = setTimeout(() => this.killAll(), DRAIN_MS);
    await Promise.all(members.map(({ ended }) => ended));
    clearTimeout(late);
  }

  killAll(): void {
    this.#stopping = true;
    for (const { child } of this.#hired.values()) child.kill("SIGKILL");
  }
}
