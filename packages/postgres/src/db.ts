/**
 * Connections and transactions: a session per transaction, whose writes are sent together.
 *
 * A body reads with `await` and writes without: what it writes is collected and goes out as one burst in front of its
 * next read, or with the commit. Rows are locked as they are read, and the clock is read again behind each lock, so that
 * a call which waited cannot pass off an old time for a new one.
 *
 * Serialization faults, deadlocks and connections that broke before the commit was sent are tried again; a body may run
 * more than once and touches nothing but the store. What must follow a commit is left to {@link Session.afterCommit}.
 */
import { createHash, randomUUID } from "node:crypto";

import { engineError, isEngineError } from "@flowfabric/core";
import { MUTABLE_COLUMNS, type ExecutionRow } from "@flowfabric/core/sql";
import type { Pool, PoolClient, QueryResult } from "pg";

import { isConnectionLost, isContention, isUnread } from "./errors.js";

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

interface Statement {
  readonly text: string;
  readonly name: string | undefined;
  uses: number;
}

/** Statement texts as the store's schema needs them: tables qualified, parameters numbered. */
export class Dialect {
  readonly schema: string;
  /** A process that stops inside a transaction, or is cut off there, must not hold its locks for ever. */
  readonly idleInTransactionMs: number;
  readonly #prepared: boolean;
  readonly #known = new Map<string, Statement>();

  constructor(schema: string, prepared: boolean, idleInTransactionMs: number) {
    this.idleInTransactionMs = idleInTransactionMs;
    this.schema = `"${schema.replaceAll('"', '""')}"`;
    this.#prepared = prepared;
  }

  /**
   * A prepared statement keeps its plan. One that was made for a table of a few rows must not outlive them, so the name
   * changes at every eighth, sixty-fourth, … use, and the server plans anew.
   */
  statement(sql: string): { text: string; name?: string } {
    const known = this.#known.get(sql) ?? this.#prepare(sql);
    if (known.name === undefined) return { text: known.text };
    const generation = Math.floor(Math.log2(++known.uses) / 3);
    return { text: known.text, name: `${known.name}_${generation}` };
  }

  #prepare(sql: string): Statement {
    let count = 0;
    const text = sql
      .replace(TABLE_NAMES, `$1 ${this.schema}.$2`)
      .replaceAll("now_ms()", `${this.schema}.now_ms()`)
      .replaceAll("{schema}", this.schema)
      .replaceAll("?", () => `$${++count}`);
    // Lists with filters have many forms; those are not worth a plan of their own.
    if (this.#known.size >= STATEMENTS_MAX)
      return { text, name: undefined, uses: 0 };
    const digest = createHash("sha256").update(text).digest("hex");
    const name = this.#prepared ? `ff_${digest.slice(0, 24)}` : undefined;
    const known = { text, name, uses: 0 };
    this.#known.set(sql, known);
    return known;
  }
}

/**
 * For conditions that always hold: of the rows that a statement is given, the planner then expects a few, and looks each
 * up by an index. Of a hundred, its own guess, it would rather read a table whole while that is small, and go on doing so
 * when it is no longer.
 */
export const few = (column: string) => `${column} BETWEEN 0 AND 2147483647`;

const STATEMENTS_MAX = 500;
const TABLE_NAMES =
  /\b(FROM|JOIN|INTO|UPDATE|USING)\s+(settings|routes|lanes|holders|executions|inputs|results|progress|attempts|idempotency|tags|grants|events|purged|workers|waiters|migrations)\b/g;

const BOOL = 16;
const INT8 = 20;
const NUMERIC = 1700;
const UUID = 2950;
const BYTEA = 17;
const NUMBERS = new Set([21, 23, 26, INT8, 700, 701, NUMERIC]);

/** Per query, for a parser that is set globally would change the caller's own. */
const TYPES = {
  getTypeParser(oid: number) {
    if (NUMBERS.has(oid)) return Number;
    if (oid === BOOL) return (text: string) => text === "t";
    if (oid === UUID)
      return (text: string) => Buffer.from(text.replaceAll("-", ""), "hex");
    if (oid === BYTEA)
      return (text: string) => Buffer.from(text.slice(2), "hex");
    return (text: string) => text;
  },
};

type Mode = "write" | "read" | "caller";

/** Stands for news of any kind in the table of waiters; no lane has this name. */
export const NEWS = "";
/** A notification of this many bytes would be refused; beyond it, everyone is told to look at everything. */
const NOTICE_BYTES_MAX = 7_000;
const NOBODY = "00000000-0000-0000-0000-000000000000";

/**
 * Tells other processes with the commit, by a statement of the transaction itself: no trip of its own, and nobody who
 * dies between the two can leave a waiter untold. Only where somebody waits, for commits that notify queue up for one
 * lock of the server.
 */
export class Notifier {
  readonly channel: string;
  /** Who speaks, and does not listen to itself; in a caller's transaction, nobody: we learn of its commit like others. */
  readonly process: string | undefined;
  readonly push: boolean;

  constructor(channel: string, process: string | undefined, push: boolean) {
    this.channel = channel;
    this.process = process;
    this.push = push;
  }

  /** For {@link notified}. Nobody waits on no lane. */
  values(toTell: ReadonlyMap<string, number>): NotifyValues {
    if (!this.push || toTell.size === 0) return [this.channel, "", [], NOBODY];
    const notice = JSON.stringify({
      from: this.process,
      lanes: Object.fromEntries(toTell),
    });
    return [
      this.channel,
      Buffer.byteLength(notice) <= NOTICE_BYTES_MAX ? notice : "*",
      [...toTell.keys()],
      this.process ?? NOBODY,
    ];
  }
}

