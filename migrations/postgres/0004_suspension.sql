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
  seq BIGINT PRIMARY KEY,
  id UUID NOT NULL,
  attempt INTEGER NOT NULL,
  receipt TEXT COLLATE "C" NOT NULL,
  reason TEXT COLLATE "C" NOT NULL,
  requested_by TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  timeout_at BIGINT,
  timeout_behavior TEXT COLLATE "C" NOT NULL,
  condition TEXT COLLATE "C" NOT NULL,
  policy TEXT COLLATE "C" NOT NULL,
  pointer TEXT COLLATE "C",
  progress TEXT COLLATE "C" NOT NULL,
  closed_at BIGINT,
  close_reason TEXT COLLATE "C",
  resume_trigger TEXT COLLATE "C",
  closer UUID
) WITH (
  -- Rewritten by each signal that counts.
  fillfactor = 70
);

-- Outcomes of suspends by their idempotency keys.
CREATE TABLE suspend_replays (
  seq BIGINT NOT NULL,
  replay_key TEXT COLLATE "C" NOT NULL,
  receipt TEXT COLLATE "C" NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (seq, replay_key)
);

-- state is a number of core/src/rules/suspension.ts. A token is never stored: it follows from the row and the secret of
-- its kid.
CREATE TABLE waitpoints (
  seq BIGINT NOT NULL,
  id UUID NOT NULL,
  attempt INTEGER NOT NULL,
  state SMALLINT NOT NULL,
  waitpoint_key TEXT COLLATE "C" NOT NULL,
  kid TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  activated_at BIGINT,
  expires_at BIGINT,
  closed_at BIGINT,
  close_reason TEXT COLLATE "C",
  suspension UUID,
  signals INTEGER NOT NULL DEFAULT 0,
  matched INTEGER NOT NULL DEFAULT 0,
  last_signal_at BIGINT,
  PRIMARY KEY (seq, id)
) WITH (
  -- Rewritten by each signal.
  fillfactor = 70
);

-- What takes signals; an execution that suspends often leaves many behind that do not.
CREATE INDEX waitpoints_open ON waitpoints (seq, id) WHERE state < 2;
CREATE INDEX waitpoints_pending ON waitpoints (expires_at) WHERE state = 0;

-- n counts per execution from 1, in the order of acceptance. leaves names those of the condition that it counted for; NULL
-- where it counted for none.
CREATE TABLE signals (
  seq BIGINT NOT NULL,
  n INTEGER NOT NULL,
  id UUID NOT NULL,
  waitpoint UUID NOT NULL,
  name TEXT COLLATE "C" NOT NULL,
  category TEXT COLLATE "C" NOT NULL,
  source_type TEXT COLLATE "C" NOT NULL,
  source_identity TEXT COLLATE "C" NOT NULL,
  correlation_id TEXT COLLATE "C" NOT NULL,
  encoding TEXT COLLATE "C" NOT NULL,
  scope TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  accepted_at BIGINT NOT NULL,
  effect TEXT COLLATE "C" NOT NULL,
  leaves TEXT COLLATE "C",
  repeats INTEGER NOT NULL DEFAULT 0,
  payload BYTEA,
  PRIMARY KEY (seq, n),
  UNIQUE (seq, id)
);

ALTER TABLE signals ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE INDEX signals_by_waitpoint ON signals (seq, waitpoint, n);

-- n is that of the signal.
CREATE TABLE signal_keys (
  seq BIGINT NOT NULL,
  waitpoint UUID NOT NULL,
  signal_key TEXT COLLATE "C" NOT NULL,
  n INTEGER NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (seq, waitpoint, signal_key)
);

-- Sources that a leaf of the open suspension has counted.
CREATE TABLE signal_sources (
  seq BIGINT NOT NULL,
  source_type TEXT COLLATE "C" NOT NULL,
  source_identity TEXT COLLATE "C" NOT NULL,
  leaf INTEGER NOT NULL,
  PRIMARY KEY (seq, source_type, source_identity, leaf)
);

-- One signs and has no expires_at; the others verify until theirs.
CREATE TABLE waitpoint_secrets (
  kid TEXT COLLATE "C" PRIMARY KEY,
  secret TEXT COLLATE "C" NOT NULL,
  signs BOOLEAN NOT NULL,
  expires_at BIGINT
);

CREATE UNIQUE INDEX waitpoint_secrets_current ON waitpoint_secrets (signs) WHERE signs;

-- Tags of executions that callers' transactions made, as events of feeds only: without a position until somebody who reads
-- that feed, or changes the tags, gives them one. Drawn by the caller's transaction it would stall all feeds while that is
-- open. Submissions of old workers are not told in the feed of tags.
CREATE INDEX events_unplaced ON events (execution) WHERE position IS NULL AND n IS NULL;
