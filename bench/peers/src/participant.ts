/** What a process of a measured system can be told to do, and what it tells. One process plays one part of one run. */
import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

import type { Place } from "./systems/system.js";

export interface ParticipantCalls {
  prepare(): Promise<void>;
  openProducer(): Promise<void>;
  closeProducer(): Promise<void>;
  /** Many callers, one job a call. */
  submit(task: SubmitTask): Promise<Submitted>;
  /** One caller, many jobs a call; absent in the answer where the system has no such call. */
  submitMany(task: SubmitManyTask): Promise<Submitted | undefined>;
  /** As a clock says, whatever the answers take. */
  submitAtRate(task: RateTask): Promise<ScheduledJobs>;
  /** One job; when the call began. */
  submitOne(n: number): Promise<number>;
  startWorker(options: WorkerTask): Promise<void>;
  /** Lets it finish, and tells what it handled since it was started. */
  stopWorker(): Promise<Handled>;
  unfinished(): Promise<number>;
  /** Whether it has what scenario 8 needs. */
  canWait(): Promise<boolean>;
  startWaitingWorker(): Promise<void>;
  openWaitingProducer(): Promise<void>;
  submitWaiting(n: number): Promise<void>;
  /** When the call began. */
  signal(token: string): Promise<number>;
  /** CPU time of this process so far. */
  cpuMs(): Promise<number>;
}

interface SubmitTask {
  readonly count: number;
  readonly inFlight: number;
  /** No call begins later. */
  readonly maxMs: number;
  /** Of the first job; the others follow. */
  readonly firstN: number;
  readonly payloadBytes: number;
}

interface SubmitManyTask extends Omit<SubmitTask, "inFlight"> {
  readonly perCall: number;
}

interface RateTask {
  readonly perSecond: number;
  readonly ms: number;
}

interface WorkerTask {
  readonly concurrency: number;
  /** For each job a message, rather than for a while of them. */
  readonly tellEach: boolean;
}

export interface Submitted {
  /** All that are in the store now. */
  readonly count: number;
  /** Behind the warm-up. */
  readonly perSecond: number;
  /** Of calls behind the warm-up. */
  readonly latenciesMs: readonly number[];
}

interface ScheduledJobs {
  /** When job n was due, by n. */
  readonly atMs: readonly number[];
}

/** One entry per call of a handler. */
export interface Handled {
  readonly n: readonly number[];
  readonly atMs: readonly number[];
}

export type ParticipantNews =
  | { readonly kind: "progress"; readonly handled: number }
  | { readonly kind: "handled"; readonly n: number; readonly atMs: number }
  | { readonly kind: "suspended"; readonly token: string }
  | { readonly kind: "resumed"; readonly atMs: number };

export type CallName = keyof ParticipantCalls;

export interface Call {
  readonly id: number;
  readonly name: CallName;
  readonly args: readonly unknown[];
}

export type Message =
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "failure"; readonly id: number; readonly reason: string }
  | ParticipantNews;

/** Of the text of a job. */
export const PAYLOAD_BYTES = 4_096;

/** The share of a measured series that comes first and does not count: plans, caches and compiled code. */
export const WARM_UP_SHARE = 0.2;

/** Where a process leaves its CPU profile. */
export interface ProfileTarget {
  readonly directory: string;
  readonly name: string;
}

function argumentsOf({ directory, name }: ProfileTarget): string[] {
  return [
    "--cpu-prof",
    `--cpu-prof-dir=${directory}`,
    `--cpu-prof-name=${name}.cpuprofile`,
  ];
}

interface Listener {
  hear(news: ParticipantNews): void;
  reject(error: Error): void;
}

/** From outside: a process, and its calls. */
export class Participant implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #open = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #ended: Promise<unknown>;
  readonly #profiled: boolean;
  readonly #listeners = new Set<Listener>();
  #nextId = 0;

  /** @param system by its full name */
  constructor(system: string, place: Place, profile?: ProfileTarget) {
    this.#child = fork(
      fileURLToPath(new URL("participant-process.js", import.meta.url)),
      [system, JSON.stringify(place)],
      // What peers do that Node will not allow for ever is no news here.
      {
        serialization: "advanced",
        execArgv: [
          "--disable-warning=DeprecationWarning",
          ...(profile === undefined ? [] : argumentsOf(profile)),
        ],
      },
    );
    this.#profiled = profile !== undefined;
    this.#ended = once(this.#child, "exit");
    this.#child.on("message", (message: Message) => this.#hear(message));
    this.#child.on("exit", (code, signal) => {
      const error = new Error(
        `A process of ${system} ended (${signal ?? code}).`,
      );
      for (const { reject } of this.#open.values()) reject(error);
      for (const { reject } of this.#listeners) reject(error);
      this.#open.clear();
      this.#listeners.clear();
    });
  }

  async call<Name extends CallName>(
    name: Name,
    ...args: Parameters<ParticipantCalls[Name]>
  ): Promise<Awaited<ReturnType<ParticipantCalls[Name]>>> {
    const id = this.#nextId++;
    const answer = Promise.withResolvers<unknown>();
    this.#open.set(id, answer);
    this.#child.send({ id, name, args } satisfies Call, (error) => {
      if (error !== null) answer.reject(error);
    });
    return (await answer.promise) as Awaited<
      ReturnType<ParticipantCalls[Name]>
    >;
  }

  /** Resolves once `hear` has heard enough; fails where the process ends before. */
  async news(hear: (news: ParticipantNews) => boolean): Promise<void> {
    const heard = Promise.withResolvers<void>();
    const listener: Listener = {
      hear(news) {
        if (hear(news)) heard.resolve();
      },
      reject: heard.reject,
    };
    this.#listeners.add(listener);
    try {
      await heard.promise;
    } finally {
      this.#listeners.delete(listener);
    }
  }

  #hear(message: Message): void {
    if (message.kind !== "answer" && message.kind !== "failure") {
      for (const { hear } of this.#listeners) hear(message);
      return;
    }
    const waiting = this.#open.get(message.id);
    this.#open.delete(message.id);
    if (message.kind === "answer") waiting?.resolve(message.answer);
    else waiting?.reject(new Error(message.reason));
  }

  /** At once: what matters was asked for and answered before. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      // A profile is written on the way out.
      if (this.#profiled && this.#child.connected) this.#child.disconnect();
      else this.#child.kill("SIGKILL");
    }
    await this.#ended;
  }
}
