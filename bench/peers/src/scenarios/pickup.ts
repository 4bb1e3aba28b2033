/** How long does a job wait for a worker in another process that has nothing to do? From the call that submits to the handler. */
import { untilIdle } from "@flowfabric/bench/other-process";

import { CONCURRENCY, costOf, inPlace, type Scenario } from "./scenario.js";

const WARM_UP = 5;

export const pickup: Scenario = {
  name: "pickup",
  figures: [{ name: "pickup", title: "5 · idle pickup", by: "latency" }],
  run: (run) =>
    inPlace(run, ["default"], async (open) => {
      const { pickups, maxMs } = run.scale;
      const producer = open();
      const worker = run.system.oneProcess === true ? producer : open();
      await producer.call("openProducer");
      await worker.call("startWorker", {
        concurrency: CONCURRENCY,
        tellEach: true,
      });
      const latenciesMs: number[] = [];
      const once = async (n: number) => {
        await untilIdle();
        let atMs = 0;
        const handled = worker.news((news) => {
          if (news.kind !== "handled" || news.n !== n) return false;
          atMs = news.atMs;
          return true;
        });
        const [startMs] = await Promise.all([
          producer.call("submitOne", n),
          handled,
        ]);
        return atMs - startMs;
      };
      for (let n = 0; n < WARM_UP; n++) await once(n);
      const endMs = performance.now() + maxMs;
      const { per } = await costOf(
        run,
        [...new Set([producer, worker])],
        async () => {
          for (let n = 0; n < pickups && performance.now() < endMs; n++)
            latenciesMs.push(await once(WARM_UP + n));
        },
      );
      return { pickup: { latenciesMs, ...per(latenciesMs.length) } };
    }),
};
