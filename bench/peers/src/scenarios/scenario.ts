/** What a scenario is given and what it finds. */
import {
  Participant,
  type Handled,
  type ProfileTarget,
} from "../participant.js";
import type { Store, Usage } from "../stores/store.js";
import { fullName, type MeasuredSystem } from "../systems/list.js";

export interface Scale {
  readonly rounds: number;
  /** Of a series; fewer where they take longer than {@link maxMs}. */
  readonly jobs: number;
  /** Of one series. */
  readonly maxMs: number;
  readonly pickups: number;
  readonly resumes: number;
  readonly mixedMs: number;
  readonly finishedBehind: number;
  readonly waitingBehind: number;
  /** What takes longer to put there is not measured. */
  readonly fillMs: number;
}

export interface Run {
  readonly system: MeasuredSystem;
  readonly store: Store;
  readonly scale: Scale;
  /** Where its processes leave CPU profiles, and how those are called. */
  readonly profile?: ProfileTarget;
  /** Of what earlier scenarios of this run found of this system, the median; where a load depends on it. */
  perSecondOf(figure: string): number | undefined;
}

/** One round of one figure. */
export interface Sample {
  readonly perSecond?: number;
  readonly latenciesMs?: readonly number[];
  /** Each of the following per job. */
  readonly clientCpuMs?: number;
  readonly serverCpuMs?: number;
  readonly requests?: number;
  readonly bytes?: number;
}

export interface Scenario {
  readonly name: string;
  /** What it measures; one run may answer more than one question. */
  readonly figures: readonly FigureDescription[];
  /** A figure that is absent in the answer is one that the system has not. */
  run?(run: Run): Promise<Samples>;
  /** Where a place takes too long to fill to have one per round: all rounds of a system at once. */
  runRounds?(run: Run): Promise<Samples[]>;
  /** Scenarios whose figures it asks for. */
  readonly needs?: readonly string[];
}

export type Samples = Partial<Record<string, Sample>>;

export interface FigureDescription {
  readonly name: string;
  /** As the issue counts them and readers ask for them. */
  readonly title: string;
  /** What is compared. */
  readonly by: "perSecond" | "latency";
}

export const CONCURRENCY = 16;
export const PER_CALL = 500;

/** An empty place and processes in it; both are gone afterwards. */
export async function inPlace<Answer>(
  { system, store, scale, profile }: Run,
  lanes: readonly string[],
  use: (open: () => Participant, url: string) => Promise<Answer>,
  patienceMs = usualPatienceMs(scale),
): Promise<Answer> {
  const url = await store.newPlace();
  const participants: Participant[] = [];
  // What waits for a process fails with it, so that a system that has lost a job ends its own run and no other.
  const timer = setTimeout(() => {
    for (const participant of participants)
      void participant[Symbol.asyncDispose]();
  }, patienceMs);
  try {
    const start = () => {
      const participant = new Participant(
        fullName(system),
        { url, lanes },
        profile === undefined
          ? undefined
          : { ...profile, name: `${profile.name} ${participants.length}` },
      );
      participants.push(participant);
      return participant;
    };
    let prepared: Participant | undefined = start();
    await prepared.call("prepare");
    // The first that is asked for is the one that prepared: starting a process takes longer than much of what is measured.
    const open = () => {
      const participant = prepared ?? start();
      prepared = undefined;
      return participant;
    };
    return await use(open, url);
  } finally {
    clearTimeout(timer);
    await Promise.all(
      participants.map((participant) => participant[Symbol.asyncDispose]()),
    );
    await store.removePlace(url);
  }
}

/** Several series, and as much for what is around them. */
function usualPatienceMs({ maxMs, mixedMs }: Scale): number {
  return 10 * maxMs + 2 * mixedMs + 30_000;
}

/** What `work` cost its processes and the server. */
export async function costOf<Answer>(
  { store }: Run,
  participants: readonly Participant[],
  work: () => Promise<Answer>,
): Promise<{ answer: Answer; per: (jobs: number) => Sample }> {
  const before = await readCosts(store, participants);
  const answer = await work();
  const after = await readCosts(store, participants);
  return {
    answer,
    per: (jobs) => ({
      clientCpuMs: (after.clientCpuMs - before.clientCpuMs) / jobs,
      ...share("serverCpuMs", before.usage.cpuMs, after.usage.cpuMs, jobs),
      ...share("requests", before.usage.requests, after.usage.requests, jobs),
    }),
  };
}

async function readCosts(
  store: Store,
  participants: readonly Participant[],
): Promise<{ clientCpuMs: number; usage: Usage }> {
  const usage = (await store.usage?.()) ?? {};
  const all = await Promise.all(
    participants.map((participant) => participant.call("cpuMs")),
  );
  return { clientCpuMs: all.reduce((sum, ms) => sum + ms, 0), usage };
}

function share(
  name: keyof Sample,
  before: number | undefined,
  after: number | undefined,
  jobs: number,
): Sample {
  return before === undefined || after === undefined
    ? {}
    : { [name]: (after - before) / jobs };
}

/** Resolves when all workers together have handled so many, or after `maxMs` from the first of them. */
export async function untilHandled(
  workers: readonly Participant[],
  count: number,
  maxMs: number,
): Promise<void> {
  const counts = new Map<Participant, number>();
  const late = Promise.withResolvers<void>();
  let timer: NodeJS.Timeout | undefined;
  const enough = workers.map((worker) =>
    worker.news((news) => {
      if (news.kind !== "progress") return false;
      timer ??= setTimeout(late.resolve, maxMs);
      counts.set(worker, news.handled);
      const sum = [...counts.values()].reduce((all, one) => all + one, 0);
      return sum >= count;
    }),
  );
  try {
    await Promise.race([...enough, late.promise]);
  } finally {
    clearTimeout(timer);
    // The others end with their processes.
    for (const heard of enough) heard.catch(() => {});
  }
}

export function mergeHandled(all: readonly Handled[]): Handled {
  return {
    n: all.flatMap(({ n }) => n),
    atMs: all.flatMap(({ atMs }) => atMs),
  };
}

/** The first refusal, or that less was done than there is work for, ends a benchmark: its figures would be wrong. */
export function insist(done: boolean, what: string): asserts done {
  if (!done) throw new Error(`The benchmark did not do its work: ${what}.`);
}
