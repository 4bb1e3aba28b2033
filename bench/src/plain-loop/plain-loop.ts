/**
 * The job queue that a careful programmer writes by hand on SQLite in an afternoon: one table, short transactions, an owner
 * and a lease so that a crashed worker's job can be found again. No history, no retries, no priorities, no push.
 */
import SqliteDriver from "better-sqlite3";

export interface Job {
  readonly id: number;
  readonly payload: Uint8Array;
  readonly leaseExpiresAtMs: number;
}

export class PlainLoop {
  readonly #connection: SqliteDriver.Database;
  readonly #insert: SqliteDriver.Statement;
  readonly #oldest: SqliteDriver.Statement;
  readonly #take: SqliteDriver.Statement;
  readonly #finish: SqliteDriver.Statement;
  readonly #inTransaction: SqliteDriver.Transaction<
    (body: () => unknown) => unknown
  >;
  readonly #owner: string;

  constructor(path: string, durability: "full" | "normal", owner: string) {
    this.#owner = owner;
    const connection = new SqliteDriver(path);
    this.#connection = connection;
    connection.pragma("journal_mode = WAL");
    connection.pragma(`synchronous = ${durability}`);
    // As the engine has them, so that they are no part of the difference.
    connection.pragma("wal_autocheckpoint = 10000");
    connection.pragma("cache_size = -65536");
    connection.pragma("temp_store = MEMORY");
    connection.exec(`
      CREATE TABLE IF NOT EXISTS jobs (
        id INTEGER PRIMARY KEY,
        status TEXT NOT NULL,
        payload BLOB NOT NULL,
        result BLOB,
        owner TEXT,
        lease_expires_at INTEGER,
        created_at INTEGER NOT NULL,
        finished_at INTEGER
      );
      CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, id);`);
    this.#insert = connection.prepare(`
      INSERT INTO jobs (status, payload, created_at)
      VALUES ('pending', ?, ?)`);
    this.#oldest = connection.prepare(`
      SELECT id, payload
      FROM jobs
      WHERE status = 'pending'
      ORDER BY id
      LIMIT 1`);
    this.#take = connection.prepare(`
      UPDATE jobs
      SET status = 'running', owner = ?, lease_expires_at = ?
      WHERE id = ?`);
    this.#finish = connection.prepare(`
      UPDATE jobs
      SET status = 'done', result = ?, finished_at = ?
      WHERE id = ? AND status = 'running' AND owner = ? AND lease_expires_at = ?`);
    this.#inTransaction = connection.transaction((body: () => unknown) =>
      body(),
    );
  }

  /** A statement of its own, committed by itself. */
  insert(payload: Uint8Array): void {
    this.#insert.run(payload, Date.now());
  }

  claim(leaseTtlMs: number): Job | undefined {
    return this.#inTransaction.immediate(() => {
      const found = this.#oldest.get() as
        { id: number; payload: Uint8Array } | undefined;
      if (found === undefined) return undefined;
      const leaseExpiresAtMs = Date.now() + leaseTtlMs;
      this.#take.run(this.#owner, leaseExpiresAtMs, found.id);
      return { ...found, leaseExpiresAtMs };
    }) as Job | undefined;
  }

  /** @returns false where the lease is no longer ours */
  complete({ id, leaseExpiresAtMs }: Job, result: Uint8Array): boolean {
    return this.#inTransaction.immediate(
      () =>
        this.#finish.run(result, Date.now(), id, this.#owner, leaseExpiresAtMs)
          .changes === 1,
    ) as boolean;
  }

  unfinished(): number {
    return this.#connection
      .prepare<[], number>("SELECT count(*) FROM jobs WHERE status <> 'done'")
      .pluck()
      .get()!;
  }

  close(): void {
    this.#connection.close();
  }
}
