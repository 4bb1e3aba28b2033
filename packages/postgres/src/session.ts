/**
 * A session per transaction, whose writes are sent together.
 *
 * A body reads with `await` and writes without: what it writes is collected and goes out as one burst in front of its
 * next read, or with the commit. Rows are locked as they are read, and the clock is read again behind each lock, so that
 * a call which waited cannot pass off an old time for a new one.
 */
import { engineError } from "@flowfabric/core";
import type { ExecutionRow } from "@flowfabric/core/sql";
import type { QueryResult } from "pg";

import { ignore } from "./connection.js";
import { TYPES, type Dialect } from "./dialect.js";
import { notified, type Notifier } from "./notifier.js";
import {
  INSERT_EVENTS,
  SAVE_EXECUTIONS,
  toJsonRow,
  type EventValues,
} from "./writes.js";

export type SqlValue =
  | string
  | number
  | bigint
  | Uint8Array
  | null
  | readonly (string | number | Uint8Array | null)[];

/** Anything with pg's `query`: a client, a pool's client, or a wrapper around one. */
export interface Queryable {
  query(query: {
    text: string;
    values?: unknown[];
    name?: string;
    rowMode?: "array";
    types?: typeof TYPES;
  }): Promise<unknown>;
  /** It sends without waiting for the answers before. */
  readonly pipeline?: boolean;
}

export type Mode = "write" | "read" | "caller";

/** What a procedure needs of a transaction. */
export class Session {
  readonly #client: Queryable;
  readonly #dialect: Dialect;
  readonly #mode: Mode;
  readonly #notifier: Notifier;
  #now: number | undefined;
  #runs: { sql: string; values: SqlValue[] }[] = [];
  #saves = new Map<number, ExecutionRow>();
  #events: EventValues[] = [];
  #sent: Promise<unknown>[] = [];
  #failure: { readonly error: unknown } | undefined;
  /** A client that does not pipeline takes one query after the other. */
  #turn: Promise<unknown> = Promise.resolve();
  /** The answer to BEGIN, which nothing that is read comes before. */
  #begun: Promise<number> | undefined;
  #afterCommit: (() => void)[] = [];
  readonly #toTell = new Map<string, number>();
  readonly #locked = new Map<string, ExecutionRow>();
  readonly #payloads = new Map<number, Uint8Array | null>();

  constructor(
    client: Queryable,
    dialect: Dialect,
    mode: Mode,
    notifier: Notifier,
  ) {
    this.#client = client;
    this.#dialect = dialect;
    this.#mode = mode;
    this.#notifier = notifier;
  }

