/** Forgetting what is finished and past its retention. */
import { HOME } from "@flowfabric/core";
import {
  EXECUTION_COLUMNS,
  type ExecutionRow,
  OWN_RETENTION_OFFSET,
  readTags,
} from "@flowfabric/core/sql";

import type { Session } from "../session.js";
import type { Store } from "../store.js";
import { selectExecutions } from "./executions.js";
import { appendFeedEvent } from "./log.js";
import type { Route } from "./routes.js";
import { placeOf } from "./unplaced.js";

/** At 64 KiB each this is what a transaction can still take. */
const FRAMES_PER_PORTION = 1_000;

const TERMINAL_HOMES = [
  HOME.succeeded,
  HOME.failed,
  HOME.cancelled,
  HOME.expired,
  HOME.skipped,
] as const;

/** Purges up to `limit` executions of these routes whose time is over; an execution's own retention wins. */
export async function purgeDue(
  store: Store,
  tx: Session,
  routes: readonly Route[],
  retentionMs: number,
  nowMs: number,
  limit: number,
  partition?: number,
): Promise<number> {
  let purged = 0;
  const ranges = [
    [0, nowMs - retentionMs],
    [OWN_RETENTION_OFFSET, OWN_RETENTION_OFFSET + nowMs],
  ] as const;
  for (const { id } of routes) {
    for (const home of TERMINAL_HOMES) {
      for (const [from, to] of ranges) {
        if (purged >= limit) return purged;
        const rows = await selectExecutions(
          tx,
          PURGEABLE,
          id,
          home,
          from,
          to,
          partition ?? null,
          limit - purged,
        );
        for (const row of rows) await purge(store, tx, row, nowMs);
        if (rows.length > 0)
          tx.run(REMEMBER_LANE, store.routes.require(id).lane);
        purged += rows.length;
      }
    }
  }
  return purged;
}

async function purge(
  store: Store,
  tx: Session,
  row: ExecutionRow,
  nowMs: number,
): Promise<void> {
  const route = store.routes.require(row.route);
  const { idempotency_key: key } = (await tx.get<{
    idempotency_key: string | null;
  }>(READ_KEY, row.seq)) ?? { idempotency_key: null };
  if (key !== null)
    tx.run(DELETE_KEY, route.namespace, route.lane, key, row.seq);
  for (const [tagKey, value] of Object.entries(readTags(row.tags)))
    tx.run(DELETE_TAG, tagKey, value, row.created_at, row.id, row.seq);
  tx.run(LEAVE_FRAMES, row.seq);
  for (const sql of DELETE_PARTS) tx.run(sql, row.seq);
  if (row.waitpoints !== null)
    for (const sql of DELETE_SUSPENSION) tx.run(sql, row.seq);
  // Telling that its tags are gone is the last that feeds hear of it, and takes them as long as anything else.
  const tellsTags = row.tags !== null;
  if (tellsTags) {
    placeOf(tx, row);
    appendFeedEvent(tx, row, "tags_changed", nowMs, "engine", {
      transition: false,
      data: { cleared: readTags(row.tags) },
    });
    store.wakeups.ring(tx);
  }
  const toldAtMs = tellsTags ? nowMs : row.completed_at!;
  // Feeds still owe these events to whoever is behind; the trimmer takes them when their own time is over.
  if (toldAtMs + store.options.feedRetentionMs > nowMs) {
    tx.run(KEEP_FOR_FEEDS, row.seq, row.id, row.partition, row.route, toldAtMs);
  } else {
    await forgetEvents(tx, row.seq);
  }
  tx.run(DELETE_EXECUTION, row.seq);
}

const REMEMBER_LANE = `
  INSERT INTO lanes (lane)
  VALUES (?)
  ON CONFLICT DO NOTHING`;

/**
 * Removes a portion of the frames of executions that are gone; what another process removes at the moment is left to it.
 * @returns whether some are left
 */
export async function forgetFrames(tx: Session): Promise<boolean> {
  for (let left = FRAMES_PER_PORTION; left > 0; left--) {
    const stale = await tx.get<{ seq: number }>(OLDEST_STALE);
    if (stale === undefined) return false;
    left -= await tx.change(DELETE_STALE_FRAMES, stale.seq, left);
    if (left > 0) tx.run(FORGET_STALE, stale.seq);
  }
  return true;
}

