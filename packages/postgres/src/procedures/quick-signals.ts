/**
 * A signal by two statements, none of which holds a lock while the other is under way: one reads what the signal is judged
 * by, the rules of core decide, and one writes where the execution is still as it was read and the clock has changed nothing
 * about the answer. Repeats, refusals, and whatever meets a change by others, are left to the slow path.
 *
 * Where a claim of this process waits for what the signal makes ready, the second statement takes it in that claim's name:
 * it need not be written as ready first, and then be claimed. As a claim would it makes sure that nothing else comes first.
 */
import {
  HOME,
  isRefusal,
  type Args,
  type ClaimedExecution,
  type ClaimManyResult,
  type DeliverSignalResult,
  type LeaseId,
} from "@flowfabric/core";
import {
  bytesToUuid,
  effectiveNow,
  refuseToken,
  type ExecutionRow,
  type Signal,
} from "@flowfabric/core/sql";

import { isConnectionLost } from "../errors.js";
import type { Session } from "../session.js";
import type { Store } from "../store.js";
import type { ReservedClaim } from "../wakeups.js";
import { written } from "../writes.js";
import { NEXT_DUE_INSTANT } from "./candidates.js";
import { ringAfterCommit } from "./lifecycle.js";
import { FOUND, WANTED, wantedRoutes } from "./parking.js";
import type { Route } from "./routes.js";
import { earlierOf, judge, readGrounds, type Found } from "./signal-grounds.js";
import { accept, DELIVERED } from "./signals.js";
import { take, toClaimed } from "./take.js";

/** @returns nothing where it needs a closer look; nothing was written then */
export async function deliverQuickly(
  store: Store,
  args: Args<"deliverSignal">,
): Promise<DeliverSignalResult | undefined> {
  const signal = { ...args, actor: "client" as const };
  const grounds = await readGrounds(
    (sql, ...values) => store.db.look(sql, ...values),
    args.executionId,
    args.waitpointId,
    signal,
  );

  const { row, waitpoint, readAtMs } = grounds;
  const now = row === undefined ? readAtMs : effectiveNow(row, readAtMs);
  const refusal = refuseToken(grounds.keystore, args, waitpoint, now);
  if (refusal !== undefined || row === undefined || waitpoint === undefined)
    return undefined;
  const found = { ...grounds, row, waitpoint };
  const route = await routeOf(store, row);
  if (args.namespace !== undefined && args.namespace !== route.namespace)
    return undefined;
  if (earlierOf(found, now) !== undefined) return undefined;
  const judged = judge(row, found, signal, now);
  if (isRefusal(judged)) return undefined;

  return await write(
    store,
    found,
    signal,
    judged,
    now,
    args.waitpointToken.kid,
  );
}

async function routeOf(store: Store, row: ExecutionRow): Promise<Route> {
  if (!store.routes.isKnown(row.route)) await store.routes.refresh(store.db);
  return store.routes.require(row.route);
}

async function write(
  store: Store,
  found: Found & { readonly row: ExecutionRow },
  signal: Signal,
  judged: "buffer" | "evaluate",
  nowMs: number,
  kid: string,
): Promise<DeliverSignalResult | undefined> {
  const untilMs = holdsUntilMs(found, kid, nowMs);
  let answer: DeliverSignalResult | undefined;
  let claim: ReservedClaim | undefined;
  let taken: Taken | undefined;
  try {
    const { done, ...rest } = await store.db.writeAtOnce<Written>((tx) => {
      const row = { ...found.row };
      const accepted = accept(tx, row, found, signal, judged, nowMs);
      answer = accepted.answer;
      if (accepted.resumes) claim ??= reserveClaim(store, row, nowMs);
      if (claim !== undefined) taken = takeFor(store, tx, row, claim, nowMs);
      ringAfterCommit(store, tx, row);
      const asSeen = [row.seq, found.version, untilMs];
      return claim === undefined
        ? [DELIVER, ...asSeen, ...accepted.delivery]
        : [
            DELIVER_AND_TAKE,
            ...asSeen,
            wantedRoutes(routesOf(store, claim.args)),
            store.routes.newest,
            ...accepted.delivery,
          ];
    });
    if (done) claim?.give(claimedBy(store, claim, taken!, found, rest));
    else claim?.withdraw();
    return done ? answer : undefined;
  } catch (error) {
    if (isConnectionLost(error)) claim?.fail(error);
    else claim?.withdraw();
    throw error;
  }
}