export type NotifyValues = [
  channel: string,
  notice: string,
  lanes: string[],
  process: string,
];

/** Also a part of statements that write; a part that is only read must be read by the statement's end to happen. */
export const notified = (condition = "TRUE") => `
    SELECT pg_notify(?::TEXT, ?::TEXT)
    WHERE ${condition} AND EXISTS (
      SELECT 1
      FROM waiters
      WHERE lane = ANY(?::TEXT[]) AND process <> ?::UUID AND until > (SELECT now_ms())
    )`;

const NOTIFY = notified();

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

  /** On these lanes, or of any news where there are none, others are told with the commit: something is due that much later. */
  tell(lanes: Iterable<string>, inMs: number): void {
    for (const lane of [NEWS, ...lanes])
      this.#toTell.set(lane, Math.min(this.#toTell.get(lane) ?? inMs, inMs));
  }

  /** Runs once the transaction has committed; never after a rollback. */
  afterCommit(effect: () => void): void {
    this.#afterCommit.push(effect);
  }

  flush(): void {
    for (const { sql, values } of this.#runs.splice(0)) this.#post(sql, values);
    if (this.#saves.size > 0) {
      this.#post(SAVE_EXECUTIONS, [
        JSON.stringify([...this.#saves.values()].map(toJsonRow)),
      ]);
      this.#saves.clear();
    }
    if (this.#events.length > 0)
      this.#post(INSERT_EVENTS, [JSON.stringify(this.#events.splice(0))]);
  }

  async begin(): Promise<number> {
    const { schema, idleInTransactionMs } = this.#dialect;
    const settings = `SET LOCAL idle_in_transaction_session_timeout = ${idleInTransactionMs}; SET LOCAL enable_seqscan = off`;
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
      return (await this.#query({
        ...this.#dialect.statement(sql),
        values,
        types: TYPES,
        ...(rowMode === undefined ? {} : { rowMode }),
      })) as QueryResult;
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

/** An event's columns; the position comes from its sequence. */
export interface EventValues {
  readonly execution: number;
  readonly n: number | null;
  readonly at: number;
  readonly type: number;
  readonly actor: number;
  readonly state: number | null;
  readonly attempt: number | null;
  readonly epoch: number | null;
  readonly holder: number | null;
  readonly lease: string | null;
  readonly attempt_id: string | null;
  readonly reason: string | null;
  readonly data: string | null;
  readonly tags: string | null;
}

function toJsonRow(row: ExecutionRow): Record<string, unknown> {
  const json: Record<string, unknown> = { seq: row.seq };
  for (const column of MUTABLE_COLUMNS) {
    const value = row[column];
    json[column] =
      value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value;
  }
  return json;
}

const COLUMN_TYPES: {
  readonly [C in (typeof MUTABLE_COLUMNS)[number]]?: string;
} = {
  lease: "UUID",
  attempt_id: "UUID",
  request: "TEXT",
  tags: "TEXT",
  details: "TEXT",
};

/** Every column that may change; one new row version and two index entries at most for each. */
const SAVE_EXECUTIONS = `
  UPDATE executions AS e
  SET ${MUTABLE_COLUMNS.map((column) => `${column} = v.${column}`).join(", ")}
  FROM json_to_recordset(?::JSON) AS v (
    seq BIGINT, ${MUTABLE_COLUMNS.map((column) => `${column} ${COLUMN_TYPES[column] ?? "BIGINT"}`).join(", ")}
  )
  WHERE e.seq = v.seq`;

const INSERT_EVENTS = `
  INSERT INTO events
    (execution, n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, reason, data, tags)
  SELECT execution, n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, reason, data, tags
  FROM json_to_recordset(?::JSON) AS v (
    execution BIGINT, n INTEGER, at BIGINT, type SMALLINT, actor SMALLINT, state INTEGER, attempt INTEGER, epoch BIGINT,
    holder BIGINT, lease UUID, attempt_id UUID, reason TEXT, data TEXT, tags TEXT
  )`;

/** A connection that breaks tells its queries; without a listener it would end the process as well. */
export const ignore = () => {};

/**
 * By callback, and listened to from its first moment: a server that ends a session as it lets it in says both in one
 * packet, and then the error comes before a promise of the connection resolves. Whoever releases it stops listening.
 */
export function takeConnection(pool: Pool): Promise<PoolClient> {
  return new Promise((resolve, reject) => {
    pool.connect((error, client) => {
      if (client === undefined) {
        reject(error ?? new Error("the pool gave no connection"));
        return;
      }
      client.on("error", ignore);
      resolve(client);
    });
  });
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

  /** One consistent look; takes no row lock. */
  read<Answer>(body: Body<Answer>): Promise<Answer> {
    return this.#tracked(() => this.#transaction(body, "read"));
  }

  /** One statement that is a transaction of its own. */
  query<Row>(sql: string, ...values: SqlValue[]): Promise<Row[]> {
    return this.#tracked(() =>
      this.#retried(async (client, sent) => {
        const session = new Session(
          client,
          this.dialect,
          "write",
          this.notifier,
        );
        sent();
        return await session.all<Row>(sql, ...values);
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

  #transaction<Answer>(body: Body<Answer>, mode: Mode): Promise<Answer> {
    return this.#retried(async (client, sent) => {
      const tx = new Session(client, this.dialect, mode, this.notifier);
      let effects: (() => void)[];
      let answer: Answer;
      try {
        await this.#onRoutes(await tx.begin());
        answer = await body(tx);
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
