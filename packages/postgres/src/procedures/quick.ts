/**
 * The hot operations on their happy path: one statement each, for any number of items. Where a statement finds anything
 * out of the ordinary it leaves that as it is, and the caller takes the slow path: a transaction that locks, decides by
 * the rules of core and names the refusal.
 */
import type { Args, ClaimManyResult, OutcomeResult } from "@flowfabric/core";

import { notified, type NotifyValues } from "../notifier.js";
import type { Store } from "../store.js";
import { namesOfStream } from "../stream-names.js";
import {
  claimValues,
  lastTurn,
  MAY_TAKE,
  nextDueUnlessFull,
  picked,
  TAKEN,
  toClaimedExecution,
  type Lanes,
  type QuickClaim,
  type TakenRow,
} from "./quick-claims.js";
import {
  ENDED,
  endingValues,
  HELD,
  plainEndings,
  resultOf,
  type Ending,
  type PlainEnding,
} from "./quick-outcomes.js";

type ClaimArgs = Args<"claimMany">;

/** Without an answer: this one needs a closer look. */
export type End = Exclude<OutcomeResult, { kind: "rejected" }> | undefined;

/** Each for itself. */
export async function endQuickly(
  store: Store,
  endings: readonly Ending[],
): Promise<End[]> {
  const found = plainEndings(endings, store.leases);
  const plain = found.filter((one) => one !== undefined);
  if (plain.length === 0) return found.map(() => undefined);
  const toTell = endsToTell(store, plain);
  const [answer] = await store.db.query<EndAnswer>(
    END,
    ...endingValues(plain),
    ...noticeOf(store, toTell),
  );
  const ends = noteEnds(store, plain, answer!.ended, toTell).values();
  return found.map((one) => one && ends.next().value);
}

/** @returns nothing where the slow path has to see to it; nothing was claimed then */
export async function claimQuickly(
  store: Store,
  args: ClaimArgs,
): Promise<ClaimManyResult | undefined> {
  const claim = await quickClaim(store, [args]);
  if (claim === undefined) return undefined;
  const toTell = store.wakeups.toTell(args.lanes, args.leaseTtlMs);
  const rows = await store.db.query<ClaimAnswer>(
    CLAIM[oneOrSeveral(claim)],
    ...claimValues(claim),
    ...noticeOf(store, toTell),
  );
  return await noteClaims(store, args, claim, rows, toTell);
}

export interface EndAndClaim {
  readonly endings: readonly Ending[];
  readonly claim: ClaimArgs;
}

export type EndedAndClaimed = ClaimManyResult & { readonly ends: End[] };

/**
 * Each for itself: its ends and its claim, or neither; then it has no answer, and nothing was written. Calls of one
 * claimant are one statement.
 */
export async function endAndClaimQuickly(
  store: Store,
  calls: readonly EndAndClaim[],
): Promise<(EndedAndClaimed | undefined)[]> {
  const answers = new Map<EndAndClaim, EndedAndClaimed>();
  const answer = async (together: readonly EndAndClaim[]): Promise<void> => {
    const found = await endAndClaimTogether(store, together);
    if (found !== undefined)
      for (const [index, call] of together.entries())
        answers.set(call, found[index]!);
    // What is out of the ordinary is the matter of one of them.
    else if (together.length > 1)
      for (const call of together) await answer([call]);
  };
  await Promise.all(byClaimant(calls).map(answer));
  return calls.map((call) => answers.get(call));
}

function byClaimant(calls: readonly EndAndClaim[]): EndAndClaim[][] {
  const groups = new Map<string, EndAndClaim[]>();
  for (const call of calls) {
    const { claim } = call;
    const claimant = JSON.stringify([
      claim.workerId,
      claim.workerInstanceId,
      claim.lanes,
      claim.capabilities,
      claim.namespace,
      claim.leaseTtlMs,
      claim.repeat,
    ]);
    const group = groups.get(claimant);
    if (group === undefined) groups.set(claimant, [call]);
    else group.push(call);
  }
  return [...groups.values()];
}

