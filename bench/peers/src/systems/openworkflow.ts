/** OpenWorkflow on Postgres, or on SQLite by Node's own driver. Finished runs stay. */
import { OpenWorkflow, type Worker } from "openworkflow";
import { BackendPostgres } from "openworkflow/postgres";
import { BackendSqlite } from "openworkflow/sqlite";

import { pause } from "./loops.js";
import type { Job, Place, StartedWorker, System } from "./system.js";

type Backend = BackendPostgres | BackendSqlite;

export function openWorkflow(): System {
  return {
    async prepare(place) {
      const backend = await open(place);
      await backend.stop();
    },
    async openProducer(place) {
      const backend = await open(place);
      const client = new OpenWorkflow({ backend });
      return {
        submit: (job, lane) => client.runWorkflow({ name: lane }, job),
        close: () => backend.stop(),
      };
    },
    async startWorker(place, { concurrency, handle }) {
      const backend = await open(place);
      const client = new OpenWorkflow({ backend });
      for (const lane of place.lanes)
        client.implementWorkflow<Job, null>({ name: lane }, ({ input }) => {
          handle(input);
          return null;
        });
      return await run(client.newWorker({ concurrency }), backend);
    },
    async unfinished(place) {
      const backend = await open(place);
      const { pending, running } = await backend.countWorkflowRuns();
      await backend.stop();
      return pending + running;
    },
    waiting: {
      async startWorker(place, waits) {
        const backend = await open(place);
        const client = new OpenWorkflow({ backend });
        client.implementWorkflow<{ n: number }, null>(
          { name: "waiting" },
          async ({ input, step }) => {
            const signal = `go-${input.n}`;
            // The step stores the wait; the run is looked at again once it is signalled. Told just before it is stored.
            waits.suspended(signal);
            await step.waitForSignal({ signal });
            waits.resumed();
            return null;
          },
        );
        return await run(client.newWorker({ concurrency: 16 }), backend);
      },
      async openProducer(place) {
        const backend = await open(place);
        const client = new OpenWorkflow({ backend });
        return {
          submit: (n) => client.runWorkflow({ name: "waiting" }, { n }),
          async signal(token) {
            // One that nobody waits for yet is dropped; then it is sent again.
            for (;;) {
              const { workflowRunIds } = await client.sendSignal({
                signal: token,
                data: null,
              });
              if (workflowRunIds.length > 0) return;
              await pause(1);
            }
          },
          close: () => backend.stop(),
        };
      },
    },
  };
}

async function open({ url }: Place): Promise<Backend> {
  return url.startsWith("postgres:")
    ? await BackendPostgres.connect(url)
    : BackendSqlite.connect(`${url}/jobs.db`);
}

async function run(worker: Worker, backend: Backend): Promise<StartedWorker> {
  await worker.start();
  return {
    async stop() {
      await worker.stop();
      await backend.stop();
    },
  };
}
