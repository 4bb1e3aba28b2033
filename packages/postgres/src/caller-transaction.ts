/**
 * Submitting inside the caller's own transaction (00 D42): rolled back it never existed, committed it is picked up at
 * once. The engine only writes through the caller's client; it never begins, commits or closes anything there.
 */
import {
  invalidInput,
  isEngineError,
  parsePolicy,
  type Args,
  type CreateExecutionResult,
  type Refusal,
} from "@flowfabric/core";

import { NotInMemory } from "./db.js";
import { Notifier } from "./notifier.js";
import { requiredOf, submit } from "./procedures/submit.js";
import { Session, type Queryable } from "./session.js";
import type { Store } from "./store.js";

/**
 * Runs the submission on the caller's client.
 * @throws EngineError `invalid_input` where it is none, has no open transaction, or is connected to another database
 */
export async function submitInTransaction(
  store: Store,
  args: Args<"createExecutionInTransaction">,
): Promise<CreateExecutionResult | Refusal> {
  const { transaction } = args;
  if (!isClient(transaction))
    throw invalidInput(
      "transaction",
      "give a pg client, or anything with its query method, that has an open transaction",
    );
  const { dialect, notifier } = store.db;
  const tx = new Session(
    transaction,
    dialect,
    "caller",
    new Notifier(notifier.channel, undefined, store.options.push),
  );
  await requireOpenTransaction(store, tx);
  // The route is not the caller's: it is shared, and outlives a rollback without being seen.
  const policy = parsePolicy(args.policy);
  if (!isEngineError(policy))
    await store.routes.create(
      store.db,
      args.namespace,
      args.laneId,
      requiredOf(policy),
    );
  for (;;) {
    try {
      const answer = await submit(store, tx, args);
      await tx.settle();
      return answer;
    } catch (error) {
      // A look at the small tables, which costs the caller's transaction nothing.
      if (!(error instanceof NotInMemory)) throw error;
      await error.load(store.db);
    }
  }
}

/** In one transaction its beginning stays the same; outside of one every statement has its own. */
async function requireOpenTransaction(
  store: Store,
  tx: Session,
): Promise<void> {
  const first = (await tx.get<{ begun: string; known: number }>(LOOK))!;
  const second = (await tx.get<{ begun: string; known: number }>(LOOK))!;
  if (first.begun !== second.begun)
    throw invalidInput(
      "transaction",
      "the client has no open transaction: call this between BEGIN and COMMIT",
    );
  const theirs =
    first.known === 1
      ? await tx.get<{ identity: number; now: number }>(IDENTITY)
      : undefined;
  const [ours] = await store.db.query<{ identity: number }>(IDENTITY);
  if (theirs === undefined || theirs.identity !== ours!.identity)
    throw invalidInput(
      "transaction",
      "the client is connected to another database than this store; both must be the same",
    );
  tx.noteTime(theirs.now);
}

function isClient(value: unknown): value is Queryable {
  return (
    typeof value === "object" &&
    value !== null &&
    "query" in value &&
    typeof value.query === "function"
  );
}

const LOOK = `
  SELECT extract(epoch FROM transaction_timestamp())::TEXT AS begun,
    CASE WHEN to_regclass('{schema}.settings') IS NULL THEN 0 ELSE 1 END AS known`;

const IDENTITY = `
  SELECT value AS identity, now_ms() AS now
  FROM settings
  WHERE name = 'identity'`;
