/** BullMQ on Valkey, or on Postgres by its second backend. Finished jobs stay, as by its defaults. */
import {
  createPostgresBackend,
  Queue,
  setDefaultBackendFactory,
  Worker,
  type ConnectionOptions,
} from "bullmq";

import type { Job, Place, System } from "./system.js";

/** @param migrate where the store may not have its tables yet */
type ConnectionTo = (place: Place, migrate: boolean) => ConnectionOptions;

export function bullmqOnValkey(): System {
  return bullmq(({ url }) => {
    const { hostname, port } = new URL(url);
    return {
      host: hostname,
      port: Number(port),
      maxRetriesPerRequest: null,
    };
  });
}

export function bullmqOnPostgres(): System {
  setDefaultBackendFactory(createPostgresBackend);
  // Types know of Redis only where the factory is the default one.
  return bullmq(({ url, lanes }, migrate): object => ({
    connectionString: url,
    migrate,
    // Each queue and each worker has a pool and a listener: with a hundred lanes, more than a server has places.
    max: Math.max(1, Math.floor(16 / lanes.length)),
  }));
}

function bullmq(connectionTo: ConnectionTo): System {
  const queueOf = (place: Place, lane: string, migrate = false) =>
    new Queue<Job>(lane, { connection: connectionTo(place, migrate) });
  return {
    async prepare(place) {
      for (const lane of place.lanes) {
        const queue = queueOf(place, lane, true);
        await queue.waitUntilReady();
        await queue.close();
      }
    },
    async openProducer(place) {
      const queues = new Map(
        place.lanes.map((lane) => [lane, queueOf(place, lane)]),
      );
      await Promise.all(
        [...queues.values()].map((queue) => queue.waitUntilReady()),
      );
      return {
        submit: (job, lane) => queues.get(lane)!.add("job", job),
        submitMany: (jobs, lane) =>
          queues
            .get(lane)!
            .addBulk(jobs.map((data) => ({ name: "job", data }))),
        close: async () =>
          void (await Promise.all(
            [...queues.values()].map((queue) => queue.close()),
          )),
      };
    },
    async startWorker(place, { concurrency, handle }) {
      // A worker serves one queue; of several each gets its share of the handlers, and at least one.
      const share = Math.max(1, Math.floor(concurrency / place.lanes.length));
      const workers = place.lanes.map(
        (lane) =>
          new Worker<Job>(lane, async ({ data }) => handle(data), {
            connection: connectionTo(place, false),
            concurrency: share,
          }),
      );
      for (const worker of workers) worker.on("error", console.error);
      await Promise.all(workers.map((worker) => worker.waitUntilReady()));
      return {
        stop: async () =>
          void (await Promise.all(workers.map((worker) => worker.close()))),
      };
    },
    async unfinished(place) {
      let count = 0;
      for (const lane of place.lanes) {
        const queue = queueOf(place, lane);
        const counts = await queue.getJobCounts(
          "wait",
          "active",
          "delayed",
          "failed",
        );
        for (const part of Object.values(counts)) count += part;
        await queue.close();
      }
      return count;
    },
  };
}
