/** Opening a file that other processes may be opening, or making, at the same time. */
import { accessSync, constants, existsSync } from "node:fs";

import { engineError } from "@flowfabric/core";
import SqliteDriver from "better-sqlite3";

import { translateError } from "./errors.js";

export interface OpenedFile<Answer> {
  readonly connection: SqliteDriver.Database;
  readonly answer: Answer;
}

/**
 * @param prepare everything that has to be done before the connection is used; done again where the file was busy
 * @throws EngineError `retry_exhausted` where it was busy for longer than `busyTimeoutMs`, else what stood in the way
 */
export async function openPatiently<Answer>(
  options: { readonly path: string; readonly busyTimeoutMs: number },
  prepare: (connection: SqliteDriver.Database) => Answer,
): Promise<OpenedFile<Answer>> {
  const endsAtMs = performance.now() + options.busyTimeoutMs;
  for (;;) {
    let connection: SqliteDriver.Database | undefined;
    try {
      checkWritable(options.path);
      connection = new SqliteDriver(options.path, { timeout: 0 });
      return { connection, answer: prepare(connection) };
    } catch (error) {
      connection?.close();
      const translated = translateError(error, "open");
      if (translated.code !== "retry_exhausted" || performance.now() > endsAtMs)
        throw translated;
      await new Promise((resolve) =>
        setTimeout(resolve, 1 + Math.random() * 8),
      );
    }
  }
}

/** Said before SQLite would, which only notices at the first write. */
function checkWritable(path: string): void {
  if (path === ":memory:" || !existsSync(path)) return;
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
  } catch (cause) {
    const message = `'${path}' cannot be read and written by this process; nothing was changed. Check its permissions`;
    throw engineError(
      "transport",
      { backend: "sqlite", backendKind: "other", message },
      cause,
    );
  }
}
