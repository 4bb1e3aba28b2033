/** FlowFabric as its README shows it, at its defaults: validated input, fenced writes, history and events kept. */
import type { EngineBackend } from "@flowfabric/core";
import { postgresBackend } from "@flowfabric/postgres";
import { Client, defineExecution, when, Worker } from "@flowfabric/sdk";
import { sqliteBackend } from "@flowfabric/sqlite";
import { valkeyBackend } from "@flowfabric/valkey";
import { z } from "zod";

import type { Place, StartedWorker, System, WaitingSystem } from "./system.js";

const JobExecution = defineExecution({
  kind: "job",
  input: z.object({ n: z.number(), text: z.string() }),
});
const WaitingExecution = defineExecution({
  kind: "waiting",
  input: z.object({ n: z.number() }),
});

export interface Variant {
  readonly durability?: "full" | "normal";
  readonly prefetch?: number;
}

export function flowfabric({
  durability = "full",
  prefetch = 0,
}: Variant = {}): System {
  const open = (place: Place) => openBackend(place, durability);
  return {
    async prepare(place) {
      await using _prepared = await open(place);
    },
    async openProducer(place) {
      const backend = await open(place);
      const client = new Client({ backend });
      return {
        submit: (input, laneId) =>
          client.submit(JobExecution, { input, laneId }),
        submitMany: (jobs, laneId) =>
          client.submitMany({
            items: jobs.map((input) => ({
              definition: JobExecution,
              input,
              laneId,
            })),
          }),
        close: () => backend.close(),
      };
    },
    async startWorker(place, { concurrency, handle }) {
      const backend = await open(place);
      const worker = new Worker({
        backend,
        lanes: place.lanes,
        maxConcurrentTasks: concurrency,
        prefetch,
      });
      worker.handle(JobExecution, async (job) => handle(job));
      return run(worker, backend);
    },
    async unfinished(place) {
      await using backend = await open(place);
      const client = new Client({ backend });
      let count = 0;
      for await (const _id of client.listAll({
        publicStates: ["waiting", "delayed", "active", "suspended"],
      }))
        count += 1;
      return count;
    },
    waiting: waitingOn(open),
  };
}

function waitingOn(
  open: (place: Place) => Promise<EngineBackend>,
): WaitingSystem {
  return {
    async startWorker(place, waits) {
      const backend = await open(place);
      const worker = new Worker({ backend, lanes: place.lanes });
      worker.handle(WaitingExecution, async (_input, task) => {
        if (task.handleKind === "resumed") return waits.resumed();
        const suspended = await task.suspend({
          resumeCondition: when.signal("go"),
        });
        waits.suspended(suspended.details.signalToken.reveal());
        return suspended;
      });
      return run(worker, backend);
    },
    async openProducer(place) {
      const backend = await open(place);
      const client = new Client({ backend });
      const [laneId] = place.lanes;
      return {
        submit: (n) =>
          client.submit(WaitingExecution, { input: { n }, laneId }),
        signal: (token) => client.signal(token, { name: "go" }),
        close: () => backend.close(),
      };
    },
  };
}

function run(worker: Worker, backend: EngineBackend): StartedWorker {
  const running = worker.run({ stopOn: [] });
  return {
    async stop() {
      await worker.stop();
      await running;
      await backend.close();
    },
  };
}

function openBackend(
  { url }: Place,
  durability: "full" | "normal",
): Promise<EngineBackend> {
  if (url.startsWith("postgres:"))
    return postgresBackend({ connectionString: url });
  if (url.startsWith("valkey:")) return valkeyBackend({ url });
  return sqliteBackend({ path: `${url}/jobs.db`, durability });
}
