/** The floor under Valkey: a list, and a counter for what is done. A job that is taken by a process that dies is lost. */
import { Redis } from "ioredis";

import { runLoops } from "./loops.js";
import type { Job, Place, System } from "./system.js";

/** How long a blocked LPOP waits before it is looked whether the worker is to stop. */
const BLOCK_S = 0.2;

export function listFloor(): System {
  return {
    prepare: async () => {},
    async openProducer(place) {
      const client = clientOf(place);
      return {
        submit: async (job, lane) => client.rpush(lane, JSON.stringify(job)),
        submitMany: async (jobs, lane) =>
          client.rpush(lane, ...jobs.map((job) => JSON.stringify(job))),
        close: async () => client.disconnect(),
      };
    },
    async startWorker(place, { concurrency, handle }) {
      const client = clientOf(place);
      const blocking = clientOf(place);
      let blocked: Promise<unknown> | undefined;
      const loops = runLoops(concurrency, async () => {
        for (const lane of place.lanes) {
          const text = await client.lpop(lane);
          if (text === null) continue;
          handle(JSON.parse(text) as Job);
          await client.incr("done");
          return;
        }
        // One of the handlers waits for all of them.
        blocked ??= blocking
          .blpop([...place.lanes], BLOCK_S)
          .then(async (found) => {
            blocked = undefined;
            if (found === null) return;
            handle(JSON.parse(found[1]) as Job);
            await client.incr("done");
          });
        await blocked;
      });
      return {
        async stop() {
          await loops.stop();
          client.disconnect();
          blocking.disconnect();
        },
      };
    },
    async unfinished(place) {
      const client = clientOf(place);
      let count = 0;
      for (const lane of place.lanes) count += await client.llen(lane);
      client.disconnect();
      return count;
    },
  };
}

function clientOf({ url }: Place): Redis {
  const { hostname, port } = new URL(url);
  return new Redis({ host: hostname, port: Number(port) });
}
