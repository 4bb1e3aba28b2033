/**
 * Claims by one statement: the best of what is ready or due is locked, taken, written into the log and answered with
 * its input. Lost work, and whatever else needs a closer look, makes it take nothing: the slow path then sees to all of
 * it, in order.
 */
import {
  HOME,
  newAttemptId,
  newLeaseId,
  packState,
  PRIORITY_STEP_MS,
  type ClaimedExecution,
  type LeaseId,
} from "@flowfabric/core";
import {
  attemptStateCode,
  attemptTypeCode,
  bytesToUuid,
  type ExecutionRow,
} from "@flowfabric/core/sql";

import { few } from "../dialect.js";
import type { SqlValue } from "../session.js";
import type { Store } from "../store.js";
import {
  BELOW_CAP,
  FREE,
  IN_TIME,
  NEXT_DUE_INSTANT,
  RIPE_MAX,
} from "./candidates.js";
import type { Floor } from "./floors.js";
import { actorCode, eventCode } from "./log.js";
import type { Route } from "./routes.js";
import { toClaimed } from "./take.js";

/** Routes by the lane they serve, lanes in the order in which they take turns. */
type RoutesInTurn = readonly (readonly Route[])[];

export interface QuickClaim {
  readonly routes: RoutesInTurn;
  readonly leaseTtlMs: number;
  readonly holder: number;
  /** For each place that it may fill, the request that this is a part of. */
  readonly requests: readonly (string | undefined)[];
  readonly floorOf: (route: number) => Floor;
}

/**
 * As JSON: what the planner cannot count it plans once. Arrays, whose lengths it sees, would make it plan each claim anew,
 * which takes longer than the claim.
 */
export function claimValues(claim: QuickClaim): SqlValue[] {
  return [
    JSON.stringify({
      most: claim.requests.length,
      ttl: claim.leaseTtlMs,
      renew_in: Math.floor((claim.leaseTtlMs * 2) / 3),
      holder: claim.holder,
    }),
    JSON.stringify(
      claim.routes.flatMap((routes, turn) =>
        routes.map(({ id }) => {
          const { readyFrom, dueFrom } = claim.floorOf(id);
          return { route: id, turn, ready_from: readyFrom, due_from: dueFrom };
        }),
      ),
    ),
    JSON.stringify(
      claim.requests.map((request, index) => ({
        place: index + 1,
        lease: newLeaseId(),
        attempt_id: newAttemptId(),
        request,
      })),
    ),
  ];
}

/** What the statement answers for each execution that it took. */
export interface TakenRow extends Pick<
  ExecutionRow,
  | "id"
  | "partition"
  | "route"
  | "kind"
  | "attempt"
  | "attempt_id"
  | "attempt_type"
  | "attempt_at"
  | "lease"
  | "epoch"
  | "holder"
  | "lease_expires_at"
  | "renewed_at"
  | "timeout_at"
  | "tags"
  | "details"
  | "retries"
> {
  readonly stood_at: number;
  readonly was_due: boolean;
  readonly was_interrupted: boolean;
  readonly payload: Uint8Array | null;
  readonly policy: string | null;
}

export function toClaimedExecution(
  store: Store,
  row: TakenRow,
): ClaimedExecution {
  store.leases.remember(bytesToUuid(row.lease!) as LeaseId, row);
  return toClaimed(
    store,
    row,
    row.payload,
    row.was_interrupted ? "resumed" : "fresh",
  );
}

const FIRST = attemptStateCode("pending_first_attempt");
const INTERRUPTED = attemptStateCode("attempt_interrupted");
const RETRY = attemptStateCode("pending_retry_attempt");
const REPLAY = attemptStateCode("pending_replay_attempt");

/** Lineage moves from the attempt that was to come to the one that runs; see \`beginAttempt\`. */
const DETAILS_OF_NEXT_ATTEMPT = `nullif((
        details::JSONB - ARRAY['nextReason', 'nextRequestedBy', 'nextPrevious', 'attemptReason', 'attemptRequestedBy',
          'attemptPrevious', 'failureReason', 'failureCategory']
        || jsonb_strip_nulls(jsonb_build_object('attemptReason', details::JSONB -> 'nextReason', 'attemptRequestedBy',
          details::JSONB -> 'nextRequestedBy', 'attemptPrevious', details::JSONB -> 'nextPrevious'))
      )::TEXT, '{}')`;

/** JSONB has no room for a zero character, which texts of callers may hold. */
const IS_PLAIN = `grant_until IS NULL AND (
          attempt_state IN (${FIRST}, ${INTERRUPTED}) OR attempt_state IN (${RETRY}, ${REPLAY}) AND (
            details IS NULL OR position('\\u0000' IN details) = 0
          )
        )`;

const CANDIDATE_COLUMNS = `seq, id, created_at, priority, mutated_at, score, events, attempt, attempts, epoch,
        attempt_state, progress_at, details, ${IS_PLAIN} AS plain`;

