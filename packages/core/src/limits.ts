/**
 * Every number that bounds an input or sets a default, in one place. Units are in the names.
 * Source: specification 01 §4, 09 §17; payload limit 00 D51.
 */

/** Priority range; values outside are clamped silently. Higher runs first. */
export const PRIORITY_MIN = 0;
export const PRIORITY_MAX = 9_000;
/** What one priority step is worth in the sort key: more than any difference of creation times. */
export const PRIORITY_STEP_MS = 1_000_000_000_000;

export const LANE_ID_MAX_BYTES = 64;
export const IDENTITY_MAX_BYTES = 256;
export const IDEMPOTENCY_KEY_MAX_BYTES = 256;

export const CAPABILITY_TOKENS_MAX = 256;
export const CAPABILITY_CSV_MAX_BYTES = 4_096;

export const TAGS_MAX = 32;
export const TAG_KEY_MAX_BYTES = 128;
export const TAG_VALUE_MAX_BYTES = 256;
export const TAG_CONDITIONS_MAX = 16;

/** Input and result bytes: default and the largest value a backend may be configured to. */
export const PAYLOAD_MAX_BYTES_DEFAULT = 1_048_576;
export const PAYLOAD_MAX_BYTES_CEILING = 16 * 1_048_576;

export const BATCH_ITEMS_MAX = 1_000;
export const BATCH_MAX_BYTES = 8 * 1_048_576;
export const CLAIM_MANY_MAX = 100;

export const MAX_WAIT_MS_CEILING = 30_000;
export const GRANT_TTL_MS_MAX = 60_000;
export const GRANT_TTL_MS_DEFAULT = 5_000;
export const LEASE_TTL_MS_DEFAULT = 30_000;
export const WORKER_TTL_MS_MIN = 1_000;
export const WORKER_TTL_MS_MAX = 3_600_000;
/** A caller that claims without registering is kept in the registry this long. */
export const EPHEMERAL_WORKER_TTL_MS = 30_000;
/** A claim refreshes its worker's registration at most this often. */
export const HEARTBEAT_THROTTLE_MS = 10_000;
export const DEAD_REASON_MAX_BYTES = 256;

export const LIST_PAGE_MAX = 1_000;
export const EXPIRED_LEASE_PAGE_DEFAULT = 1_000;
export const EXPIRED_LEASE_PAGE_MAX = 10_000;
export const WORKER_PAGE_DEFAULT = 1_000;
export const WORKER_PAGE_MAX = 10_000;
export const EVENT_PAGE_MAX = 1_000;

export const MAX_RETRIES_DEFAULT = 3;
export const MAX_RECLAIMS_DEFAULT = 100;
export const MAX_REPLAYS_DEFAULT = 10;
export const DEDUP_WINDOW_MS_DEFAULT = 86_400_000;
export const RETENTION_MS_DEFAULT = 86_400_000;

/** The n-th reclaim of one execution is offered after 0, 1, 2, 4 … seconds, at most this long. */
export const RECLAIM_BACKOFF_MS_BASE = 1_000;
export const RECLAIM_BACKOFF_MS_MAX = 60_000;

/** Events an execution shows: the newest this many, plus its creation and every end. */
export const EVENTS_PER_EXECUTION_MAX = 1_000;
export const FEED_RETENTION_MS_DEFAULT = 86_400_000;
export const FEED_EVENTS_MAX = 1_000_000;
export const FEED_BUFFER_EVENTS = 1_024;
/** `progress` and `renewed` events are thinned to one per this span, execution and lease. */
export const PROGRESS_EVENT_INTERVAL_MS = 1_000;
export const RENEWED_EVENT_INTERVAL_MS = 10_000;

/** A claim that finds nothing looks again this often when push is broken (00 D38). */
export const SAFETY_POLL_MS = 1_000;
/** Driving the engine beside claims: at most one portion per span and process (00 D36). */
export const PORTION_INTERVAL_MS = 250;
export const SWEEP_LIMIT_DEFAULT = 100;
export const SWEEP_LIMIT_MAX = 1_000;

/** UTF-8 length in bytes. */
export function byteLength(text: string): number {
  return Buffer.byteLength(text, "utf8");
}
