/**
 * Submitting inside the caller's own transaction (00 D42): rolled back it never existed, committed it is picked up at
 * once. The engine only writes through the caller's handle, inside a savepoint of its own; it never begins, commits or
 * closes a transaction there.
 */
import { realpathSync } from "node:fs";

import { invalidInput } from "@flowfabric/core";
import type SqliteDriver from "better-sqlite3";

import { Session } from "./session.js";
import type { Store } from "./store.js";

const sessions = new WeakMap<SqliteDriver.Database, Session>();

/**
 * Runs the body on the caller's handle.
 * @throws EngineError `invalid_input` where the handle is none, has no open transaction, or belongs to another file
 */
export function inCallerTransaction<Answer>(
  store: Store,
  transaction: unknown,
  body: (session: Session) => Answer,
): Answer {
  if (!isHandle(transaction))
    throw invalidInput(
      "transaction",
      "give an open better-sqlite3 database handle",
    );
  if (!transaction.open || !transaction.inTransaction) {
    throw invalidInput(
      "transaction",
      "the handle has no open transaction: call this inside db.transaction(…) or after BEGIN",
    );
  }
  const ours = store.db.connection;
  if (
    ours.memory ||
    transaction.memory ||
    realpathSync(transaction.name) !== realpathSync(ours.name)
  ) {
    throw invalidInput(
      "transaction",
      `the handle has '${transaction.name}' open, this store is '${ours.name}'; both must be the same file`,
    );
  }
  let session = sessions.get(transaction);
  if (session === undefined) {
    // Submitting takes no lease from anybody.
    const onLosses = () => {};
    const { clock = { offsetMs: 0 } } = store.options;
    session = new Session(transaction, clock, onLosses);
    sessions.set(transaction, session);
  }
  session.run("SAVEPOINT flowfabric");
  try {
    // Its write lock comes first, so that the position read next is the last one.
    session.run(TAKE_WRITE_LOCK);
    const answer = body(session);
    session.storePosition();
    session.run("RELEASE flowfabric");
    return answer;
  } catch (error) {
    // A caller may commit what is left: nothing half-written is among it. A full disk may have taken all of it already.
    if (transaction.inTransaction) {
      session.run("ROLLBACK TO flowfabric");
      session.run("RELEASE flowfabric");
    }
    throw error;
  } finally {
    session.finish();
    // What this transaction added may yet be undone: it must not stay in memory.
    store.routes.forget();
  }
}

/** Changes nothing, but no other writer can come between from here on. */
const TAKE_WRITE_LOCK = `
  UPDATE settings
  SET value = value
  WHERE name = 'position'`;

function isHandle(value: unknown): value is SqliteDriver.Database {
  return (
    typeof value === "object" &&
    value !== null &&
    "inTransaction" in value &&
    "prepare" in value &&
    "memory" in value
  );
}
