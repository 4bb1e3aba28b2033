/** What the driver throws, in the engine's words. The one place where it happens. */
import {
  EngineError,
  isEngineError,
  isRefusal,
  type Refusal,
  type TransportKind,
} from "@flowfabric/core";

/** Serialization fault, deadlock, lock time-out, and a unique key that another transaction took first. */
const CONTENTION: ReadonlySet<string> = new Set([
  "40001",
  "40P01",
  "55P03",
  "23505",
]);

/** The server says that it ends the connection, or cannot take one now. */
const SERVER_GONE: ReadonlySet<string> = new Set([
  "57P01",
  "57P02",
  "57P03",
  "57P05",
  "25P03",
  "53300",
]);

/** The server ended the session because nothing came from us for too long. */
const SERVER_HEARD_NOTHING: ReadonlySet<string> = new Set(["57P05", "25P03"]);

const SOCKET_GONE: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
]);

/** What the driver says in words only. */
const CONNECTION_WORDS =
  /connection terminated|connection ended|not queryable|client was closed|server closed the connection|timeout (?:expired|exceeded)|read timeout/i;

const EXPLAINED: readonly (readonly [
  prefix: string,
  kind: TransportKind,
  message: string,
])[] = [
  ["28", "auth", "the server refused the credentials; check user and password"],
  [
    "3D",
    "other",
    "the database does not exist; create it or check the connection string",
  ],
  [
    "42501",
    "auth",
    "the user lacks a right on the schema; grant it, or let its owner migrate",
  ],
  [
    "53100",
    "other",
    "the server's disk is full; nothing of this call was stored. Free some space and call again",
  ],
  [
    "57014",
    "timeout",
    "the server cancelled the statement; nothing of it was stored",
  ],
];

export function isContention(error: unknown): boolean {
  return CONTENTION.has(codeOf(error));
}

/** The connection is no more; whether its last statement took effect is open. */
export function isConnectionLost(error: unknown): boolean {
  if (isEngineError(error) || !(error instanceof Error)) return false;
  const code = codeOf(error);
  if (code.startsWith("08") || SERVER_GONE.has(code) || SOCKET_GONE.has(code))
    return true;
  if (error instanceof AggregateError)
    return error.errors.some(isConnectionLost);
  return code === "" && CONNECTION_WORDS.test(error.message);
}

/** What it is told in answer to came too late to be read: nothing of that took effect. */
export function isUnread(error: unknown): boolean {
  return SERVER_HEARD_NOTHING.has(codeOf(error));
}

/** @param operation for the error's context, where it is a transport fault */
export function translateError(error: unknown, operation: string): EngineError {
  if (isEngineError(error)) return error;
  if (isContention(error))
    return new EngineError(
      "retry_exhausted",
      { attempts: 1 },
      { cause: error },
    );
  const message = error instanceof Error ? error.message : String(error);
  if (/cannot use a pool after calling end/i.test(message)) {
    return new EngineError(
      "unavailable",
      { op: "shutdown" },
      { cause: error, context: operation },
    );
  }
  if (/timeout exceeded when trying to connect/i.test(message))
    return transport("timeout", message, error, operation);
  if (isConnectionLost(error))
    return transport(
      "transport",
      "the connection to the server was lost; call again",
      error,
      operation,
    );
  const code = codeOf(error);
  const explained = EXPLAINED.find(([prefix]) => code.startsWith(prefix));
  return explained === undefined
    ? transport("other", message, error, operation)
    : transport(explained[1], explained[2], error, operation);
}

function transport(
  backendKind: TransportKind,
  message: string,
  cause: unknown,
  context: string,
): EngineError {
  return new EngineError(
    "transport",
    { backend: "postgres", backendKind, message },
    { cause, context },
  );
}

function codeOf(error: unknown): string {
  return error instanceof Error &&
    "code" in error &&
    typeof error.code === "string"
    ? error.code
    : "";
}

/** The one place where a refusal, which let its transaction commit, becomes an error. */
export function settle<Answer>(answer: Answer | Refusal): Answer {
  if (isRefusal(answer)) throw answer.refused;
  return answer;
}
