/** How many statements does Postgres get for one call, and how much maintenance beside it? */
import { postgresBackend } from "@flowfabric/postgres";
import {
  countRoundTrips,
  recordingPool,
  type RoundTrips,
} from "@flowfabric/postgres-testing";

import { placeOf, PLAIN_SETTINGS, postgresStore } from "../postgres.js";

export async function measureRoundTrips(
  directory: string,
): Promise<RoundTrips[]> {
  const store = postgresStore("round trips", PLAIN_SETTINGS);
  const location = await store.create(directory);
  const { connectionString, schema } = placeOf(location);
  const log = recordingPool({ connectionString, max: 2 });
  try {
    const { plain } = await countRoundTrips(
      (pool) => postgresBackend({ pool, schema }),
      log,
    );
    return plain;
  } finally {
    await log.pool.end();
    await store.remove(location);
  }
}