/** Drops events of executions that are gone, once no feed owes them any more. @returns how many executions */
export async function forgetPurged(
  store: Store,
  tx: Session,
  nowMs: number,
  limit: number,
): Promise<number> {
  const rows = await tx.all<{ seq: number }>(
    FORGETTABLE,
    nowMs - store.options.feedRetentionMs,
    limit,
  );
  for (const { seq } of rows) {
    await forgetEvents(tx, seq);
    tx.run(DELETE_PURGED, seq);
  }
  return rows.length;
}

/** Feeds begin behind the newest event that was dropped. */
async function forgetEvents(tx: Session, seq: number): Promise<void> {
  const { newest } = (await tx.get<{ newest: number | null }>(
    NEWEST_EVENT,
    seq,
  ))!;
  if (newest !== null) raiseFeedFloor(tx, newest);
  tx.run(DELETE_EVENTS, seq);
}

export function raiseFeedFloor(tx: Session, position: number): void {
  tx.run(RAISE_FLOOR, position, position);
}

/** Forgets idempotency keys that have lapsed. */
export async function forgetKeys(
  tx: Session,
  nowMs: number,
  limit: number,
): Promise<number> {
  return await tx.change(DELETE_LAPSED_KEYS, nowMs, limit);
}

const PURGEABLE = `
  SELECT ${EXECUTION_COLUMNS}
  FROM executions
  WHERE route = ? AND home = ? AND score >= ? AND score <= ? AND partition = coalesce(?, partition)
  ORDER BY score
  LIMIT ?`;

const READ_KEY = `
  SELECT idempotency_key
  FROM inputs
  WHERE seq = ?`;

const DELETE_KEY = `
  DELETE FROM idempotency
  WHERE namespace = ? AND lane = ? AND idempotency_key = ? AND seq = ?`;

const DELETE_TAG = `
  DELETE FROM tags
  WHERE tag_key = ? AND tag_value = ? AND created_at = ? AND id = ? AND seq = ?`;

const deleteFrom = (table: string) => `
  DELETE FROM ${table}
  WHERE seq = ?`;

const DELETE_PARTS = [
  "inputs",
  "results",
  "progress",
  "attempts",
  "grants",
  "streams",
  "summaries",
].map(deleteFrom);

const DELETE_SUSPENSION = [
  "suspensions",
  "suspend_replays",
  "waitpoints",
  "signals",
  "signal_keys",
  "signal_sources",
].map(deleteFrom);

/** Nobody can read them any more, for the seq is never used again. */
const LEAVE_FRAMES = `
  INSERT INTO stale_frames (seq)
  SELECT seq
  FROM streams
  WHERE seq = ?
  LIMIT 1`;

const OLDEST_STALE = `
  SELECT seq
  FROM stale_frames
  ORDER BY seq
  LIMIT 1
  FOR UPDATE SKIP LOCKED`;

const DELETE_STALE_FRAMES = `
  DELETE FROM frames
  WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM frames
    WHERE seq = ?
    LIMIT ?
  ))`;

const FORGET_STALE = `
  DELETE FROM stale_frames
  WHERE seq = ?`;

const KEEP_FOR_FEEDS = `
  INSERT INTO purged (seq, id, partition, route, completed_at)
  VALUES (?, ?, ?, ?, ?)`;

const DELETE_EXECUTION = `
  DELETE FROM executions
  WHERE seq = ?`;

const FORGETTABLE = `
  SELECT seq
  FROM purged
  WHERE completed_at <= ?
  LIMIT ?
  FOR UPDATE SKIP LOCKED`;

const DELETE_PURGED = `
  DELETE FROM purged
  WHERE seq = ?`;

const NEWEST_EVENT = `
  SELECT max(position) AS newest
  FROM events
  WHERE execution = ?`;

const DELETE_EVENTS = `
  DELETE FROM events
  WHERE execution = ?`;

const RAISE_FLOOR = `
  UPDATE settings
  SET value = ?
  WHERE name = 'feed_floor' AND value < ?`;

const DELETE_LAPSED_KEYS = `
  DELETE FROM idempotency
  WHERE (namespace, lane, idempotency_key) IN (
    SELECT namespace, lane, idempotency_key
    FROM idempotency
    WHERE expires_at <= ?
    LIMIT ?
    FOR UPDATE SKIP LOCKED
  )`;
