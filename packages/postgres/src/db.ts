/**
 * Transactions: each is one atomic unit, on a connection of the pool.
 *
 * Serialization faults, deadlocks and connections that broke before the commit was sent are tried again; a body may run
 * more than once and touches nothing but the store. What must follow a commit is left to {@link Session.afterCommit}.
 */
import { randomUUID } from "node:crypto";

import { engineError, isEngineError } from "@flowfabric/core";
import type { Pool, PoolClient, QueryResult } from "pg";

import { ignore, takeConnection } from "./connection.js";
import type { Dialect } from "./dialect.js";
import { isConnectionLost, isContention, isUnread } from "./errors.js";
import { Notifier } from "./notifier.js";
import { Session, type Mode, type SqlValue } from "./session.js";

const TRIES_MAX = 4;
const RETRY_WAIT_MS = 20;
/** What a process remembers and what it has to read first: more misses than this in one call are a fault. */
const MISSES_MAX = 64;

/** A transaction found that this process does not know a row of a small table; it is read, and the body run again. */
export class NotInMemory extends Error {
  readonly load: (db: Database) => Promise<void>;
  constructor(load: (db: Database) => Promise<void>) {
    super("not in memory");
    this.load = load;
  }
}

type Body<Answer> = (tx: Session) => Answer | Promise<Answer>;

export class Database {
  readonly dialect: Dialect;
  readonly notifier: Notifier;
  readonly #pool: Pool;
  /** Ends the pool, where it is ours. */
  readonly #end: () => Promise<void>;
  /** Learns of routes that other processes made. */
  readonly #onRoutes: (newest: number) => Promise<void>;
  readonly #calls = new Set<Promise<unknown>>();
  #closed = false;

  constructor(
    pool: Pool,
    dialect: Dialect,
    options: {
      push: boolean;
      end: () => Promise<void>;
      onRoutes: (newest: number) => Promise<void>;
    },
  ) {
    this.#pool = pool;
    this.dialect = dialect;
    this.notifier = new Notifier(
      `flowfabric_${dialect.schema.replaceAll('"', "")}`,
      randomUUID(),
      options.push,
    );
    this.#end = options.end;
    this.#onRoutes = options.onRoutes;
  }

  /** One atomic unit; the body may run more than once. Its answer is given after the commit. */
  write<Answer>(body: Body<Answer>): Promise<Answer> {
    return this.#tracked(() => this.#transaction(body, "write"));
  }

  /** As {@link write}, a trip less: for bodies that read before they look at the clock or at a route. */
  writeReadingFirst<Answer>(body: Body<Answer>): Promise<Answer> {
    return this.#tracked(() => this.#transaction(body, "write", true));
  }

  /** One consistent look; takes no row lock. */
  read<Answer>(body: Body<Answer>): Promise<Answer> {
    return this.#tracked(() => this.#transaction(body, "read"));
  }

  /** One statement that is a transaction of its own. */
  query<Row>(sql: string, ...values: SqlValue[]): Promise<Row[]> {
    return this.#tracked(() => this.#statement(sql, values, "write"));
  }

  /** One statement that writes nothing: where its connection breaks, it is asked again. */
  look<Row>(sql: string, ...values: SqlValue[]): Promise<Row[]> {
    return this.#tracked(() => this.#statement(sql, values, "read"));
  }

  /**
   * One statement that is a transaction of its own, and holds what the body writes; the body reads nothing, and may run more
   * than once.
   * @param body answers the statement, and its values in front of those of {@link written}
   * @returns the only row of the statement; where it says that it is done, what must follow the commit has followed
   */
  writeAtOnce<Row extends { readonly done: boolean }>(
    body: (tx: Session) => readonly [sql: string, ...values: SqlValue[]],
  ): Promise<Row> {
    return this.#tracked(() =>
      this.#retried(async (client, sent) => {
        const tx = new Session(client, this.dialect, "write", this.notifier);
        const [sql, ...values] = body(tx);
        const writes = tx.takeWrites();
        sent();
        const row = await tx.get<Row>(sql, ...values, ...writes.values);
        if (row!.done) for (const effect of writes.effects) effect();
        return row!;
      }),
    );
  }

  /** Several plain statements at once, without parameters; rows of the last ones by statement. */
  script(text: string): Promise<Record<string, string>[][]> {
    return this.#tracked(() =>
      this.#retried(async (client) => {
        const results = (await client.query(text)) as unknown as QueryResult[];
        return [results].flat().map(({ rows }) => rows);
      }),
    );
  }

  /** Resolves when no call is going on any more. */
  async drained(): Promise<void> {
    while (this.#calls.size > 0) await Promise.allSettled([...this.#calls]);
  }

  /** Calls that have begun are finished; later ones are refused. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.drained();
    await this.#end();
  }

  get closed(): boolean {
    return this.#closed;
  }

  #tracked<Answer>(call: () => Promise<Answer>): Promise<Answer> {
    if (this.#closed)
      return Promise.reject(engineError("unavailable", { op: "shutdown" }));
    const running = call();
    this.#calls.add(running);
    const done = () => void this.#calls.delete(running);
    running.then(done, done);
    return running;
  }

  #statement<Row>(sql: string, values: SqlValue[], mode: Mode): Promise<Row[]> {
    return this.#retried(async (client, sent) => {
      const tx = new Session(client, this.dialect, mode, this.notifier);
      if (mode === "write") sent();
      return await tx.all<Row>(sql, ...values);
    });
  }

  #transaction<Answer>(
    body: Body<Answer>,
    mode: Mode,
    readsFirst = false,
  ): Promise<Answer> {
    return this.#retried(async (client, sent) => {
      const tx = new Session(client, this.dialect, mode, this.notifier);
      let effects: (() => void)[];
      let answer: Answer;
      try {
        const begun = tx.begin().then((newest) => this.#onRoutes(newest));
        if (readsFirst) begun.catch(ignore);
        else await begun;
        answer = await body(tx);
        await begun;
        if (mode === "write") sent();
        effects = await tx.commit();
      } catch (error) {
        const fault = tx.faultBehind(error);
        if (!isConnectionLost(fault))
          await client.query("ROLLBACK").catch(() => {});
        throw fault;
      }
      for (const effect of effects) effect();
      return answer;
    });
  }

  async #retried<Answer>(
    attempt: (client: PoolClient, sent: () => void) => Promise<Answer>,
  ): Promise<Answer> {
    let misses = 0;
    for (let tries = 1; ;) {
      let mayHaveHappened = false;
      let client: PoolClient | undefined;
      let broken = false;
      let failure: unknown;
      try {
        client = await takeConnection(this.#pool);
        return await attempt(client, () => {
          mayHaveHappened = true;
        });
      } catch (error) {
        failure = error;
        broken = isConnectionLost(error);
      } finally {
        client?.off("error", ignore);
        client?.release(broken);
      }
      if (failure instanceof NotInMemory && ++misses <= MISSES_MAX) {
        await failure.load(this);
        continue;
      }
      const again =
        isContention(failure) ||
        (broken && (!mayHaveHappened || isUnread(failure)));
      if (!again || isEngineError(failure)) throw failure;
      if (++tries > TRIES_MAX)
        throw broken
          ? failure
          : engineError("retry_exhausted", { attempts: tries - 1 }, failure);
      await new Promise((resolve) =>
        setTimeout(
          resolve,
          RETRY_WAIT_MS * tries * tries * (0.5 + Math.random()),
        ),
      );
    }
  }
}
