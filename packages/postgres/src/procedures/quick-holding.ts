/** What a holder says while it runs, by one statement for all that say it at the same time: renewals and progress. */
import {
  PROGRESS_EVENT_INTERVAL_MS,
  RENEWED_EVENT_INTERVAL_MS,
  type HandlePayload,
} from "@flowfabric/core";
import { optional } from "@flowfabric/core/sql";

import { few } from "../dialect.js";
import { notified } from "../notifier.js";
import type { Store } from "../store.js";
import { actorCode, eventCode } from "./log.js";
import { FENCED, fenceRecord, type FenceRecord } from "./quick-outcomes.js";

/** Nothing in the places of those that need a closer look. */
export async function renewQuickly(
  store: Store,
  owns: readonly HandlePayload[],
): Promise<({ expiresAtMs: number; leaseEpoch: number } | undefined)[]> {
  const places = firstOfEach(owns);
  const rows = await store.db.query<{ place: number; at: number }>(
    RENEW,
    JSON.stringify(
      places.map((place) => ({
        ...placed(owns[place]!, place),
        ttl: owns[place]!.leaseTtlMs,
        renew_in: Math.floor((owns[place]!.leaseTtlMs * 2) / 3),
      })),
    ),
  );
  const renewed = new Map(rows.map(({ place, at }) => [place, at]));
  return owns.map((own, place) => {
    const at = renewed.get(place);
    return at === undefined
      ? undefined
      : { expiresAtMs: at + own.leaseTtlMs, leaseEpoch: own.leaseEpoch };
  });
}

export interface Report {
  readonly own: HandlePayload;
  readonly percent?: number | undefined;
  readonly message?: string | undefined;
}

/** False in the places of those that need a closer look. */
export async function reportQuickly(
  store: Store,
  reports: readonly Report[],
): Promise<boolean[]> {
  const places = firstOfEach(reports.map(({ own }) => own));
  const [answer] = await store.db.query<{ places: string | null }>(
    REPORT,
    JSON.stringify(
      places.map((place) => {
        const { own, percent, message } = reports[place]!;
        return {
          ...placed(own, place),
          percent: percent ?? null,
          message: message ?? null,
          data: JSON.stringify({
            ...optional("percent", percent),
            ...optional("message", message),
          }),
        };
      }),
    ),
    ...store.db.notifier.values(store.wakeups.toTell([])),
  );
  const written = new Set(JSON.parse(answer!.places ?? "[]") as number[]);
  if (written.size > 0) store.wakeups.ringHere([], 0);
  return reports.map((_report, place) => written.has(place));
}

/** A second one for the same execution would be lost in the statement of the first. */
function firstOfEach(owns: readonly HandlePayload[]): number[] {
  const ids = owns.map(({ executionId }) => executionId);
  return owns.flatMap(({ executionId }, place) =>
    ids.indexOf(executionId) === place ? [place] : [],
  );
}

const placed = (
  own: HandlePayload,
  place: number,
): FenceRecord & { place: number } => ({ ...fenceRecord(own), place });

/** @param columns what else is said of each, with its type; @param kept what else is needed of its row */
const heldBy = (columns: string, said: string, kept: string) => `
  said AS MATERIALIZED (
    SELECT *
    FROM json_to_recordset(?::JSON) AS r (
      id UUID, partition INTEGER, attempt INTEGER, epoch BIGINT, lease UUID, attempt_id UUID, place INTEGER, ${columns}
    )
    WHERE ${few("place")}
  ), locked AS MATERIALIZED (
    SELECT e.seq, e.home, e.attempt, e.epoch, e.lease, e.attempt_id, e.lease_expires_at, e.mutated_at, e.holder, e.tags,
      said.attempt AS own_attempt, said.epoch AS own_epoch, said.lease AS own_lease, said.attempt_id AS own_attempt_id,
      place, ${said}, ${kept}
    FROM said
    JOIN executions AS e ON e.id = said.id AND e.partition = said.partition
    FOR UPDATE OF e SKIP LOCKED
  ), clock AS MATERIALIZED (
    SELECT now_ms() AS now
    FROM (SELECT count(*) FROM locked) AS all_of_them
  ), held AS MATERIALIZED (
    SELECT locked.*, greatest(clock.now, mutated_at) AS at
    FROM locked, clock
    WHERE ${FENCED}
  )`;

/** Feeds hear of it at most every ten seconds of a lease. */
const RENEW = `
  WITH ${heldBy("ttl BIGINT, renew_in BIGINT", "ttl, renew_in", "e.leased_at, e.renewed_at")}, renewed AS (
    UPDATE executions AS e
    SET score = at + ttl, lease_expires_at = at + ttl, renewed_at = at, renew_by = at + renew_in, mutated_at = at
    FROM held
    WHERE e.seq = held.seq
  ), told AS (
    INSERT INTO events (execution, at, type, actor, attempt, epoch, holder, lease, data, tags)
    SELECT seq, at, ${eventCode("renewed")}, ${actorCode("worker")}, attempt, epoch, holder, lease,
      '{"expiresAtMs":' || at + ttl || '}', tags
    FROM held
    WHERE (at - leased_at) / ${RENEWED_EVENT_INTERVAL_MS} > (renewed_at - leased_at) / ${RENEWED_EVENT_INTERVAL_MS}
  )
  SELECT place, at
  FROM held`;

/** The history hears of it at most once in an interval. */
const REPORT = `
  WITH ${heldBy("percent SMALLINT, message TEXT, data TEXT", "percent, message, data", "e.progress_at, e.events")},
  judged AS MATERIALIZED (
    SELECT held.*, earlier.logged_at,
      progress_at IS NULL OR earlier.logged_at IS NULL OR at - earlier.logged_at >= ${PROGRESS_EVENT_INTERVAL_MS} AS is_news
    FROM held
    LEFT JOIN progress AS earlier ON earlier.seq = held.seq
  ), written AS (
    INSERT INTO progress AS p (seq, percent, message, logged_at)
    SELECT seq, percent, message, CASE WHEN is_news THEN at ELSE logged_at END
    FROM judged
    ON CONFLICT (seq) DO UPDATE
    SET percent = coalesce(excluded.percent, p.percent), message = coalesce(excluded.message, p.message),
      logged_at = excluded.logged_at
  ), noted AS (
    UPDATE executions AS e
    SET progress_at = at, mutated_at = at, events = e.events + CASE WHEN is_news THEN 1 ELSE 0 END
    FROM judged
    WHERE e.seq = judged.seq
  ), told AS (
    INSERT INTO events (execution, n, at, type, actor, attempt, epoch, data, tags)
    SELECT seq, events + 1, at, ${eventCode("progress")}, ${actorCode("worker")}, attempt, epoch, data, tags
    FROM judged
    WHERE is_news
  ), notified AS (${notified("EXISTS (SELECT 1 FROM held)")}
  )
  SELECT (SELECT json_agg(place)::TEXT FROM held) AS places, (SELECT count(*) FROM notified) AS notified`;
