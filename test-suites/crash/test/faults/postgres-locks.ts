/** Locks of other programs: rows held beyond the end of a lease, and a snapshot held for as long as work goes on. */
import {
  decodeHandle,
  type ClaimedExecution,
  type EngineBackend,
} from "@flowfabric/core";
import { describe, expect, onTestFinished, test } from "vitest";

import { openStore } from "../../src/open.js";
import { answerOf } from "../../src/program.js";
import { WRITES } from "../../src/writes.js";
import {
  everythingAbout,
  expectNothingButLapses,
  recordsAbout,
} from "../fencing.js";
import { until } from "../fleet.js";
import { scaled, tell, TIMEOUT_MS } from "../harness.js";
import { expectEndedOnce } from "./load.js";
import { createPostgresBench, type ServerOf } from "./postgres-bench.js";
import type { PostgresServer } from "./postgres-server.js";

/** All writes wait before it is over. */
const LEASE_TTL_MS = 6_000;
/** Of the rate in the same store without a snapshot. */
const RATE_SHARE_MIN = 0.7;
const MEASURED = 1_000;
const ROUNDS = 3;
const CLAIMERS = 4;

export function postgresLockTests(serverOf: ServerOf): void {
  describe(
    "postgres: locks and snapshots of others",
    { timeout: TIMEOUT_MS },
    () => {
      test("a write that waited for its row until the lease was over is refused, and the work is taken over once", async () => {
        const { server, schema, store } = createPostgresBench(serverOf());
        const backend = await openStore(
          // Each write waits on a connection of its own.
          store({ maxConnections: WRITES.length + 2 }),
        );
        onTestFinished(() => backend.close());
        await backend.submitMany({
          items: WRITES.map(() => ({ executionKind: "work" })),
        });
        const { claimed } = await claim(backend, "holder", LEASE_TTL_MS);
        expect(claimed).toHaveLength(WRITES.length);
        const executionIds = claimed.map(({ executionId }) => executionId);

        const other = await server.connect();
        onTestFinished(() => other.end());
        await other.query("BEGIN");
        await other.query(`SELECT 1 FROM "${schema}".executions FOR UPDATE`);
        const answers: Promise<string>[] = [];
        // One after the other: those of one turn would share a statement.
        for (const [index, { operation, write }] of WRITES.entries()) {
          const { handle } = claimed[index]!;
          const held = decodeHandle(handle, backend.backendLabel());
          answers.push(answerOf(write(backend, handle, held)));
          await until(`${operation} to wait for its row`, async () => {
            // Not by the one in a transaction, which would see the same again and again.
            const waiting = await server.query(WAITING_FOR_LOCKS);
            return waiting.length === answers.length;
          });
        }
        await until("the end of all leases", async () => {
          const { entries } = await backend.listExpiredLeases({});
          return entries.length === WRITES.length;
        });
        // A stream is read to its end behind its writer's lock.
        const before = await recordsAbout(backend, executionIds);
        await other.query("COMMIT");
        await other.end();

        expect(await Promise.all(answers)).toEqual(
          WRITES.map(({ isOutput }) =>
            isOutput ? "stale_owner_cannot_append" : "lease_expired",
          ),
        );
        const after = await everythingAbout(backend, executionIds);
        expectNothingButLapses(
          before,
          after.map(({ output: _output, ...records }) => records),
        );
        expect(
          after.flatMap(({ output }) => output.flatMap(({ frames }) => frames)),
        ).toEqual([]);
        // A row that a rival or its maintenance holds is passed over, and is there at the next look.
        const taken: ClaimedExecution[] = [];
        const race = async () => {
          const rivals = await Promise.all(
            ["a", "b", "c"].map((name) => claim(backend, name, 60_000)),
          );
          taken.push(...rivals.flatMap((rival) => rival.claimed));
        };
        await until("every take-over", async () => {
          await race();
          return taken.length >= WRITES.length;
        });
        await race();
        expect(taken.map(({ kind }) => kind)).toEqual(
          WRITES.map(() => "reclaimed"),
        );
        expect(taken.map(({ executionId }) => executionId).sort()).toEqual(
          [...executionIds].sort(),
        );
        await backend.completeMany({
          items: taken.map(({ handle }) => ({ handle })),
        });
        await expectEndedOnce(backend, executionIds);
        tell(`${WRITES.length} writes waited past their leases, all refused`);
      });

      test("a snapshot held all the while leaves claims most of their rate", async () => {
        const finished = scaled(20_000, 10_000);
        const server = serverOf();
        const without: number[] = [];
        const held: number[] = [];
        // What else runs can only slow one of them down: the best of each is compared.
        for (let round = 0; round < ROUNDS; round++) {
          without.push(await rateBehind(server, finished));
          const holder = await server.connect();
          onTestFinished(() => holder.end());
          await holder.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
          await holder.query("SELECT txid_current()");
          held.push(await rateBehind(server, finished));
          await holder.query("COMMIT");
        }

        const share = Math.max(...held) / Math.max(...without);
        tell(
          `claims and completions one by one, ${CLAIMERS} at once, behind ${finished} finished: ${inRates(held)} with a snapshot held, ${inRates(without)} without, ${(100 * share).toFixed(0)} %`,
        );
        expect(share).toBeGreaterThan(RATE_SHARE_MIN);
      });
    },
  );
}

/**
 * Of claims and completions one by one, in a store of its own, behind so many finished since it was made: nobody may
 * remove their entries while a snapshot could still see them.
 */
async function rateBehind(
  server: PostgresServer,
  finished: number,
): Promise<number> {
  const url = new URL(createPostgresBench(server).store());
  // Waiting for the disk would hide what claims cost.
  url.searchParams.set("options", "-c synchronous_commit=off");
  const backend = await openStore(url.href);
  onTestFinished(() => backend.close());
  for (let left = finished + MEASURED; left > 0; left -= MEASURED)
    await backend.submitMany({
      items: Array.from({ length: MEASURED }, () => ({
        executionKind: "work",
      })),
    });
  await drain(backend, finished, 100);
  return await drain(backend, MEASURED, 1);
}

const inRates = (rates: readonly number[]) =>
  rates.map((rate) => `${rate.toFixed(0)}/s`).join(", ");

const WAITING_FOR_LOCKS = `
  SELECT pid
  FROM pg_stat_activity
  WHERE application_name = 'flowfabric' AND wait_event_type = 'Lock'`;

function claim(backend: EngineBackend, name: string, leaseTtlMs: number) {
  return backend.claimMany({
    workerId: name,
    workerInstanceId: name,
    lanes: ["default"],
    max: WRITES.length,
    leaseTtlMs,
  });
}

/**
 * Claims and completes so many.
 * @param max claimed and completed at once
 * @returns how many per second
 */
async function drain(
  backend: EngineBackend,
  count: number,
  max: number,
): Promise<number> {
  let left = count;
  const claimOn = async (name: string) => {
    while (left > 0) {
      const wanted = Math.min(max, left);
      left -= wanted;
      const { claimed } = await backend.claimMany({
        workerId: name,
        workerInstanceId: name,
        lanes: ["default"],
        max: wanted,
        leaseTtlMs: 60_000,
      });
      left += wanted - claimed.length;
      if (claimed.length > 0)
        await backend.completeMany({
          items: claimed.map(({ handle }) => ({ handle })),
        });
    }
  };
  const startedAtMs = performance.now();
  await Promise.all(
    Array.from({ length: CLAIMERS }, (_, index) => claimOn(`claimer-${index}`)),
  );
  return count / ((performance.now() - startedAtMs) / 1_000);
}
