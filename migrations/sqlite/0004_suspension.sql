-- Waiting for signals: suspensions, waitpoints, signals, and the keys of their tokens. Old workers may keep running until
-- the first execution suspends: they would end it without closing its waitpoints.

-- How many waitpoints and signals an execution ever had. NULL for most: there is nothing beside the row then, and whoever
-- ends or purges it looks for nothing.
ALTER TABLE executions ADD COLUMN waitpoints INTEGER;
ALTER TABLE executions ADD COLUMN signals INTEGER;

-- Suspended executions in the order they suspended; score is that time.
CREATE INDEX executions_suspended ON executions (score, id, partition) WHERE home = 15;

-- The last suspension of an execution, open until closed_at is set. receipt is what a repeated suspend is answered from;
-- progress has one value per leaf of the condition. While it is open, its timeout is the execution's timeout_at.
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

-- Outcomes of suspends by their idempotency keys.
CREATE TABLE suspend_replays (
  seq INTEGER NOT NULL,
  replay_key TEXT NOT NULL,
  receipt TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (seq, replay_key)
) WITHOUT ROWID;

-- state is a number of core/src/rules/suspension.ts. A token is never stored: it follows from the row and the secret of
-- its kid.
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

-- What takes signals; an execution that suspends often leaves many behind that do not.
CREATE INDEX waitpoints_open ON waitpoints (seq, id) WHERE state < 2;
CREATE INDEX waitpoints_pending ON waitpoints (expires_at) WHERE state = 0;

-- position is that of the event that tells of it, and so the order of acceptance. leaves names those of the condition that
-- it counted for; NULL where it counted for none.
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

CREATE TABLE signal_keys (
  seq INTEGER NOT NULL,
  waitpoint BLOB NOT NULL,
  signal_key TEXT NOT NULL,
  position INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (seq, waitpoint, signal_key)
) WITHOUT ROWID;

-- Sources that a leaf of the open suspension has counted.
CREATE TABLE signal_sources (
  seq INTEGER NOT NULL,
  source_type TEXT NOT NULL,
  source_identity TEXT NOT NULL,
  leaf INTEGER NOT NULL,
  PRIMARY KEY (seq, source_type, source_identity, leaf)
) WITHOUT ROWID;

-- One signs and has no expires_at; the others verify until theirs.
CREATE TABLE waitpoint_secrets (
  kid TEXT PRIMARY KEY,
  secret TEXT NOT NULL,
  signs INTEGER NOT NULL,
  expires_at INTEGER
) WITHOUT ROWID;
