/** pg-boss. Finished jobs stay for seven days, as by its defaults. */
import { PgBoss } from "pg-boss";

import type { Job, Place, System } from "./system.js";

export function pgBoss(): System {
  return {
    async prepare(place) {
      const boss = await start(place, { migrate: true, createSchema: true });
      for (const lane of place.lanes)
        await boss.createQueue(lane, { notify: true });
      await boss.stop({ graceful: false });
    },
    async openProducer(place) {
      const boss = await start(place, { max: 16 });
      return {
        submit: (job, lane) => boss.send(lane, job),
        submitMany: (jobs, lane) =>
          boss.insert(
            lane,
            jobs.map((data) => ({ data })),
          ),
        close: () => boss.stop({ graceful: false }),
      };
    },
    async startWorker(place, { concurrency, handle }) {
      const boss = await start(place, { useListenNotify: true, max: 16 });
      // A batch is handed to one call of the handler; it stands for as many handlers at once as it has jobs.
      const share = Math.max(1, Math.floor(concurrency / place.lanes.length));
      for (const lane of place.lanes)
        await boss.work<Job>(
          lane,
          { batchSize: share, burstWhenBatchFull: true },
          async (jobs) => {
            for (const { data } of jobs) handle(data);
          },
        );
      return { stop: () => boss.stop({ graceful: true, timeout: 5_000 }) };
    },
    async unfinished(place) {
      const boss = await start(place);
      const { rows } = await boss
        .getDb()
        .executeSql(
          "SELECT count(*) AS count FROM pgboss.job WHERE state < 'completed'",
        );
      await boss.stop({ graceful: false });
      return Number((rows as { count: string }[])[0]!.count);
    },
  };
}

async function start(
  { url }: Place,
  options: Partial<ConstructorParameters<typeof PgBoss>[0] & object> = {},
): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: url, ...(options as object) });
  boss.on("error", console.error);
  await boss.start();
  return boss;
}
