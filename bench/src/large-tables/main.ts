/** How much slower is Postgres with a million finished executions than with a few? */
import type { EngineBackend } from "@flowfabric/core";
import { fillTables } from "@flowfabric/postgres-testing";
import { compareRates, type Ratio } from "@flowfabric/test-servers";

import {
  placeOf,
  PLAIN_SETTINGS,
  postgresStore,
  withClient,
} from "../postgres.js";

export interface LargeTablesScale {
  readonly finished: number;
  readonly waiting: number;
  readonly rounds: number;
  readonly jobs: number;
}

export interface LargeTablesFigures extends LargeTablesScale {
  readonly ratios: readonly Ratio[];
}

const PAYLOAD_BYTES = 512;

export async function compareLargeTables(
  directory: string,
  scale: LargeTablesScale,
  report: (line: string) => void,
): Promise<LargeTablesFigures> {
  const store = postgresStore("large tables", PLAIN_SETTINGS);
  const withStore = async <Answer>(
    use: (backend: EngineBackend, location: string) => Promise<Answer>,
  ): Promise<Answer> => {
    const location = await store.create(directory);
    try {
      await using backend = await store.open(location);
      return await use(backend, location);
    } finally {
      await store.remove(location);
    }
  };
  return await withStore((small) =>
    withStore(async (large, location) => {
      const { connectionString, schema } = placeOf(location);
      const startMs = performance.now();
      await withClient(connectionString, async (database) => {
        await fillTables({
          backend: large,
          database,
          schema,
          finished: scale.finished,
          waiting: scale.waiting,
          payloadBytes: PAYLOAD_BYTES,
        });
        // What filling left to be written must not fall into a round.
        await database.query("CHECKPOINT");
      });
      report(
        `filled in ${((performance.now() - startMs) / 1_000).toFixed(0)} s: ${await store.storedBytes(location)} bytes`,
      );
      const ratios = await compareRates({
        small,
        large,
        rounds: scale.rounds,
        jobs: scale.jobs,
        payloadBytes: PAYLOAD_BYTES,
      });
      return { ...scale, ratios };
    }),
  );
}