async function endAndClaimTogether(
  store: Store,
  calls: readonly EndAndClaim[],
): Promise<EndedAndClaimed[] | undefined> {
  const endings = calls.flatMap((call) => call.endings);
  const args = calls[0]!.claim;
  const plain = plainEndings(endings, store.leases).filter(
    (one) => one !== undefined,
  );
  const claim = await quickClaim(
    store,
    calls.map((call) => call.claim),
  );
  if (plain.length < endings.length || claim === undefined) return undefined;
  const toTell = endsToTell(store, plain);
  for (const [lane, inMs] of store.wakeups.toTell(args.lanes, args.leaseTtlMs))
    if (!toTell.has(lane)) toTell.set(lane, inMs);
  const [records, payloads] = endingValues(plain);
  const rows = await store.db.query<ClaimAnswer & EndAnswer>(
    END_AND_CLAIM[oneOrSeveral(claim)],
    records,
    ...claimValues(claim),
    payloads,
    ...noticeOf(store, toTell),
  );
  const answer = await noteClaims(store, args, claim, rows, toTell);
  if (answer === undefined) return undefined;
  const ends = noteEnds(store, plain, rows[0]!.ended, toTell).values();
  let place = 0;
  return calls.map(({ endings: own, claim: { max } }) => {
    // Places are filled in their order, and each is of the request that it was taken for.
    const claimed = answer.claimed.slice(place, (place += max));
    return {
      ends: own.map(() => ends.next().value),
      ...(claimed.length < max ? answer : {}),
      claimed,
    };
  });
}

interface EndAnswer {
  /** JSON: pairs of place, counted from 1, and instant. */
  readonly ended: string | null;
}

interface ClaimAnswer extends TakenRow {
  readonly ahead: boolean;
  readonly looked_at: number;
  readonly nothing_due: boolean;
  readonly newest_route: number;
  readonly next_due: number | null;
  readonly last_turn: number | null;
}

function endsToTell(
  store: Store,
  plain: readonly PlainEnding[],
): Map<string, number> {
  const toTell = store.wakeups.toTell([]);
  for (const { ending } of plain)
    for (const name of namesOfStream(ending.own.executionId))
      toTell.set(name, 0);
  // A retry is work again, once its back-off is over.
  for (const { ending, record } of plain)
    if (record.delay !== undefined)
      for (const [lane, inMs] of store.wakeups.toTell(
        [ending.own.laneId],
        record.delay,
      ))
        toTell.set(lane, Math.min(toTell.get(lane) ?? inMs, inMs));
  return toTell;
}

function noticeOf(
  store: Store,
  toTell: ReadonlyMap<string, number>,
): NotifyValues {
  return store.db.notifier.values(toTell);
}

function noteEnds(
  store: Store,
  plain: readonly PlainEnding[],
  ended: string | null,
  told: ReadonlyMap<string, number>,
): End[] {
  const ends: End[] = plain.map(() => undefined);
  for (const [place, atMs] of JSON.parse(ended ?? "[]") as [number, number][]) {
    const { ending, record } = plain[place - 1]!;
    ends[place - 1] = resultOf(record, atMs);
    store.leases.forget(ending.own);
    store.heldStreams.forget(ending.own);
    store.tails.ringEndedHere(ending.own.executionId);
    if (record.delay !== undefined)
      store.wakeups.ringHere([ending.own.laneId], record.delay);
  }
  if (ended !== null) {
    store.wakeups.noteTold(told);
    store.wakeups.ringHere([], 0);
  }
  return ends;
}

/** All of one claimant. @returns nothing where an earlier claim's answer may have to be repeated */
async function quickClaim(
  store: Store,
  calls: readonly ClaimArgs[],
): Promise<QuickClaim | undefined> {
  const args = calls[0]!;
  if (args.repeat && calls.some(({ requestId }) => requestId !== undefined))
    return undefined;
  await store.holders.create(store.db, args);
  const offered = new Set(args.capabilities);
  return {
    routes: args.lanes.map((lane) =>
      store.routes.serveable(lane, offered, args.namespace),
    ),
    leaseTtlMs: args.leaseTtlMs,
    holder: store.holders.ensure(args),
    requests: calls.flatMap(({ max, requestId }) =>
      Array.from({ length: max }, () => requestId),
    ),
    floorOf: (route) => store.floors.of(route),
  };
}

