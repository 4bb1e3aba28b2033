/** How statements are told to this store: its schema, their names, and what becomes of the values they answer. */
import { createHash } from "node:crypto";

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

const STATEMENTS_MAX = 500;
const TABLE_NAMES =
  /\b(FROM|JOIN|INTO|UPDATE|USING)\s+(settings|routes|lanes|holders|executions|inputs|results|progress|attempts|idempotency|tags|grants|events|purged|streams|frames|summaries|stale_frames|workers|waiters|suspensions|suspend_replays|waitpoints|signals|signal_keys|signal_sources|waitpoint_secrets|migrations)\b/g;

/**
 * For conditions that always hold: of the rows that a statement is given, the planner then expects a few, and looks each
 * up by an index. Of a hundred, its own guess, it would rather read a table whole while that is small, and go on doing so
 * when it is no longer.
 */
export const few = (column: string) => `${column} BETWEEN 0 AND 2147483647`;

const BOOL = 16;
const INT8 = 20;
const NUMERIC = 1700;
const UUID = 2950;
const BYTEA = 17;
const NUMBERS = new Set([21, 23, 26, INT8, 700, 701, NUMERIC]);

/** Per query, for a parser that is set globally would change the caller's own. */
export const TYPES = {
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
