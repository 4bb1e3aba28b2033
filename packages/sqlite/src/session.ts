/** What a procedure needs of the connection: statements by text, the clock, the next position, what follows the commit. */
import type SqliteDriver from "better-sqlite3";

export type SqlValue = string | number | bigint | Uint8Array | null;

export class Session {
  readonly #connection: SqliteDriver.Database;
  readonly #clock: { readonly offsetMs: number };
  readonly #onLosses: () => void;
  readonly #statements = new Map<string, SqliteDriver.Statement<SqlValue[]>>();
  readonly #rawStatements = new Map<
    string,
    SqliteDriver.Statement<SqlValue[]>
  >();
  #position: number | undefined;
  #afterCommit: (() => void)[] = [];
  #hasLosses = false;
  #hasWritten = false;

  /** @param onLosses a transaction has committed that took leases away from their holders */
  constructor(
    connection: SqliteDriver.Database,
    clock: { readonly offsetMs: number },
    onLosses: () => void,
  ) {
    this.#connection = connection;
    this.#clock = clock;
    this.#onLosses = onLosses;
  }

  /** Epoch milliseconds of the store; read once per operation. */
  now(): number {
    return Date.now() + this.#clock.offsetMs;
  }

  run(sql: string, ...values: SqlValue[]): number {
    const { changes } = this.#statement(sql).run(...values);
    if (changes > 0) this.#hasWritten = true;
    return changes;
  }
  get<Row>(sql: string, ...values: SqlValue[]): Row | undefined {
    return this.#statement(sql).get(...values) as Row | undefined;
  }
  all<Row>(sql: string, ...values: SqlValue[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  /** Rows as arrays, for tables with many columns. */
  rows(sql: string, ...values: SqlValue[]): unknown[][] {
    let statement = this.#rawStatements.get(sql);
    if (statement === undefined) {
      statement = this.#prepare(sql).raw();
      this.#rawStatements.set(sql, statement);
    }
    return statement.all(...values) as unknown[][];
  }

  /**
   * The next position of the log. Read once per transaction and counted on in memory; {@link storePosition} puts
   * it back before the commit. No other writer can interleave: the transaction holds the write lock.
   */
  nextPosition(): number {
    this.#position ??= this.get<{ value: number }>(READ_POSITION)!.value;
    return ++this.#position;
  }

  storePosition(): void {
    if (this.#position !== undefined) this.run(WRITE_POSITION, this.#position);
    this.#position = undefined;
  }

  /** Runs once the transaction that is open now has committed; never after a rollback. */
  afterCommit(effect: () => void): void {
    this.#afterCommit.push(effect);
  }

  /** The log tells a holder that its lease is gone. */
  noteLoss(): void {
    if (!this.#hasLosses) this.afterCommit(this.#onLosses);
    this.#hasLosses = true;
  }

  /** The transaction that is open now has changed something. */
  get hasWritten(): boolean {
    return this.#hasWritten;
  }

  /** Takes the effects of the finished transaction, and forgets its position. */
  finish(): (() => void)[] {
    const effects = this.#afterCommit;
    this.#afterCommit = [];
    this.#hasLosses = false;
    this.#hasWritten = false;
    this.#position = undefined;
    return effects;
  }

  #statement(sql: string): SqliteDriver.Statement<SqlValue[]> {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #prepare(sql: string): SqliteDriver.Statement<SqlValue[]> {
    return this.#connection.prepare<SqlValue[]>(plannedOnce(sql));
  }
}

/**
 * The planner looks at the value of a bare parameter that is a limit, or that an ordered column equals, and so plans the
 * statement anew whenever values are bound: ten times what a look at one row costs. Behind a sign it does not look.
 */
function plannedOnce(sql: string): string {
  return sql.replaceAll("?", "+?");
}

const READ_POSITION = `
  SELECT value
  FROM settings
  WHERE name = 'position'`;

const WRITE_POSITION = `
  UPDATE settings
  SET value = ?
  WHERE name = 'position'`;
