-- The record of an execution, its bytes and what is remembered beside it. First schema; nothing runs before it.

-- What belongs to the store as a whole: counters and the partition counts fixed at first boot.
CREATE TABLE settings (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO settings (name, value) VALUES ('position', 0), ('feed_floor', 0);

-- Where work waits: one row per namespace, lane and set of required capabilities. A worker's claim looks at the
-- routes it can serve and never at others, so work it cannot take hides nothing. Ids are not reused, so that a
-- process may keep what it has read.
CREATE TABLE routes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  namespace TEXT NOT NULL,
  lane TEXT NOT NULL,
  required TEXT NOT NULL,
  UNIQUE (namespace, lane, required)
);

-- Lanes outlive their routes.
CREATE TABLE lanes (
  lane TEXT PRIMARY KEY
) WITHOUT ROWID;

-- Worker identities by number: a lease names one of these instead of two texts.
CREATE TABLE holders (
  id INTEGER PRIMARY KEY,
  worker_id TEXT NOT NULL,
  instance_id TEXT NOT NULL,
  UNIQUE (instance_id, worker_id)
);

-- One row per execution; kept small, for every transition rewrites it. seq is the position of its first event:
-- creation order, never reused. home, reason and attempt_state are numbers of core/src/state.ts; score orders the
-- rows of a home. Times are epoch milliseconds. Unset is NULL and costs a byte.
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
  details TEXT,
  UNIQUE (id, partition)
);

-- The one home an execution is in, in the order its home is served. Claims, take-overs, promotion and retention all
-- walk this index; finished rows stand behind the homes that claims read and never slow one.
CREATE INDEX executions_by_home ON executions (route, home, score, id);

-- Deadlines and attempt timeouts, whichever comes first; only where set.
CREATE INDEX executions_by_timer ON executions (timer_at) WHERE timer_at IS NOT NULL;

-- Payload, policy and what makes a repeat recognisable; off the hot row, written once, only where given.
CREATE TABLE inputs (
  seq INTEGER PRIMARY KEY,
  payload BLOB,
  policy TEXT,
  fingerprint TEXT,
  idempotency_key TEXT,
  creator TEXT
);

CREATE TABLE results (
  seq INTEGER PRIMARY KEY,
  payload BLOB NOT NULL
);

-- Progress is written often and read rarely; its row is no part of the hot one.
CREATE TABLE progress (
  seq INTEGER PRIMARY KEY,
  percent INTEGER,
  message TEXT,
  logged_at INTEGER
);

-- Attempts before the current one, written when they are superseded; the current one is columns of its execution.
CREATE TABLE attempts (
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  record TEXT NOT NULL,
  result BLOB,
  PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;

CREATE TABLE idempotency (
  namespace TEXT NOT NULL,
  lane TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  seq INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (namespace, lane, idempotency_key)
) WITHOUT ROWID;

CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);

-- Search by exact tag, newest first; seq leads to the execution.
CREATE TABLE tags (
  tag_key TEXT NOT NULL,
  tag_value TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (tag_key, tag_value, created_at, id, seq)
) WITHOUT ROWID;

-- Real grants only: a fused claim leaves none.
CREATE TABLE grants (
  seq INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  worker_id TEXT NOT NULL,
  instance_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  notes TEXT
);
