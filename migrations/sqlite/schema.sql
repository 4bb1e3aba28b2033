-- What the migrations add up to. Written by the tests of packages/sqlite: UPDATE_SCHEMA=1 npm test -- --project unit

CREATE TABLE attempts (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  record TEXT NOT NULL,
  result BLOB,
  PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;

CREATE TABLE events (
  position INTEGER PRIMARY KEY,
  execution INTEGER NOT NULL,
  n INTEGER,
  at INTEGER NOT NULL,
  type INTEGER NOT NULL,
  actor INTEGER NOT NULL,
  state INTEGER,
  attempt INTEGER,
  epoch INTEGER,
  holder INTEGER,
  lease BLOB,
  attempt_id BLOB,
  reason TEXT,
  data TEXT,
  tags TEXT
);

CREATE INDEX events_by_execution ON events (execution, n);

CREATE INDEX events_for_holders ON events (position) WHERE holder IS NOT NULL AND type IN (5, 6, 17, 22, 23);

CREATE TABLE executions (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  partition INTEGER NOT NULL,
  route INTEGER NOT NULL,
  kind TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  home INTEGER NOT NULL,
  score INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  attempt_state INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  events INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  retries INTEGER NOT NULL,
  reclaims INTEGER NOT NULL,
  reclaims_total INTEGER NOT NULL,
  replays INTEGER NOT NULL,
  holds INTEGER NOT NULL,
  transitioned_at INTEGER NOT NULL,
  mutated_at INTEGER NOT NULL,
  lease BLOB,
  attempt_id BLOB,
  holder INTEGER,
  request TEXT,
  leased_at INTEGER,
  lease_expires_at INTEGER,
  renewed_at INTEGER,
  renew_by INTEGER,
  lost_at INTEGER,
  attempt_type INTEGER,
  attempt_at INTEGER,
  started_at INTEGER,
  completed_at INTEGER,
  delay_until INTEGER,
  deadline_at INTEGER,
  timeout_ms INTEGER,
  timeout_at INTEGER,
  timeout_left INTEGER,
  timer_at INTEGER,
  grant_until INTEGER,
  max_reclaims INTEGER,
  keep_ms INTEGER,
  progress_at INTEGER,
  tags TEXT,
  details TEXT, waitpoints INTEGER, signals INTEGER,
  UNIQUE (id, partition)
);

CREATE INDEX executions_by_home ON executions (route, home, score, id);

CREATE INDEX executions_by_timer ON executions (timer_at) WHERE timer_at IS NOT NULL;

CREATE INDEX executions_suspended ON executions (score, id, partition) WHERE home = 15;

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

CREATE TABLE grants (
  seq INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  worker_id TEXT NOT NULL,
  instance_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  notes TEXT
);

CREATE TABLE holders (
  id INTEGER PRIMARY KEY,
  worker_id TEXT NOT NULL,
  instance_id TEXT NOT NULL,
  UNIQUE (instance_id, worker_id)
);

CREATE TABLE idempotency (
  namespace TEXT NOT NULL,
  lane TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  seq INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (namespace, lane, idempotency_key)
) WITHOUT ROWID;

CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

CREATE TABLE inputs (
  seq INTEGER PRIMARY KEY,
  payload BLOB,
  policy TEXT,
  fingerprint TEXT,
  idempotency_key TEXT,
  creator TEXT
);

CREATE TABLE lanes (
  lane TEXT PRIMARY KEY
) WITHOUT ROWID;

CREATE TABLE migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at INTEGER NOT NULL
  );

CREATE TABLE progress (
  seq INTEGER PRIMARY KEY,
  percent INTEGER,
  message TEXT,
  logged_at INTEGER
);

CREATE TABLE purged (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  partition INTEGER NOT NULL,
  route INTEGER NOT NULL,
  completed_at INTEGER NOT NULL
);

CREATE INDEX purged_by_completion ON purged (completed_at);

CREATE TABLE results (
  seq INTEGER PRIMARY KEY,
  payload BLOB NOT NULL
);

CREATE TABLE routes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  namespace TEXT NOT NULL,
  lane TEXT NOT NULL,
  required TEXT NOT NULL,
  UNIQUE (namespace, lane, required)
);

CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE signal_keys (
  seq INTEGER NOT NULL,
  waitpoint BLOB NOT NULL,
  signal_key TEXT NOT NULL,
  position INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (seq, waitpoint, signal_key)
) WITHOUT ROWID;

CREATE TABLE signal_sources (
  seq INTEGER NOT NULL,
  source_type TEXT NOT NULL,
  source_identity TEXT NOT NULL,
  leaf INTEGER NOT NULL,
  PRIMARY KEY (seq, source_type, source_identity, leaf)
) WITHOUT ROWID;

CREATE TABLE signals (
  position INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  id BLOB NOT NULL,
  waitpoint BLOB NOT NULL,
  name TEXT NOT NULL,
  category TEXT NOT NULL,
  source_type TEXT NOT NULL,
  source_identity TEXT NOT NULL,
  correlation_id TEXT NOT NULL,
  encoding TEXT NOT NULL,
  scope TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  accepted_at INTEGER NOT NULL,
  effect TEXT NOT NULL,
  leaves TEXT,
  repeats INTEGER NOT NULL DEFAULT 0,
  payload BLOB,
  UNIQUE (seq, id)
);

CREATE INDEX signals_by_waitpoint ON signals (seq, waitpoint, position);

CREATE TABLE stale_frames (
  seq INTEGER PRIMARY KEY
);

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

CREATE INDEX streams_by_change ON streams (changed);

CREATE TABLE summaries (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  document TEXT NOT NULL,
  version INTEGER NOT NULL,
  first_applied_at INTEGER NOT NULL,
  last_updated_at INTEGER NOT NULL,
  PRIMARY KEY (seq, attempt)
);

CREATE TABLE suspend_replays (
  seq INTEGER NOT NULL,
  replay_key TEXT NOT NULL,
  receipt TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (seq, replay_key)
) WITHOUT ROWID;

CREATE TABLE suspensions (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  attempt INTEGER NOT NULL,
  receipt TEXT NOT NULL,
  reason TEXT NOT NULL,
  requested_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  timeout_at INTEGER,
  timeout_behavior TEXT NOT NULL,
  condition TEXT NOT NULL,
  policy TEXT NOT NULL,
  pointer TEXT,
  progress TEXT NOT NULL,
  closed_at INTEGER,
  close_reason TEXT,
  resume_trigger TEXT,
  closer BLOB
);

CREATE TABLE tags (
  tag_key TEXT NOT NULL,
  tag_value TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (tag_key, tag_value, created_at, id, seq)
) WITHOUT ROWID;

CREATE TABLE waitpoint_secrets (
  kid TEXT PRIMARY KEY,
  secret TEXT NOT NULL,
  signs INTEGER NOT NULL,
  expires_at INTEGER
) WITHOUT ROWID;

CREATE TABLE waitpoints (
  seq INTEGER NOT NULL,
  id BLOB NOT NULL,
  attempt INTEGER NOT NULL,
  state INTEGER NOT NULL,
  waitpoint_key TEXT NOT NULL,
  kid TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  activated_at INTEGER,
  expires_at INTEGER,
  closed_at INTEGER,
  close_reason TEXT,
  suspension BLOB,
  signals INTEGER NOT NULL DEFAULT 0,
  matched INTEGER NOT NULL DEFAULT 0,
  last_signal_at INTEGER,
  PRIMARY KEY (seq, id)
) WITHOUT ROWID;

CREATE INDEX waitpoints_open ON waitpoints (seq, id) WHERE state < 2;

CREATE INDEX waitpoints_pending ON waitpoints (expires_at) WHERE state = 0;

CREATE TABLE workers (
  namespace TEXT NOT NULL,
  instance_id TEXT NOT NULL,
  worker_id TEXT NOT NULL,
  lanes TEXT NOT NULL,
  capabilities TEXT NOT NULL,
  ttl_ms INTEGER NOT NULL,
  registered_at INTEGER NOT NULL,
  heartbeat_at INTEGER NOT NULL,
  PRIMARY KEY (instance_id, namespace)
) WITHOUT ROWID;