/** The first instant at which the clock alone could make another answer of the same grounds. */
function holdsUntilMs(
  { row, waitpoint, keystore }: Found & { readonly row: ExecutionRow },
  kid: string,
  nowMs: number,
): number {
  const instants = [
    waitpoint.expires_at,
    keystore.secrets.find((secret) => secret.kid === kid)?.expiresAtMs,
    // A delay ends, a lease lapses.
    row.home === HOME.delayed || row.home === HOME.active ? row.score : null,
    row.deadline_at,
  ].filter((at) => typeof at === "number" && at > nowMs) as number[];
  return Math.min(Number.MAX_SAFE_INTEGER, ...instants);
}

interface Written {
  readonly done: boolean;
  /** Of what was taken: its input, and when something else falls due on the routes of its claim. */
  readonly payload?: Uint8Array | null;
  readonly next_due?: number | null;
  readonly looked_at?: number;
}

/** A claim that waits for what is ready now, as it would find it. */
function reserveClaim(
  store: Store,
  row: ExecutionRow,
  nowMs: number,
): ReservedClaim | undefined {
  if (
    row.home !== HOME.eligible ||
    row.grant_until !== null ||
    (row.deadline_at !== null && row.deadline_at <= nowMs)
  )
    return undefined;
  return store.wakeups.reserve((args) =>
    routesOf(store, args).some(({ id }) => id === row.route),
  );
}

function routesOf(store: Store, args: Args<"claimMany">): Route[] {
  const offered = new Set(args.capabilities);
  return args.lanes.flatMap((lane) =>
    store.routes.serveable(lane, offered, args.namespace),
  );
}

interface Taken {
  readonly row: ExecutionRow;
  readonly kind: ClaimedExecution["kind"];
}

function takeFor(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  { args }: ReservedClaim,
  nowMs: number,
): Taken {
  // What is ready is never refused.
  const kind = take(store, tx, row, args, nowMs)!;
  return { row, kind };
}

/** As the claim itself would answer it, and remember it. */
function claimedBy(
  store: Store,
  { args }: ReservedClaim,
  { row, kind }: Taken,
  { policy }: Found,
  { payload, next_due: nextDue, looked_at: lookedAt }: Omit<Written, "done">,
): ClaimManyResult {
  store.leases.remember(bytesToUuid(row.lease!) as LeaseId, { ...row, policy });
  const claimed = [toClaimed(store, row, payload ?? null, kind)];
  if (args.max === 1) return { claimed };
  const nextDueInMs = Math.min(
    typeof nextDue === "number" ? nextDue - lookedAt! : Infinity,
    args.leaseTtlMs,
  );
  return { claimed, nextDueInMs: Math.max(0, nextDueInMs) };
}

/** The clock is read behind the lock. */
const taking = (given = "", condition = "TRUE") => `
  locked AS MATERIALIZED (
    SELECT seq
    FROM executions
    WHERE seq = ? AND xmin = ?::XID
    FOR UPDATE SKIP LOCKED
  ), given AS MATERIALIZED (
    SELECT ?::BIGINT AS until, now_ms() AS now
  ), ${given}taken AS MATERIALIZED (
    SELECT seq
    FROM locked, given
    WHERE now_ms() < until AND ${condition}
  )`;

const IS_TAKEN = "EXISTS (SELECT 1 FROM taken)";

const DELIVER = `
  WITH ${taking()}, ${DELIVERED}, ${written(IS_TAKEN)}
  SELECT ${IS_TAKEN} AS done, (SELECT count(*) FROM notified) AS notified`;

/** Also nothing else may stand ready for that claim, on routes that this process knows or others have made. */
const DELIVER_AND_TAKE = `
  WITH ${taking(
    `${WANTED}, newest AS MATERIALIZED (
    SELECT ?::BIGINT AS known
  ), `,
    `NOT ${FOUND} AND NOT EXISTS (
      SELECT 1
      FROM routes, newest
      WHERE id > known
    )`,
  )}, ${DELIVERED}, ${written(IS_TAKEN)}
  SELECT ${IS_TAKEN} AS done, (SELECT count(*) FROM notified) AS notified, (
      SELECT payload
      FROM inputs
      JOIN taken USING (seq)
    ) AS payload, (${NEXT_DUE_INSTANT}
    ) AS next_due, (SELECT now FROM given) AS looked_at`;
