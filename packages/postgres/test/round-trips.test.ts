/** A call is one trip to the server, and maintenance beside the claims is rare: both decide what a store far away can do. */
import { postgresBackend } from "@flowfabric/postgres";
import { countRoundTrips, recordingPool } from "@flowfabric/postgres-testing";
import { expect, inject, test } from "vitest";

import { newSchema } from "./schemas.js";

const PORTIONS_PER_SECOND = 4;

test("a call is one statement, however many items it has, and beside it run four portions a second at most", async () => {
  const connectionString = inject("postgresUrl");
  await using schema = newSchema(connectionString);
  const log = recordingPool({ connectionString, max: 2 });
  try {
    const found = await countRoundTrips(
      (pool) => postgresBackend({ pool, schema: schema.name }),
      log,
    );

    expect(
      found.map(({ name, statements, calls }) => [name, statements / calls]),
    ).toEqual([
      ["submit", 1],
      ["submit with a key", 1],
      ["submitMany of 16", 1],
      ["claim of 1", 1],
      ["claim of 16", 1],
      ["renew", 1],
      ["progress", 1],
      ["complete", 1],
      ["complete with a result", 1],
      ["fail", 1],
      ["fail with a retry left", 1],
      ["completeAndClaim of 1", 1],
      ["completeAndClaim of 16", 1],
    ]);
    for (const { name, portions, tookMs } of found)
      expect(portions, `portions beside ${name}`).toBeLessThanOrEqual(
        // One more, for the span may begin just before one.
        1 + (tookMs / 1_000) * PORTIONS_PER_SECOND,
      );
    // Without any the engine would not drive itself.
    expect(
      found.some(({ portions }) => portions > 0),
      "claims drive the engine",
    ).toBe(true);
  } finally {
    await log.pool.end();
  }
});