/**
 * What claims of one lane and claims of several look at. Of several that are served in turn each one with work gives one at
 * least: so none is looked into deeper than what the others leave to fill, and once there are enough of them the rest are
 * not looked at. Otherwise a claim would lock all that is wanted in each of a hundred lanes. Without the order of its index
 * the look at a lane would be a scan of the table, where most of it is expected to be work.
 */
const LANES = {
  one: { wanted: "", lastTurn: "NULL", depth: "(SELECT most FROM given)" },
  several: {
    wanted: `
  ), busy AS MATERIALIZED (
    SELECT asked.turn
    FROM given, asked, LATERAL (
      SELECT 1
      FROM executions
      WHERE route = asked.route AND home = ${HOME.eligible} AND score >= asked.ready_from
        AND (grant_until IS NULL OR grant_until <= given.now) AND ${IN_TIME}
      ORDER BY score, id
      LIMIT 1
    ) AS found
    LIMIT (SELECT most FROM given)
  ), looking AS MATERIALIZED (
    SELECT greatest(1, most - greatest(0, lanes - 1)) AS depth, CASE WHEN lanes >= most THEN last_turn END AS last_turn
    FROM given, (SELECT count(DISTINCT turn) AS lanes, max(turn) AS last_turn FROM busy) AS all_busy
  ), wanted AS MATERIALIZED (
    SELECT asked.*
    FROM asked, looking
    WHERE ${few("turn")} AND (last_turn IS NULL OR turn <= last_turn)`,
    lastTurn: "(SELECT last_turn FROM looking)",
    depth: "(SELECT depth FROM looking)",
  },
} as const;

export type Lanes = keyof typeof LANES;

/** The last lane, by its turn, that a claim looked at where it left some out. */
export const lastTurn = (lanes: Lanes) => LANES[lanes].lastTurn;

/** What is asked for, what stands there, and the best of it, under lock. */
export const picked = (lanes: Lanes) => `
  given AS MATERIALIZED (
    SELECT g.*, now_ms() AS now
    FROM json_to_record(?::JSON) AS g (most INTEGER, ttl BIGINT, renew_in BIGINT, holder BIGINT)
  ), ${lanes === "one" ? "wanted" : "asked"} AS MATERIALIZED (
    SELECT *
    FROM json_to_recordset(?::JSON) AS w (route BIGINT, turn INTEGER, ready_from BIGINT, due_from BIGINT)
    WHERE ${few("turn")}${LANES[lanes].wanted}
  ), minted AS MATERIALIZED (
    SELECT *
    FROM json_to_recordset(?::JSON) AS m (place BIGINT, lease UUID, attempt_id UUID, request TEXT)
  ), candidates AS MATERIALIZED (
    SELECT ready.*, wanted.turn, FALSE AS due
    FROM given, wanted, LATERAL (
      SELECT ${CANDIDATE_COLUMNS}
      FROM executions
      WHERE route = wanted.route AND home = ${HOME.eligible} AND score >= wanted.ready_from
        AND (grant_until IS NULL OR grant_until <= given.now) AND ${IN_TIME}
      ORDER BY score, id
      LIMIT ${LANES[lanes].depth}
      FOR UPDATE SKIP LOCKED
    ) AS ready
    UNION ALL
    SELECT ripe.*, wanted.turn, TRUE AS due
    FROM given, wanted, LATERAL (
      SELECT ${CANDIDATE_COLUMNS}
      FROM executions
      WHERE seq = ANY (ARRAY(
          SELECT seq
          FROM executions
          WHERE route = wanted.route AND home = ${HOME.delayed} AND score >= wanted.due_from AND score <= given.now
            AND ${IN_TIME}
          ORDER BY score
          LIMIT ${RIPE_MAX}
        ))
        AND home = ${HOME.delayed} AND score <= given.now AND ${IN_TIME}
      ORDER BY created_at - priority * ${PRIORITY_STEP_MS}, id
      LIMIT ${LANES[lanes].depth}
      FOR UPDATE SKIP LOCKED
    ) AS ripe
  ), picked AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY rank, turn) AS place
    FROM (
      SELECT *, row_number() OVER (PARTITION BY turn ORDER BY created_at - priority * ${PRIORITY_STEP_MS}, id) AS rank
      FROM candidates
    ) AS ranked
    ORDER BY rank, turn
    LIMIT (SELECT most FROM given)
  ), lost AS MATERIALIZED (
    SELECT EXISTS (
      SELECT 1
      FROM given, wanted, unnest(ARRAY[${HOME.lapsed}, ${HOME.revoked}]) AS gone (home), LATERAL (
        SELECT 1
        FROM executions
        WHERE route = wanted.route AND home = gone.home AND score >= wanted.due_from AND score <= given.now
          AND ${IN_TIME} ${FREE}
        LIMIT 1
      ) AS found
    ) OR EXISTS (
      SELECT 1
      FROM given, wanted, LATERAL (
        SELECT 1
        FROM executions
        WHERE route = wanted.route AND home = ${HOME.active} AND score >= wanted.due_from AND score <= given.now
          AND ${IN_TIME} ${BELOW_CAP}
        LIMIT 1
      ) AS found
    ) AS found
  )`;

