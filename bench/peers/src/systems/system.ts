/** What every measured system is asked to do. One file per system says how it does it, and nothing else knows how. */

/** The one kind of work: what a caller submits and a handler gets, as JSON wherever a system takes a value. */
export interface Job {
  readonly n: number;
  /** Random, so that nothing compresses it. */
  readonly text: string;
}

/** A store of its own for one run, and the lanes (queues, topics) that are used in it. */
export interface Place {
  /** A server's address, or a folder for files. */
  readonly url: string;
  readonly lanes: readonly string[];
}

export interface System {
  /** Tables and queues, before anything is measured. */
  prepare(place: Place): Promise<void>;
  openProducer(place: Place): Promise<Producer>;
  startWorker(place: Place, work: Work): Promise<StartedWorker>;
  /** How many jobs are not finished; asked when all should be. */
  unfinished(place: Place): Promise<number>;
  /** Absent where a handler cannot wait for a signal without losing its place. */
  readonly waiting?: WaitingSystem;
}

export interface Producer {
  submit(job: Job, lane: string): Promise<unknown>;
  /** One call of the system; absent where it has none. */
  submitMany?(jobs: readonly Job[], lane: string): Promise<unknown>;
  close(): Promise<void>;
}

interface Work {
  /** Handlers at once, over all lanes of the place. */
  readonly concurrency: number;
  /** Called by each handler; that is all that a handler does. */
  handle(job: Job): void;
}

export interface StartedWorker {
  /** Lets running handlers finish and stores their outcomes. */
  stop(): Promise<void>;
}

export interface WaitingSystem {
  startWorker(place: Place, waits: Waits): Promise<StartedWorker>;
  openProducer(place: Place): Promise<WaitingProducer>;
}

export interface WaitingProducer {
  submit(n: number): Promise<unknown>;
  signal(token: string): Promise<unknown>;
  close(): Promise<void>;
}

interface Waits {
  /** What entitles to signal it. */
  suspended(token: string): void;
  /** First line behind the wait. */
  resumed(): void;
}
