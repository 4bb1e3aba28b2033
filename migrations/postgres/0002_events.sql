-- The one log. Lifecycle history, lease history and completions are views of it by type. Old workers cannot run
-- without it: it comes with the first release.

-- Positions in the feeds. Only the engine's own transactions draw them, and each holds the sequence's lock to its end:
-- who reads a feed asks for the holders of that lock to know which gaps may still be filled. A caller's transaction
-- writes only creations, which no feed shows and which take no position, so that it can stay open without stalling
-- anyone.
CREATE SEQUENCE events_position;

-- n counts per execution from 1; NULL marks what only feeds show. state is the packed vector after a transition, NULL
-- where none took place. tags are those of that moment.
CREATE TABLE events (
  position BIGINT DEFAULT nextval('events_position'),
  execution BIGINT NOT NULL,
  n INTEGER,
  at BIGINT NOT NULL,
  type SMALLINT NOT NULL,
  actor SMALLINT NOT NULL,
  state INTEGER,
  attempt INTEGER,
  epoch BIGINT,
  holder BIGINT,
  lease UUID,
  attempt_id UUID,
  reason TEXT COLLATE "C",
  data TEXT COLLATE "C",
  tags TEXT COLLATE "C"
);

CREATE INDEX events_by_position ON events (position) WHERE position IS NOT NULL;

CREATE INDEX events_by_execution ON events (execution, n);

-- What a holder must hear about: its lease ended by someone else's hand. Small, so that a process which watches
-- workers reads only these. The numbers are lease_expired, lease_revoked, retry_scheduled (of a timed-out attempt),
-- cancelled and expired; holder is set on them only where a lease was taken away.
CREATE INDEX events_for_holders ON events (position) WHERE holder IS NOT NULL AND type IN (5, 6, 17, 22, 23);

-- Executions purged before the feeds may forget them: what their events need to be told.
CREATE TABLE purged (
  seq BIGINT PRIMARY KEY,
  id UUID NOT NULL,
  partition INTEGER NOT NULL,
  route BIGINT NOT NULL,
  completed_at BIGINT NOT NULL
);

CREATE INDEX purged_by_completion ON purged (completed_at);
