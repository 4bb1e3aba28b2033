/** What the driver throws, in the engine's words. The one place where it happens. */
import {
  EngineError,
  isEngineError,
  isRefusal,
  type Refusal,
  type TransportKind,
} from "@flowfabric/core";
import SqliteDriver from "better-sqlite3";

const EXPLAINED: readonly (readonly [prefix: string, message: string])[] = [
  [
    "SQLITE_FULL",
    "the disk is full; nothing of this call was stored. Free some space and call again",
  ],
  [
    "SQLITE_READONLY",
    "the database file or its folder cannot be written; nothing was changed. Check its permissions",
  ],
  [
    "SQLITE_CORRUPT",
    "the database file is damaged; nothing was changed. Restore it from a backup",
  ],
  [
    "SQLITE_NOTADB",
    "the file is not a SQLite database; it was left as it is. Check the path",
  ],
  [
    "SQLITE_CANTOPEN",
    "the database file cannot be opened. Check that its folder exists and may be used",
  ],
  [
    "SQLITE_IOERR",
    "reading or writing the database file failed; nothing of this call was stored",
  ],
  [
    "SQLITE_TOOBIG",
    "a value is larger than SQLite stores; nothing was changed",
  ],
];

export function isBusy(error: unknown): boolean {
  const code = driverCode(error);
  return code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED");
}

/** @param operation for the error's context, where it is a transport fault */
export function translateError(error: unknown, operation: string): EngineError {
  if (isEngineError(error)) return error;
  if (isBusy(error))
    return new EngineError(
      "retry_exhausted",
      { attempts: 1 },
      { cause: error },
    );
  const code = driverCode(error);
  const explained = EXPLAINED.find(([prefix]) => code.startsWith(prefix));
  if (explained !== undefined)
    return transport("other", explained[1], error, operation);
  if (error instanceof TypeError && error.message.includes("is not open")) {
    return new EngineError(
      "unavailable",
      { op: "shutdown" },
      { cause: error, context: operation },
    );
  }
  return transport(
    "other",
    error instanceof Error ? error.message : String(error),
    error,
    operation,
  );
}

function transport(
  backendKind: TransportKind,
  message: string,
  cause: unknown,
  context: string,
): EngineError {
  return new EngineError(
    "transport",
    { backend: "sqlite", backendKind, message },
    { cause, context },
  );
}

function driverCode(error: unknown): string {
  if (error instanceof SqliteDriver.SqliteError) return error.code;
  // The driver looks for the folder itself, before SQLite would.
  return error instanceof TypeError && error.message.includes("directory")
    ? "SQLITE_CANTOPEN"
    : "";
}

/** The one place where a refusal, which let its transaction commit, becomes an error. */
export function settle<Answer>(answer: Answer | Refusal): Answer {
  if (isRefusal(answer)) throw answer.refused;
  return answer;
}
