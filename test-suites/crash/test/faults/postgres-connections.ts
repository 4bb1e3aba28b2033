/** Connections that are taken away: by a restart of the server, by an operator, by others who need them all. */
import type pg from "pg";
import { describe, expect, test } from "vitest";

import { machineMs } from "../../src/reports.js";
import { pause } from "../fleet.js";
import { scaled, tell, TIMEOUT_MS } from "../harness.js";
import { Load } from "./load.js";
import { createPostgresBench, type ServerOf } from "./postgres-bench.js";
import { CONNECTIONS_MAX, type PostgresServer } from "./postgres-server.js";

/** How long the server stays away: longer than any call tries again by itself. */
const DOWN_MS = 1_500;

export function postgresConnectionTests(serverOf: ServerOf): void {
  describe(
    "postgres: connections that are taken away",
    { timeout: TIMEOUT_MS },
    () => {
      test("restarts of the server under load, after a fast and after an immediate shutdown, lose nothing", async () => {
        const { server, store } = createPostgresBench(serverOf());
        const load = await Load.start({ store: store(), direct: store() });
        for (let round = 0; round < scaled(5, 1); round++) {
          for (const shutdown of ["fast", "immediate"] as const) {
            await server.stop(shutdown);
            await pause(DOWN_MS);
            await server.start();
            await load.recovered(`${shutdown} shutdown`, machineMs());
          }
        }
        await load.finish();
      });

      test("connections ended by an operator, at random and every second, cost nobody anything", async () => {
        const { server, store } = createPostgresBench(serverOf());
        const load = await Load.start({ store: store(), direct: store() });
        const operator = await server.connect();
        let ended = 0;
        for (let second = 0; second < scaled(30, 4); second++) {
          ended += (await operator.query(END_SOME)).rowCount!;
          await pause(1_000);
        }
        await operator.end();
        expect(ended).toBeGreaterThan(scaled(30, 4));
        await load.recovered(`${ended} connections ended`, machineMs());
        await load.finish();
      });

      test("with a single connection sixteen handlers, their renewals and claims take turns", async () => {
        const { server, store } = createPostgresBench(serverOf());
        const single = store({ maxConnections: 1 });
        const load = await Load.start({
          store: single,
          direct: store(),
          workers: 1,
          maxConcurrentTasks: 16,
          leaseTtlMs: 1_000,
        });
        const fromMs = machineMs();
        await pause(scaled(10_000, 2_000));
        tell(`one connection: ${load.rateSince(fromMs).toFixed(0)}/s`);
        // Nothing stands behind it while it is away.
        await server.query(END_ALL);
        await load.recovered("the single connection ended", machineMs());
        await load.finish();
      });

      test("while others hold every connection there is, calls wait or say so, and go on afterwards", async () => {
        const { server, store } = createPostgresBench(serverOf());
        const load = await Load.start({ store: store(), direct: store() });

        const outsiders = await takeAllConnections(server);
        await pause(scaled(10_000, 3_000));
        const [operator] = outsiders;
        const { rowCount: ours } = await operator!.query(OURS);
        await Promise.all(outsiders.map((outsider) => outsider.end()));

        // Otherwise there was no fault.
        expect(ours).toBe(0);
        await load.recovered(
          `${outsiders.length} connections held by others`,
          machineMs(),
        );
        await load.finish();
      });
    },
  );
}

/** Ours are ended again and again, until others were quicker to take each that became free. */
async function takeAllConnections(
  server: PostgresServer,
): Promise<readonly pg.Client[]> {
  const operator = await server.connect();
  const taken = [operator];
  while (taken.length < CONNECTIONS_MAX) {
    await operator.query(END_ALL);
    const attempts = await Promise.allSettled(
      Array.from({ length: CONNECTIONS_MAX - taken.length }, () =>
        server.connect(),
      ),
    );
    for (const attempt of attempts)
      if (attempt.status === "fulfilled") taken.push(attempt.value);
  }
  return taken;
}

const OURS = `
  SELECT pid
  FROM pg_stat_activity
  WHERE application_name LIKE 'flowfabric%'`;

const END_ALL = `
  SELECT pg_terminate_backend(pid)
  FROM pg_stat_activity
  WHERE application_name LIKE 'flowfabric%'`;

/** One that works and one that listens. */
const END_SOME = `
  SELECT pg_terminate_backend(pid)
  FROM (
    SELECT DISTINCT ON (application_name) pid
    FROM pg_stat_activity
    WHERE application_name LIKE 'flowfabric%'
    ORDER BY application_name, random()
  ) AS chosen`;