  /** Epoch milliseconds of the store, as of the last lock. */
  now(): number {
    if (this.#now === undefined)
      throw engineError("invariant_violation", { what: "no clock was read" });
    return this.#now;
  }

  /** A clock read after a lock; never an earlier one. */
  noteTime(nowMs: number): void {
    this.#now = Math.max(this.#now ?? nowMs, nowMs);
  }

  get locks(): boolean {
    return this.#mode === "write";
  }

  /** It ends when and how its owner likes. */
  get isCallers(): boolean {
    return this.#mode === "caller";
  }

  /** Sent with the next read or the commit. */
  run(sql: string, ...values: SqlValue[]): void {
    this.#runs.push({ sql, values });
  }

  /** As {@link run}, at once, and tells how many rows it met. */
  async change(sql: string, ...values: SqlValue[]): Promise<number> {
    this.flush();
    return (await this.#send(sql, values)).rowCount ?? 0;
  }

  async get<Row>(sql: string, ...values: SqlValue[]): Promise<Row | undefined> {
    return (await this.all<Row>(sql, ...values))[0];
  }

  async all<Row>(sql: string, ...values: SqlValue[]): Promise<Row[]> {
    this.flush();
    return (await this.#send(sql, values)).rows as Row[];
  }

  /** Rows as arrays, for tables with many columns. */
  async rows(sql: string, ...values: SqlValue[]): Promise<unknown[][]> {
    this.flush();
    return (await this.#send(sql, values, "array")).rows as unknown[][];
  }

  /** Written once, however often it is asked for. */
  save(row: ExecutionRow): void {
    this.#saves.set(row.seq, { ...row });
  }

  event(values: EventValues): void {
    this.#events.push(values);
  }

  /** Rows that one statement has locked ahead, for bodies that go through them one by one. */
  keepLocked(name: string, row: ExecutionRow): void {
    this.#locked.set(name, row);
  }
  locked(name: string): ExecutionRow | undefined {
    return this.#locked.get(name);
  }

  /** Inputs that one statement has read ahead. */
  keepPayload(seq: number, payload: Uint8Array | null): void {
    this.#payloads.set(seq, payload);
  }
  payload(seq: number): Uint8Array | null | undefined {
    return this.#payloads.get(seq);
  }

  /** Who waits for this is told with the commit: something is due that much later. */
  tell(name: string, inMs: number): void {
    this.#toTell.set(name, Math.min(this.#toTell.get(name) ?? inMs, inMs));
  }

  /** Runs once the transaction has committed; never after a rollback. */
  afterCommit(effect: () => void): void {
    this.#afterCommit.push(effect);
  }

  flush(): void {
    for (const { sql, values } of this.#runs.splice(0)) this.#post(sql, values);
    if (this.#saves.size > 0) this.#post(SAVE_EXECUTIONS, [this.#savesText()]);
    if (this.#events.length > 0)
      this.#post(INSERT_EVENTS, [this.#eventsText()]);
  }

  /** The rows, the events and whom to tell, for {@link written}, and what must follow that statement. */
  takeWrites(): { values: SqlValue[]; effects: (() => void)[] } {
    if (this.#runs.length > 0)
      throw engineError("invariant_violation", {
        what: "a statement beside the one that holds all that is written",
      });
    return {
      values: [
        this.#savesText(),
        this.#eventsText(),
        ...this.#notifier.values(this.#toTell),
      ],
      effects: this.#afterCommit,
    };
  }

  #savesText(): string {
    const text = JSON.stringify([...this.#saves.values()].map(toJsonRow));
    this.#saves.clear();
    return text;
  }

  #eventsText(): string {
    return JSON.stringify(this.#events.splice(0));
  }

  /** @returns the number of the newest route */
  begin(): Promise<number> {
    this.#begun = this.#begin();
    return this.#begun;
  }

  async #begin(): Promise<number> {
    const { schema, idleInTransactionMs } = this.#dialect;
    // A scan that there is no way around counts as so dear then that the server would compile it, each time anew.
    const settings = `SET LOCAL idle_in_transaction_session_timeout = ${idleInTransactionMs}; SET LOCAL enable_seqscan = off; SET LOCAL jit = off`;
    const begin =
      this.#mode === "read"
        ? "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        : "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE";
    const results = (await this.#query({
      text: `${begin}; ${settings}; SELECT ${schema}.now_ms()::TEXT AS now, (SELECT coalesce(max(id), 0)::TEXT FROM ${schema}.routes) AS routes`,
    })) as QueryResult<{ now: string; routes: string }>[];
    const { now, routes } = results.at(-1)!.rows[0]!;
    this.noteTime(Number(now));
    return Number(routes);
  }

  /** Sends what is left, waits for all of it; in a caller's transaction that is the end of it. */
  async settle(): Promise<void> {
    this.#notify();
    this.flush();
    await Promise.all(this.#sent.splice(0));
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** @returns what must follow the commit */
  async commit(): Promise<(() => void)[]> {
    this.#notify();
    this.flush();
    const committed = this.#query({ text: "COMMIT" });
    // Never unheard, also where a statement before it fails first.
    committed.catch(() => {});
    await Promise.all(this.#sent.splice(0));
    if (this.#failure !== undefined) throw this.#failure.error;
    await committed;
    return this.#afterCommit;
  }

  /** What went wrong first: later statements only say that the transaction is aborted. */
  faultBehind(error: unknown): unknown {
    return this.#failure === undefined ? error : this.#failure.error;
  }

  #notify(): void {
    if (this.#toTell.size === 0 || !this.#notifier.push) return;
    this.run(NOTIFY, ...this.#notifier.values(this.#toTell));
  }

  #post(sql: string, values: SqlValue[]): void {
    const sent = this.#send(sql, values);
    sent.catch(() => {});
    this.#sent.push(sent);
  }

  async #send(
    sql: string,
    values: SqlValue[],
    rowMode?: "array",
  ): Promise<QueryResult> {
    try {
      const sent = this.#query({
        ...this.#dialect.statement(sql),
        values,
        types: TYPES,
        ...(rowMode === undefined ? {} : { rowMode }),
      });
      // Where BEGIN went wrong, that is what went wrong.
      sent.catch(ignore);
      await this.#begun;
      return (await sent) as QueryResult;
    } catch (error) {
      this.#failure ??= { error };
      throw error;
    }
  }

  #query(query: Parameters<Queryable["query"]>[0]): Promise<unknown> {
    if (this.#client.pipeline === true) return this.#client.query(query);
    const sent = this.#turn.then(() => this.#client.query(query));
    this.#turn = sent.catch(() => {});
    return sent;
  }
}

const NOTIFY = notified();