/** A claim goes ahead where all it would take is plain, and nothing was lost that might come first. */
export const MAY_TAKE = `NOT (SELECT found FROM lost) AND (SELECT coalesce(bool_and(plain), TRUE) FROM picked)`;

/** Takes what was picked, where \`go\` says so. */
export const TAKEN = `
  chosen AS MATERIALIZED (
    SELECT picked.*, minted.lease, minted.attempt_id AS minted_id, minted.request, greatest(go.now, mutated_at) AS at,
      attempt_state = ${INTERRUPTED} AS interrupted, attempt_state IN (${RETRY}, ${REPLAY}) AS again
    FROM picked
    JOIN minted USING (place), go
    WHERE go.ahead AND ${few("place")}
  ), taken AS (
    UPDATE executions AS e
    SET home = ${HOME.active}, score = c.at + given.ttl, reason = 0, attempt_state = ${attemptStateCode("running_attempt")},
      events = e.events + CASE WHEN c.due THEN 2 ELSE 1 END, epoch = e.epoch + 1,
      attempt = CASE WHEN c.interrupted THEN e.attempt ELSE e.attempts END,
      attempts = e.attempts + CASE WHEN c.interrupted THEN 0 ELSE 1 END,
      attempt_id = CASE WHEN c.interrupted THEN e.attempt_id ELSE c.minted_id END,
      attempt_type = CASE c.attempt_state WHEN ${INTERRUPTED} THEN e.attempt_type WHEN ${RETRY} THEN ${attemptTypeCode("retry")}
        WHEN ${REPLAY} THEN ${attemptTypeCode("replay")} ELSE ${attemptTypeCode("initial")} END,
      attempt_at = CASE WHEN c.interrupted THEN e.attempt_at ELSE c.at END,
      timeout_at = c.at + CASE WHEN c.interrupted THEN e.timeout_left ELSE e.timeout_ms END, timeout_left = NULL,
      timer_at = least(e.deadline_at, c.at + CASE WHEN c.interrupted THEN e.timeout_left ELSE e.timeout_ms END),
      details = CASE WHEN c.again AND e.details IS NOT NULL THEN ${DETAILS_OF_NEXT_ATTEMPT.replaceAll("details::", "e.details::")} ELSE e.details END,
      progress_at = CASE WHEN c.again THEN NULL ELSE e.progress_at END, lease = c.lease, holder = given.holder,
      request = c.request, leased_at = c.at, renewed_at = c.at, lease_expires_at = c.at + given.ttl,
      renew_by = c.at + given.renew_in, lost_at = NULL, started_at = coalesce(e.started_at, c.at), delay_until = NULL,
      transitioned_at = c.at, mutated_at = c.at
    FROM chosen AS c, given
    WHERE e.seq = c.seq
    RETURNING e.seq, e.id, e.partition, e.route, e.kind, e.attempt, e.attempt_id, e.attempt_type, e.attempt_at, e.lease,
      e.epoch, e.holder, e.lease_expires_at, e.renewed_at, e.timeout_at, e.tags, e.details, e.retries, e.events, c.at, c.place,
      c.score AS stood_at, c.due AS was_due, c.interrupted AS was_interrupted, c.attempt AS last_attempt,
      c.attempts AS last_attempts, c.epoch AS last_epoch, c.attempt_state AS last_state
  ), told_of_claims AS (
    INSERT INTO events (execution, n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, tags)
    SELECT execution, n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, tags
    FROM (
      SELECT place, seq, events - 1, at, ${eventCode("promoted")}, ${actorCode("engine")},
        ${packState(HOME.eligible, "waiting_for_worker", "none")} + last_state,
        CASE WHEN last_attempts > 0 THEN last_attempt END, CASE WHEN last_epoch > 0 THEN last_epoch END, NULL::BIGINT,
        NULL::UUID, NULL::UUID, tags
      FROM taken
      WHERE was_due
      UNION ALL
      SELECT place, seq, events, at, CASE WHEN was_interrupted THEN ${eventCode("resumed")} ELSE ${eventCode("claimed")} END,
        ${actorCode("worker")}, ${packState(HOME.active, "none", "running_attempt")}, attempt, epoch, holder, lease,
        attempt_id, tags
      FROM taken
    ) AS told (place, execution, n, at, type, actor, state, attempt, epoch, holder, lease, attempt_id, tags)
    ORDER BY place, n
  ), forgotten AS (
    DELETE FROM progress
    USING chosen
    WHERE progress.seq = chosen.seq AND chosen.again AND chosen.progress_at IS NOT NULL
  )`;

/**
 * When to look again where the claim was not filled. At once where lanes were left out: others took what was seen in
 * those before, and there may be more in the rest.
 */
export const nextDueUnlessFull = (
  lanes: Lanes,
) => `CASE WHEN (SELECT count(*) FROM picked) < (SELECT most FROM given) THEN CASE
    WHEN ${lastTurn(lanes)} IS NOT NULL THEN given.now
    ELSE (${NEXT_DUE_INSTANT}
  ) END END`;
