/**
 * The floor under Postgres: what is written by hand in an afternoon. One table, SKIP LOCKED, an owner and a lease that is
 * checked when the job is done; a statement for each step of each job. No history, no retries, no wake-ups.
 */
import pg from "pg";

import { pause, runLoops } from "./loops.js";
import type { Job, Place, System } from "./system.js";

const SCHEMA = `
  CREATE TABLE jobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    payload JSONB NOT NULL,
    owner TEXT,
    lease_expires_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    finished_at TIMESTAMPTZ
  );
  CREATE INDEX jobs_waiting ON jobs (lane, id) WHERE state = 'waiting'`;

const INSERT = "INSERT INTO jobs (lane, payload) VALUES ($1, $2)";

const INSERT_MANY = `
  INSERT INTO jobs (lane, payload)
  SELECT $1, value
  FROM jsonb_array_elements($2)`;

const TAKE = `
  UPDATE jobs
  SET state = 'leased', owner = $2, lease_expires_at = now() + INTERVAL '30 seconds'
  WHERE id = (
    SELECT id
    FROM jobs
    WHERE state = 'waiting' AND lane = $1
    ORDER BY id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
  )
  RETURNING id, payload`;

const FINISH = `
  UPDATE jobs
  SET state = 'done', finished_at = now()
  WHERE id = $1 AND state = 'leased' AND owner = $2 AND lease_expires_at > now()`;

const LOOK_MS = 20;

export function skipLockedFloor(): System {
  return {
    prepare: (place) =>
      withClient(place, async (client) => void (await client.query(SCHEMA))),
    async openProducer({ url }) {
      const pool = new pg.Pool({ connectionString: url, max: 16 });
      return {
        submit: (job, lane) =>
          pool.query({ name: "insert", text: INSERT, values: [lane, job] }),
        submitMany: (jobs, lane) =>
          pool.query({
            name: "insert-many",
            text: INSERT_MANY,
            values: [lane, JSON.stringify(jobs)],
          }),
        close: () => pool.end(),
      };
    },
    async startWorker({ url, lanes }, { concurrency, handle }) {
      const pool = new pg.Pool({ connectionString: url, max: concurrency });
      const owner = String(process.pid);
      const loops = runLoops(concurrency, async () => {
        for (const lane of lanes) {
          const { rows } = await pool.query<{ id: string; payload: Job }>({
            name: "take",
            text: TAKE,
            values: [lane, owner],
          });
          const [taken] = rows;
          if (taken === undefined) continue;
          handle(taken.payload);
          await pool.query({
            name: "finish",
            text: FINISH,
            values: [taken.id, owner],
          });
          return;
        }
        await pause(LOOK_MS);
      });
      return {
        async stop() {
          await loops.stop();
          await pool.end();
        },
      };
    },
    unfinished: (place) =>
      withClient(place, async (client) => {
        const { rows } = await client.query<{ count: string }>(
          "SELECT count(*) FROM jobs WHERE state <> 'done'",
        );
        return Number(rows[0]!.count);
      }),
  };
}

async function withClient<Answer>(
  { url }: Place,
  use: (client: pg.Client) => Promise<Answer>,
): Promise<Answer> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}
