/**
 * A prepared statement is planned five times for the values at hand before the server tries a plan for any values. Ours are
 * written for that one, and each is prepared on every connection, and again as its use grows: what is left of their
 * planning is a sixth. Tests hold the plans for any values to their indexes (query-plans.test.ts).
 */
import type { ClientBase } from "pg";

/** Without effect behind a pooler, whose sessions are shared with others, and where the operator has chosen. */
export async function planOnce(client: ClientBase): Promise<void> {
  // The driver's types do not know it.
  const { processID } = client as { processID?: number | null };
  try {
    await client.query(PLAN_ONCE, [processID]);
  } catch {
    // Whoever uses the connection learns whether it is broken.
  }
}

/** Compiling a statement, where it looks dear enough, takes the server longer than it takes us to run any. */
const PLAN_ONCE = `
  SELECT set_config(name, value, FALSE)
  FROM (VALUES ('plan_cache_mode', 'force_generic_plan', 'auto'), ('jit', 'off', 'on')) AS s (name, value, by_default)
  WHERE pg_backend_pid() = $1 AND current_setting(name) = by_default`;