async function noteClaims(
  store: Store,
  args: ClaimArgs,
  claim: QuickClaim,
  rows: readonly ClaimAnswer[],
  told: ReadonlyMap<string, number>,
): Promise<ClaimManyResult | undefined> {
  const first = rows[0]!;
  const isNews = !store.routes.isKnown(first.newest_route);
  if (isNews) await store.routes.refresh(store.db);
  if (!first.ahead) return undefined;
  const taken = rows.filter(({ id }) => id !== null);
  const claimed = taken.map((row) => toClaimedExecution(store, row));
  // Another process has made a route that this claim should have looked at.
  if (isNews && claimed.length === 0) return undefined;

  const stoodAt = new Map<number, number>();
  for (const { route, stood_at: score, was_due: wasDue } of taken)
    if (!wasDue)
      stoodAt.set(route, Math.min(stoodAt.get(route) ?? score, score));
  const looked =
    first.last_turn === null ? claim.routes.length : first.last_turn + 1;
  store.floors.noteClaim(
    claim.routes
      .slice(0, looked)
      .flat()
      .map(({ id }) => id),
    stoodAt,
    first.nothing_due ? first.looked_at : undefined,
  );

  if (claimed.length > 0) {
    store.wakeups.noteTold(told);
    // Whoever is parked on these lanes must look when these leases may lapse.
    store.wakeups.ringHere(args.lanes, args.leaseTtlMs);
  }
  for (const { timeout_at: timeoutAt, renewed_at: takenAt } of taken)
    if (timeoutAt !== null) store.wakeups.ringTimer(timeoutAt - takenAt!);

  if (claimed.length === claim.requests.length) return { claimed };
  // The statement saw the store as it was before the leases that it made.
  const nextDueInMs = Math.min(
    first.next_due === null ? Infinity : first.next_due - first.looked_at,
    claimed.length > 0 ? args.leaseTtlMs : Infinity,
  );
  return nextDueInMs === Infinity
    ? { claimed }
    : { claimed, nextDueInMs: Math.max(0, nextDueInMs) };
}

const ENDS = `
    (
      SELECT json_agg(json_build_array(place, at))::TEXT
      FROM held, go
      WHERE go.ahead
    )`;

/** The last part is read by the answer, for what is only read would not happen otherwise. */
const END = `
  WITH ${HELD}, go AS MATERIALIZED (
    SELECT TRUE AS ahead
  ), ${ENDED}, notified AS (${notified("EXISTS (SELECT 1 FROM held)")}
  )
  SELECT ${ENDS} AS ended, (SELECT count(*) FROM notified) AS notified`;

/** What ended is said once, in the first row; it is as long as all rows together. */
const claimAnswer = (lanes: Lanes, ends?: string) => `
  SELECT meta.*,${
    ends === undefined
      ? ""
      : ` CASE WHEN coalesce(taken.place, 1) = 1 THEN ${ends} END AS ended,`
  } taken.id, partition, route, kind, attempt, attempt_id, attempt_type, attempt_at, lease, epoch, holder,
    lease_expires_at, renewed_at, timeout_at, tags, details, retries, stood_at, was_due, was_interrupted, inputs.payload,
    inputs.policy
  FROM (
    SELECT go.ahead, given.now AS looked_at, (SELECT coalesce(max(id), 0) FROM routes) AS newest_route,
      NOT (SELECT found FROM lost) AND NOT EXISTS (SELECT 1 FROM candidates WHERE due) AS nothing_due,
      ${nextDueUnlessFull(lanes)} AS next_due, ${lastTurn(lanes)} AS last_turn, (SELECT count(*) FROM notified) AS notified
    FROM given, go
  ) AS meta
  LEFT JOIN taken ON TRUE
  LEFT JOIN inputs ON inputs.seq = taken.seq
  ORDER BY taken.place`;

const oneOrSeveral = ({ routes }: QuickClaim): Lanes =>
  routes.length > 1 ? "several" : "one";

const forLanes = (statement: (lanes: Lanes) => string) => ({
  one: statement("one"),
  several: statement("several"),
});

const CLAIM = forLanes(
  (lanes) => `
  WITH ${picked(lanes)}, go AS MATERIALIZED (
    SELECT ${MAY_TAKE} AS ahead, now_ms() AS now
    FROM (SELECT count(*) FROM picked) AS all_of_them
  ), ${TAKEN}, notified AS (${notified("EXISTS (SELECT 1 FROM chosen)")}
  )${claimAnswer(lanes)}`,
);

const END_AND_CLAIM = forLanes(
  (lanes) => `
  WITH ${HELD}, ${picked(lanes)}, go AS MATERIALIZED (
    SELECT ${MAY_TAKE} AND all_held.count = (SELECT count(*) FROM ending) AS ahead, now_ms() AS now
    FROM (SELECT count(*) FROM picked) AS all_picked, (SELECT count(*) FROM held) AS all_held
  ), ${ENDED}, ${TAKEN}, notified AS (${notified("(SELECT ahead FROM go)")}
  )${claimAnswer(lanes, ENDS)}`,
);
