/** What the driver throws and the server says, in the engine's words. The one place where it happens. */
import {
  EngineError,
  isEngineError,
  isRefusal,
  type Refusal,
  type TransportKind,
} from "@flowfabric/core";

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
  /connection is closed|connection closed|command aborted|stream isn't writeable|max retries per request|socket closed/i;

const EXPLAINED: readonly (readonly [
  words: RegExp,
  kind: TransportKind,
  message: string,
])[] = [
  [
    /^(NOAUTH|WRONGPASS|NOPERM)|-NOPERM/,
    "auth",
    "the server refused the credentials or lacks the rights; check user, password and its ACL",
  ],
  [
    /^(LOADING|BUSY|MASTERDOWN|TRYAGAIN)/,
    "busy_loading",
    "the server is loading or busy with a script; nothing was written. Call again",
  ],
  [
    /^(READONLY|UNBLOCKED)|failover/i,
    "cluster",
    "the server became a replica; nothing was written. Call again, the new master is looked for",
  ],
  [
    /^(MOVED|ASK|CLUSTERDOWN|CROSSSLOT)|Cluster slots|ClusterAllFailed/,
    "cluster",
    "the cluster is rearranging or down; nothing was written. Call again",
  ],
  [
    /^NOREPLICAS/,
    "cluster",
    "too few replicas are connected; nothing was written. Call again when they are back",
  ],
  [
    /^OOM/,
    "other",
    "the server is at its memory limit; nothing was written. What runs can still finish; raise maxmemory, or trim what is kept",
  ],
  [
    /Script killed|SCRIPT KILL|FUNCTION KILL/i,
    "transport",
    "an operator ended the call; nothing was written. Call again",
  ],
  [
    /^MISCONF/,
    "other",
    "the server cannot save to its disk and takes no writes; free some space, or see its log",
  ],
];

/** The server was emptied, or lost what it wrote last: numbers that were kept in memory are not its own any more. */
export class StaleNumbers extends Error {
  constructor() {
    super("the numbers sent are not those of the store");
    this.name = "StaleNumbers";
  }
}

/** The library is not there: the server was flushed, restarted or replaced. */
export function isLibraryMissing(error: unknown): boolean {
  return /Function not found/i.test(messageOf(error));
}

/** The connection is no more; whether its last call took effect is open. */
export function isConnectionLost(error: unknown): boolean {
  if (isEngineError(error) || !(error instanceof Error)) return false;
  const code = "code" in error ? String(error.code) : "";
  return SOCKET_GONE.has(code) || CONNECTION_WORDS.test(error.message);
}

/** A cell that says nothing is left out for now. @param base what its keys begin with */
export function silence(base: string): EngineError {
  return transport(
    "timeout",
    `no answer yet from the node that has ${base}; call again`,
    undefined,
    "cell",
  );
}

/** @param operation for the error's context, where it is a transport fault */
export function translateError(error: unknown, operation: string): EngineError {
  if (isEngineError(error)) return error;
  const message = messageOf(error);
  const corrupt = /^FFCORRUPT (.*)$/s.exec(message);
  if (corrupt !== null) {
    return new EngineError(
      "corruption",
      {
        context: "execution",
        field: corrupt[1]!,
        message: "a stored record cannot be read",
      },
      { cause: error },
    );
  }
  if (error instanceof StaleNumbers)
    return transport(
      "transport",
      "the store was emptied or replaced meanwhile; nothing was written. Call again",
      error,
      operation,
    );
  if (/command timed out/i.test(message))
    return transport("timeout", message, error, operation);
  if (isConnectionLost(error))
    return transport(
      "transport",
      "the connection to the server was lost; call again",
      error,
      operation,
    );
  const explained = EXPLAINED.find(([words]) => words.test(message));
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
    { backend: "valkey", backendKind, message },
    { cause, context },
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The one place where a refusal becomes an error. */
export function settle<Answer>(answer: Answer | Refusal): Answer {
  if (isRefusal(answer)) throw answer.refused;
  return answer;
}
