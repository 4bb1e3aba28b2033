/** A call is one trip to the server, and maintenance beside the claims is rare: both decide what a store far away can do. */
import { postgresBackend } from "@flowfabric/postgres";
import { countRoundTrips, recordingPool } from "@flowfabric/postgres-testing";
import { compareIdle } from "@flowfabric/test-servers";
import { expect, inject, test } from "vitest";

import { newSchema } from "./schemas.js";

const PORTIONS_PER_SECOND = 4;

test("a call is one statement, however many items it has, or two for a signal, a transaction few trips, and beside them run four portions a second at most", async () => {
  const connectionString = inject("postgresUrl");
  await using schema = newSchema(connectionString);
  const log = recordingPool({ connectionString, max: 2 });
  try {
    const { plain, transactions } = await countRoundTrips(
      (pool) => postgresBackend({ pool, schema: schema.name }),
      log,
    );

    expect(
      plain.map(({ name, statements, calls }) => [name, statements / calls]),
    ).toEqual([
      ["submit", 1],
      ["submit with a key", 1],
      ["submitMany of 16", 1],
      ["claim of 1", 1],
      ["claim of 16", 1],
      ["claim of a resumed one", 1],
      // What it is judged by, and what it changes.
      ["a signal that is kept", 2],
      ["a signal that resumes", 2],
      ["renew", 1],
      ["progress", 1],
      ["complete", 1],
      ["complete with a result", 1],
      ["fail", 1],
      ["fail with a retry left", 1],
      ["appendFrame", 1],
      ["appendFrames of each mode", 1],
      ["appendFrame of 16 at once", 1],
      ["readStream", 1],
      ["tailStream that need not wait", 1],
      ["readSummary", 1],
      ["completeAndClaim of 1", 1],
      ["completeAndClaim of 16", 1],
    ]);
    // Begin; the row under lock; what else it is judged by, unless that can be asked for at once; all writes with the commit.
    // An end tries its one statement first, and needs nothing beside the row behind it.
    expect(
      transactions.map(({ name, trips, calls }) => [name, trips / calls]),
    ).toEqual([
      ["createWaitpoint", 4],
      ["suspend", 4],
      ["complete behind a waitpoint", 4],
    ]);
    for (const { name, portions, tookMs } of plain)
      expect(portions, `portions beside ${name}`).toBeLessThanOrEqual(
        // One more, for the span may begin just before one.
        1 + (tookMs / 1_000) * PORTIONS_PER_SECOND,
      );
    // Without any the engine would not drive itself.
    expect(
      plain.some(({ portions }) => portions > 0),
      "claims drive the engine",
    ).toBe(true);
  } finally {
    await log.pool.end();
  }
}, 120_000);

test("thousands of suspended executions cost a claim that waits nothing", async () => {
  const connectionString = inject("postgresUrl");
  await using schema = newSchema(connectionString);
  const log = recordingPool({ connectionString, max: 4 });
  try {
    await using backend = await postgresBackend({
      pool: log.pool,
      schema: schema.name,
    });
    let statements = 0;

    const cost = await compareIdle(
      backend,
      10_000,
      () => (statements += log.take().length),
    );

    console.log(JSON.stringify(cost));
    // Now and then a process tells of itself: of the worker, of what it waits for, and it looks again behind that. Any cost of
    // theirs would be thousands.
    expect(cost.many).toBeLessThanOrEqual(2 * cost.none);
  } finally {
    await log.pool.end();
  }
}, 120_000);
