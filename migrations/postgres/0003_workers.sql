-- Who is alive and what they can do. Advisory: leases are governed by their own expiry.
CREATE TABLE workers (
  namespace TEXT COLLATE "C" NOT NULL,
  instance_id TEXT COLLATE "C" NOT NULL,
  worker_id TEXT COLLATE "C" NOT NULL,
  lanes TEXT COLLATE "C" NOT NULL,
  capabilities TEXT COLLATE "C" NOT NULL,
  ttl_ms BIGINT NOT NULL,
  registered_at BIGINT NOT NULL,
  heartbeat_at BIGINT NOT NULL,
  PRIMARY KEY (instance_id, namespace)
);

-- Who wants to be told: one row per process and lane, or per process with the empty lane for news of any kind. Writers
-- notify only where a row is live. Advisory like the registry; unlogged, for a process that waits writes it anew.
CREATE UNLOGGED TABLE waiters (
  process UUID NOT NULL,
  lane TEXT COLLATE "C" NOT NULL,
  until BIGINT NOT NULL,
  PRIMARY KEY (lane, process)
);
