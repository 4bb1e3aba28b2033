/** Graphile Worker. A finished job's row is deleted: nothing is left of it. */
import {
  Logger,
  makeWorkerUtils,
  run,
  type AddJobsJobSpec,
  type Task,
} from "graphile-worker";
import pg from "pg";

import type { Job, Place, System } from "./system.js";

/** As its documentation on performance suggests to begin with. */
const BATCHED = {
  worker: {
    localQueue: { size: 64 },
    completeJobBatchDelay: 0,
  },
} satisfies GraphileConfig.Preset;

const logger = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});

export function graphileWorker({ batched = false } = {}): System {
  return {
    async prepare({ url }) {
      const utils = await makeWorkerUtils({ connectionString: url, logger });
      await utils.migrate();
      await utils.release();
    },
    async openProducer({ url }) {
      const utils = await makeWorkerUtils({
        connectionString: url,
        maxPoolSize: 16,
        logger,
      });
      return {
        submit: (job, lane) => utils.addJob(lane, job),
        submitMany: (jobs, lane) =>
          utils.addJobs(
            jobs.map((payload): AddJobsJobSpec => ({
              identifier: lane,
              payload,
            })),
          ),
        close: () => utils.release() as Promise<void>,
      };
    },
    async startWorker(place, { concurrency, handle }) {
      const task: Task = async (payload) => handle(payload as Job);
      const runner = await run({
        connectionString: place.url,
        concurrency,
        // Each handler may hold a connection of its own.
        maxPoolSize: concurrency + 2,
        noHandleSignals: true,
        taskList: Object.fromEntries(place.lanes.map((lane) => [lane, task])),
        logger,
        ...(batched ? { preset: BATCHED } : {}),
      });
      return { stop: () => runner.stop() };
    },
    unfinished: (place) => countJobs(place),
  };
}

async function countJobs({ url }: Place): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<{ count: string }>(
    "SELECT count(*) FROM graphile_worker._private_jobs",
  );
  await client.end();
  return Number(rows[0]!.count);
}
