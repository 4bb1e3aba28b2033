/** DBOS. A workflow without steps, enqueued by a client and run by the process that registered it. Finished ones stay. */
import { DBOS, DBOSClient } from "@dbos-inc/dbos-sdk";
import pg from "pg";

import type { Job, Place, System } from "./system.js";

const APPLICATION = { applicationName: "bench" };

export function dbos(): System {
  const openClient = ({ url }: Place) =>
    DBOSClient.create({ systemDatabaseUrl: url, ...APPLICATION });
  return {
    async prepare(place) {
      await launch(place);
      await DBOS.shutdown();
    },
    async openProducer(place) {
      const client = await openClient(place);
      return {
        submit: (job, lane) =>
          client.enqueue(
            { queueName: lane, workflowName: "job", ...APPLICATION },
            job,
          ),
        close: () => client.destroy(),
      };
    },
    async startWorker(place, { concurrency, handle }) {
      DBOS.registerWorkflow(async (job: Job) => handle(job), { name: "job" });
      await launch(place, concurrency);
      return { stop };
    },
    async unfinished({ url }) {
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      const { rows } = await client.query<{ count: string }>(
        "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED')",
      );
      await client.end();
      return Number(rows[0]!.count);
    },
    waiting: {
      async startWorker(place, waits) {
        DBOS.registerWorkflow(
          async () => {
            waits.suspended(DBOS.workflowID!);
            await DBOS.recv("go");
            waits.resumed();
          },
          { name: "waiting" },
        );
        await launch(place);
        return { stop };
      },
      async openProducer(place) {
        const client = await openClient(place);
        const [queueName = ""] = place.lanes;
        return {
          submit: () =>
            client.enqueue({
              queueName,
              workflowName: "waiting",
              ...APPLICATION,
            }),
          signal: (token) => client.send(token, "go", "go"),
          close: () => client.destroy(),
        };
      },
    },
  };
}

/**
 * By default a queue is looked at once a second, and a limit of 16 handlers would be one of 16 jobs a second; without a limit
 * all jobs would be begun at once. So it looks much more often here.
 */
const POLLING_MS = 10;

async function launch(
  { url, lanes }: Place,
  workerConcurrency = 16,
): Promise<void> {
  DBOS.setConfig({ name: "bench", systemDatabaseUrl: url, logLevel: "error" });
  await DBOS.launch();
  for (const lane of lanes)
    await DBOS.registerQueue(lane, {
      workerConcurrency,
      minPollingIntervalMs: POLLING_MS,
    });
}

function stop(): Promise<void> {
  return DBOS.shutdown({ workflowCompletionTimeoutMS: 10_000 });
}
