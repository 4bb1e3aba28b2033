/**
 * Transactions: grouped commits, and patience with other writers.
 *
 * Writes that are asked for in one turn of the event loop share one transaction, so that a durable commit costs
 * one sync for all of them. A body that throws takes the transaction down; the bodies are then run again one by
 * one, each in a transaction of its own, so that a fault stays with the call that has it. Bodies therefore touch
 * nothing but the store, and what must follow a commit is left to {@link Session.afterCommit}.
 *
 * SQLite's own busy handler would stop the event loop; it is off, and the wait happens between turns.
 */
import { engineError, type EngineError } from "@flowfabric/core";
import type SqliteDriver from "better-sqlite3";

import { isBusy, translateError } from "./errors.js";
import { Session } from "./session.js";

interface Job {
  readonly body: (tx: Session) => unknown;
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly queuedAtMs: number;
}

/** A commit takes at most this many calls and about this long, so that no call stops the event loop for others. */
const GROUP_CALLS_MAX = 256;
const GROUP_MS_MAX = 8;
const BUSY_WAIT_MS_MAX = 8;

export class Database {
  readonly connection: SqliteDriver.Database;
  readonly session: Session;
  readonly #busyTimeoutMs: number;
  /** What a process remembers of the store and must forget when a transaction is undone. */
  readonly #onRollback: () => void;
  readonly #onCommit: (hasWritten: boolean) => void;
  #queue: Job[] = [];
  #scheduled = false;
  #busyTries = 0;
  #closed = false;

  constructor(
    connection: SqliteDriver.Database,
    options: {
      clock: { readonly offsetMs: number };
      busyTimeoutMs: number;
      onLosses: () => void;
      onRollback: () => void;
      /** Called behind the commit and its effects, outside of any transaction. Must not throw: the commit stands. */
      onCommit: (hasWritten: boolean) => void;
    },
  ) {
    this.connection = connection;
    this.session = new Session(connection, options.clock, options.onLosses);
    this.#busyTimeoutMs = options.busyTimeoutMs;
    this.#onRollback = options.onRollback;
    this.#onCommit = options.onCommit;
  }

  /** One atomic unit. The body is synchronous and may run twice; its answer is given after the commit. */
  write<Answer>(body: (tx: Session) => Answer): Promise<Answer> {
    if (this.#closed)
      return Promise.reject(engineError("unavailable", { op: "shutdown" }));
    return new Promise<Answer>((resolve, reject) => {
      this.#queue.push({
        body,
        resolve: resolve as (answer: unknown) => void,
        reject,
        queuedAtMs: performance.now(),
      });
      this.#schedule();
    });
  }

  /** One consistent look; takes no lock that would stop a writer. */
  async read<Answer>(body: (tx: Session) => Answer): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      if (this.#closed) throw engineError("unavailable", { op: "shutdown" });
      try {
        this.session.run("BEGIN");
        try {
          return body(this.session);
        } finally {
          this.session.run("COMMIT");
        }
      } catch (error) {
        // Rare: another process is recovering or resetting the log.
        if (!isBusy(error) || tries * BUSY_WAIT_MS_MAX > this.#busyTimeoutMs)
          throw error;
        await new Promise((resolve) => setTimeout(resolve, BUSY_WAIT_MS_MAX));
      }
    }
  }

  /** Resolves when nothing is queued any more. */
  async drained(): Promise<void> {
    while (this.#queue.length > 0)
      await new Promise((resolve) => setImmediate(resolve));
  }

  /** Calls queued now are finished; later ones are refused. */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.drained();
    this.#closed = true;
    this.connection.close();
  }

  get closed(): boolean {
    return this.#closed;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#scheduled = false;
    if (this.#queue.length === 0) return;
    if (!this.#begin()) return;

    const jobs: Job[] = [];
    const answers: unknown[] = [];
    const endsAtMs = performance.now() + GROUP_MS_MAX;
    try {
      while (
        this.#queue.length > 0 &&
        jobs.length < GROUP_CALLS_MAX &&
        (jobs.length === 0 || performance.now() < endsAtMs)
      ) {
        const job = this.#queue.shift()!;
        jobs.push(job);
        answers.push(job.body(this.session));
      }
      this.#commit();
    } catch (error) {
      this.#rollback();
      if (jobs.length === 1) jobs[0]!.reject(error);
      else this.#replay(jobs);
      if (this.#queue.length > 0) this.#schedule();
      return;
    }
    jobs.forEach((job, index) => job.resolve(answers[index]));
    if (this.#queue.length > 0) this.#schedule();
  }

  /** Takes the write lock, or arranges another try. */
  #begin(): boolean {
    try {
      this.session.run("BEGIN IMMEDIATE");
      this.#busyTries = 0;
      return true;
    } catch (error) {
      if (!isBusy(error)) {
        this.#rejectAll(error);
        return false;
      }
      this.#busyTries++;
      this.#dropOverdue(error);
      if (this.#queue.length === 0) return false;
      this.#scheduled = true;
      // Most writers are gone by the next turn; those that stay are given a moment, each waiter a different one.
      if (this.#busyTries === 1) setImmediate(() => this.#flush());
      else
        setTimeout(
          () => this.#flush(),
          1 + Math.random() * (BUSY_WAIT_MS_MAX - 1),
        );
      return false;
    }
  }

  #commit(): void {
    this.session.storePosition();
    this.session.run("COMMIT");
    const { hasWritten } = this.session;
    for (const effect of this.session.finish()) effect();
    this.#onCommit(hasWritten);
  }

  #rollback(): void {
    this.session.finish();
    if (this.connection.open && this.connection.inTransaction)
      this.session.run("ROLLBACK");
    this.#onRollback();
  }

  #replay(jobs: readonly Job[]): void {
    for (const [index, job] of jobs.entries()) {
      try {
        this.session.run("BEGIN IMMEDIATE");
      } catch (error) {
        // Someone else got in between: the rest waits its turn as if just asked for.
        if (isBusy(error)) {
          this.#queue.unshift(...jobs.slice(index));
          return;
        }
        job.reject(error);
        continue;
      }
      try {
        const answer = job.body(this.session);
        this.#commit();
        job.resolve(answer);
      } catch (error) {
        this.#rollback();
        job.reject(error);
      }
    }
  }

  #dropOverdue(cause: unknown): void {
    const overdueBeforeMs = performance.now() - this.#busyTimeoutMs;
    const exhausted = (): EngineError =>
      engineError("retry_exhausted", { attempts: this.#busyTries }, cause);
    this.#queue = this.#queue.filter((job) => {
      if (job.queuedAtMs > overdueBeforeMs) return true;
      job.reject(exhausted());
      return false;
    });
  }

  #rejectAll(error: unknown): void {
    for (const job of this.#queue.splice(0))
      job.reject(translateError(error, "begin"));
  }
}
