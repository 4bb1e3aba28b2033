-- Who is alive and what they can do. Advisory: leases are governed by their own expiry.
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
