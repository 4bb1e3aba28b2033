/** A look at what a store sends: a pool that writes down each statement, in the order in which they leave. */
import pg from "pg";

export interface SentStatement {
  readonly text: string;
  /** Counts the connections of the pool. */
  readonly connection: number;
  /** All that was sent before on its connection had been answered; what leaves beside others is no trip of its own. */
  readonly isTrip: boolean;
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
  let connections = 0;
  // As the store's own pools are: without waiting between the statements of a transaction.
  const pool = new pg.Pool({ pipeline: true, ...options });
  pool.on("connect", (client) => {
    const connection = connections++;
    const query = client.query.bind(client) as (...given: unknown[]) => unknown;
    let unanswered = 0;
    const answered = () => void unanswered--;
    // The driver has a dozen forms of it; all of them begin with the statement.
    client.query = ((...given: [Statement, ...unknown[]]) => {
      const [statement] = given;
      const text = typeof statement === "string" ? statement : statement.text;
      sent.push({ text: text ?? "", connection, isTrip: unanswered === 0 });
      const answer = query(...given);
      if (answer instanceof Promise) {
        unanswered++;
        // Before whoever waits for it sends the next.
        answer.then(answered, answered);
      }
      return answer;
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

type Statement = string | { readonly text?: string };

/** What stands by itself, and how many transactions of several statements there are beside it. */
export function apart(sent: readonly SentStatement[]): {
  readonly alone: string[];
  readonly transactions: number;
} {
  const open = new Set<number>();
  const alone: string[] = [];
  let transactions = 0;
  for (const { text, connection } of sent) {
    if (/^\s*BEGIN\b/.test(text)) {
      open.add(connection);
      transactions++;
    } else if (/^\s*(COMMIT|ROLLBACK)\b/.test(text)) open.delete(connection);
    else if (!open.has(connection)) alone.push(text);
  }
  return { alone, transactions };
}
