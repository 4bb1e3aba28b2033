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

/** Source of the numbers of suspensions, waitpoints and signals: specification 01 §4, 05. */
export const WAITPOINT_KEY_MAX_BYTES = 256;
export const PENDING_WAITPOINT_MS_MAX = 2_592_000_000;
/** Pending and active ones of one execution. */
export const OPEN_WAITPOINTS_MAX = 256;
export const SUSPEND_BINDINGS_MAX = 64;
export const SUSPEND_POINTER_MAX_BYTES = 4_096;
/** A timeout this far gone by is taken for a mistake; one less far fires at once. */
export const SUSPEND_TIMEOUT_TOLERANCE_MS = 600_000;
/** How long the outcome of a suspend is remembered under its idempotency key: after its timeout, and at most. */
export const SUSPEND_REPLAY_SLACK_MS = 60_000;
export const SUSPEND_REPLAY_MS_MAX = 604_800_000;
/** Ten years: added to any instant it stays an exact number. */
export const RESUME_DELAY_MS_MAX = 315_360_000_000;
export const CONDITION_DEPTH_MAX = 4;
export const CONDITION_NODES_MAX = 128;
export const CONDITION_KEYS_MAX = 64;
export const CONDITION_COUNT_MAX = 10_000;
export const SIGNAL_NAME_MAX_BYTES = 256;
/** Category, source, correlation id, encoding, scope and keys of a signal, each. */
export const SIGNAL_TEXT_MAX_BYTES = 256;
export const SIGNAL_DEDUP_MS_DEFAULT = 86_400_000;
export const MAX_SIGNALS_PER_EXECUTION_DEFAULT = 10_000;
export const WAITPOINT_PAGE_DEFAULT = 100;
export const WAITPOINT_PAGE_MAX = 1_000;
export const KID_MAX_CHARACTERS = 64;
export const SECRET_GRACE_MS_DEFAULT = 86_400_000;
/** A refused signal is noted on its execution at most this often. */
export const TOKEN_FAILURE_NOTE_INTERVAL_MS = 1_000;

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

/** Payload of one frame, and the summary document that patches make. */
export const FRAME_MAX_BYTES = 65_536;
export const SUMMARY_MAX_BYTES = 1_048_576;
export const FRAME_TYPE_MAX_BYTES = 128;
export const CORRELATION_ID_MAX_BYTES = 256;
/** Nesting of a patch below its root: objects alone, and objects and arrays together. */
export const PATCH_OBJECT_DEPTH_MAX = 16;
export const PATCH_DEPTH_MAX = 32;
/** Frames kept per stream, each mode by itself. */
export const DURABLE_FRAMES_KEPT_DEFAULT = 10_000;
export const SUMMARY_FRAMES_KEPT = 64;
export const BEST_EFFORT_TTL_MS_MAX = 86_400_000;
export const BEST_EFFORT_MAXLEN_FLOOR_DEFAULT = 64;
export const BEST_EFFORT_MAXLEN_CEILING_DEFAULT = 16_384;
export const BEST_EFFORT_ALPHA_DEFAULT = 0.2;
/** One reply of a stream: frames, and bytes of payload. */
export const STREAM_PAGE_MAX = 10_000;
export const STREAM_PAGE_BYTES_MAX = 16 * 1_048_576;
/** Reads of streams in flight, and tails that wait, per process. */
export const STREAM_OPS_MAX = 64;
export const PARKED_TAILS_MAX = 10_000;

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
