/** A look at what a store sends: a pool that writes down each statement, in the order in which they leave. */
import pg from "pg";

export interface SentStatement {
  readonly text: string;
  readonly values: readonly unknown[];
}

export interface RecordingPool {
  readonly pool: pg.Pool;
  /** Since the last {@link RecordingPool.take}. */
  take(): SentStatement[];
}

/**
 * To be handed to a store as its `pool`; whoever made it ends it. Each entry is a message that is waited for: begin,
 * commit and several statements in one text count as one each. What the store sends on a connection of its own, such as
 * LISTEN, is not seen here.
 */
export function recordingPool(options: pg.PoolConfig): RecordingPool {
  let sent: SentStatement[] = [];
  // As the store's own pools are: without waiting between the statements of a transaction.
  const pool = new pg.Pool({ pipeline: true, ...options });
  pool.on("connect", (client) => {
    const query = client.query.bind(client) as (...given: unknown[]) => unknown;
    // The driver has a dozen forms of it; all of them begin with the statement and its values.
    client.query = ((...given: [Statement, unknown]) => {
      const [statement, values] = given;
      sent.push(
        typeof statement === "string"
          ? { text: statement, values: Array.isArray(values) ? values : [] }
          : { text: statement.text ?? "", values: statement.values ?? [] },
      );
      return query(...given);
    }) as typeof client.query;
  });
  return {
    pool,
    take() {
      const taken = sent;
      sent = [];
      return taken;
    },
  };
}

type Statement =
  string | { readonly text?: string; readonly values?: readonly unknown[] };
