-- Output of attempts: frames, and the summary that patches build. Older workers may keep running: they write none, and
-- leave behind the frames of what they purge.

-- One row per attempt that has written something. durable, summary and best_effort count what is retained of each mode,
-- *_trimmed_* is the last frame that each has lost; caller_* is what the last append with a number of the caller's was
-- answered; rate_hz and best_effort_at size the best-effort frames. changed counts the appends of the whole store. Whether the stream is closed stands nowhere: an
-- attempt that has ended is a closed stream.
CREATE TABLE streams (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  last_n INTEGER NOT NULL,
  frame_count INTEGER NOT NULL,
  total_bytes INTEGER NOT NULL,
  durable_kept INTEGER NOT NULL,
  durable INTEGER NOT NULL,
  summary INTEGER NOT NULL,
  best_effort INTEGER NOT NULL,
  durable_trimmed_ms INTEGER NOT NULL,
  durable_trimmed_n INTEGER NOT NULL,
  summary_trimmed_ms INTEGER NOT NULL,
  summary_trimmed_n INTEGER NOT NULL,
  best_effort_trimmed_ms INTEGER NOT NULL,
  best_effort_trimmed_n INTEGER NOT NULL,
  caller_seq INTEGER,
  caller_ms INTEGER,
  caller_n INTEGER,
  caller_count INTEGER,
  caller_version INTEGER,
  rate_hz REAL,
  best_effort_at INTEGER,
  PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;

-- What other processes have appended since a look.
CREATE INDEX streams_by_change ON streams (changed);

INSERT INTO settings (name, value) VALUES ('stream_changes', 0);

-- Each mode of a stream is a range of its own: trimming takes from the front of one, and a reader that leaves best-effort
-- frames out never meets them. A read merges the ranges by (ms, n), which is the frame's id.
CREATE TABLE frames (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  mode INTEGER NOT NULL,
  ms INTEGER NOT NULL,
  n INTEGER NOT NULL,
  frame_type TEXT NOT NULL,
  correlation_id TEXT,
  caller_seq INTEGER,
  summary_version INTEGER,
  ttl_ms INTEGER,
  payload BLOB NOT NULL,
  PRIMARY KEY (seq, attempt, mode, ms, n)
) WITHOUT ROWID;

-- Apart from streams, whose row every append rewrites. The document is JSON text.
CREATE TABLE summaries (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  document TEXT NOT NULL,
  version INTEGER NOT NULL,
  first_applied_at INTEGER NOT NULL,
  last_updated_at INTEGER NOT NULL,
  PRIMARY KEY (seq, attempt)
);

-- Executions that are gone and whose frames are not yet: there may be many, and they go in portions.
CREATE TABLE stale_frames (
  seq INTEGER PRIMARY KEY
);
