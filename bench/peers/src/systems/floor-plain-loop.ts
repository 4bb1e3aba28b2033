/**
 * The floor under SQLite: the loop of `bench/src/plain-loop`, one job after the other, two transactions per job. One process
 * owns the file and a call answers at once, so neither callers in flight nor handlers at once mean anything to it.
 */
import { PlainLoop } from "@flowfabric/bench/plain-loop";

import { pause, runLoops } from "./loops.js";
import type { Job, Place, System } from "./system.js";

const LEASE_MS = 30_000;
const LOOK_MS = 5;
const RESULT = Buffer.from("null");

export function plainLoopFloor(durability: "full" | "normal"): System {
  const open = ({ url }: Place) =>
    new PlainLoop(`${url}/jobs.db`, durability, String(process.pid));
  return {
    prepare: async (place) => open(place).close(),
    async openProducer(place) {
      const loop = open(place);
      return {
        submit: async (job) => loop.insert(Buffer.from(JSON.stringify(job))),
        close: async () => loop.close(),
      };
    },
    async startWorker(place, { handle }) {
      const loop = open(place);
      let done = 0;
      const running = runLoops(1, async () => {
        const job = loop.claim(LEASE_MS);
        if (job === undefined) return pause(LOOK_MS);
        handle(JSON.parse(Buffer.from(job.payload).toString()) as Job);
        if (!loop.complete(job, RESULT))
          throw new Error("a completion was refused");
        // Now and then, for else nobody could stop it.
        if (++done % 256 === 0) await new Promise(setImmediate);
      });
      return {
        async stop() {
          await running.stop();
          loop.close();
        },
      };
    },
    async unfinished(place) {
      const loop = open(place);
      const count = loop.unfinished();
      loop.close();
      return count;
    },
  };
}
