/**
 * Sessions that nobody will use again. A client whose network died silently cannot say goodbye, and the server keeps its
 * sessions until TCP gives them up, by default after hours. Each of them holds one of the server's places: after a few
 * such moments none would be left for the clients that come back. So the server is told to end what lies idle for longer
 * than any of our connections does.
 */
import type { ClientBase } from "pg";

const CLIENT_IDLE_MS_MAX = 10_000;
/** The server counts milliseconds in four bytes. */
const SERVER_IDLE_MS_MAX = 2 ** 31 - 1;

export interface IdleLimits {
  /** A pool closes a connection that was not used for so long. */
  readonly clientMs: number;
  /** The server ends a session from which it heard nothing for so long: later than its client would have. */
  readonly serverMs: number;
}

export function idleLimits(answerTimeoutMs: number): IdleLimits {
  const clientMs = Math.min(answerTimeoutMs, CLIENT_IDLE_MS_MAX);
  const serverMs = Math.min(clientMs + answerTimeoutMs, SERVER_IDLE_MS_MAX);
  return { clientMs, serverMs };
}

/**
 * To be said first on a connection. Without effect where that is not its place: behind a pooler, which tells its clients
 * process numbers of its own, the session is shared with others and outlives us; and an operator's own limit stands.
 */
export async function limitIdleTime(
  client: ClientBase,
  { serverMs }: IdleLimits,
): Promise<void> {
  // The driver's types do not know it.
  const { processID } = client as { processID?: number | null };
  try {
    await client.query(LIMIT_IDLE_TIME, [String(serverMs), processID]);
  } catch {
    // Whoever uses the connection learns whether it is broken.
  }
}

const LIMIT_IDLE_TIME = `
  SELECT set_config('idle_session_timeout', $1, FALSE)
  WHERE pg_backend_pid() = $2 AND current_setting('idle_session_timeout') = '0'`;
