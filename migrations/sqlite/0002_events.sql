-- The one log. Lifecycle history, lease history and completions are views of it by type. Old workers cannot run
-- without it: it comes with the first release.

-- position is drawn from settings, never reused. n counts per execution from 1; NULL marks what only feeds show.
-- state is the packed vector after a transition, NULL where none took place. tags are those of that moment.
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

-- What a holder must hear about: its lease ended by someone else's hand. Small, so that a process which watches
-- workers reads only these. The numbers are lease_expired, lease_revoked, retry_scheduled (of a timed-out attempt),
-- cancelled and expired; holder is set on them only where a lease was taken away.
CREATE INDEX events_for_holders ON events (position) WHERE holder IS NOT NULL AND type IN (5, 6, 17, 22, 23);

-- Executions purged before the feeds may forget them: what their events need to be told.
CREATE TABLE purged (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL,
  partition INTEGER NOT NULL,
  route INTEGER NOT NULL,
  completed_at INTEGER NOT NULL
);

CREATE INDEX purged_by_completion ON purged (completed_at);
