-- Output of attempts: frames, and the summary that patches build. Older workers may keep running: they write none, and
-- leave behind the frames of what they purge.

-- One row per attempt that has written something. durable, summary and best_effort count what is retained of each mode,
-- *_trimmed_* is the last frame that each has lost; caller_* is what the last append with a number of the caller's was
-- answered; rate_hz and best_effort_at size the best-effort frames. Whether the stream is closed stands nowhere: an
-- attempt that has ended is a closed stream.
CREATE TABLE streams (
  seq BIGINT NOT NULL,
  attempt INTEGER NOT NULL,
  last_ms BIGINT NOT NULL,
  last_n BIGINT NOT NULL,
  frame_count BIGINT NOT NULL,
  total_bytes BIGINT NOT NULL,
  durable_kept INTEGER NOT NULL,
  durable INTEGER NOT NULL,
  summary INTEGER NOT NULL,
  best_effort INTEGER NOT NULL,
  durable_trimmed_ms BIGINT NOT NULL,
  durable_trimmed_n BIGINT NOT NULL,
  summary_trimmed_ms BIGINT NOT NULL,
  summary_trimmed_n BIGINT NOT NULL,
  best_effort_trimmed_ms BIGINT NOT NULL,
  best_effort_trimmed_n BIGINT NOT NULL,
  caller_seq BIGINT,
  caller_ms BIGINT,
  caller_n BIGINT,
  caller_count BIGINT,
  caller_version BIGINT,
  rate_hz DOUBLE PRECISION,
  best_effort_at BIGINT,
  PRIMARY KEY (seq, attempt)
) WITH (
  -- Every append rewrites its row: the next version shall find room on the same page, and touch no index.
  fillfactor = 30,
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_cost_delay = 0
);

-- Each mode of a stream is a range of its own: trimming takes from the front of one, and a reader that leaves best-effort
-- frames out never meets them. A read merges the ranges by (ms, n), which is the frame's id.
CREATE TABLE frames (
  seq BIGINT NOT NULL,
  attempt INTEGER NOT NULL,
  mode SMALLINT NOT NULL,
  ms BIGINT NOT NULL,
  n BIGINT NOT NULL,
  frame_type TEXT COLLATE "C" NOT NULL,
  correlation_id TEXT COLLATE "C",
  caller_seq BIGINT,
  summary_version BIGINT,
  ttl_ms BIGINT,
  payload BYTEA NOT NULL,
  PRIMARY KEY (seq, attempt, mode, ms, n)
) WITH (
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_cost_delay = 0
);

ALTER TABLE frames ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Apart from streams, whose row every append rewrites. The document is JSON text.
CREATE TABLE summaries (
  seq BIGINT NOT NULL,
  attempt INTEGER NOT NULL,
  document TEXT COLLATE "C" NOT NULL,
  version BIGINT NOT NULL,
  first_applied_at BIGINT NOT NULL,
  last_updated_at BIGINT NOT NULL,
  PRIMARY KEY (seq, attempt)
) WITH (fillfactor = 30);

-- Executions that are gone and whose frames are not yet: there may be many, and they go in portions.
CREATE TABLE stale_frames (
  seq BIGINT PRIMARY KEY
);
