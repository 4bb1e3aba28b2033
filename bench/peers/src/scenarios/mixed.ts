/**
 * A store that is half as busy as it can be: how long does a job take from when it was due to be submitted to its handler?
 * Submissions go by the clock, so that a stall is felt by all that fall into it.
 */
import { WARM_UP_SHARE } from "../participant.js";
import {
  CONCURRENCY,
  costOf,
  inPlace,
  insist,
  untilHandled,
  type Run,
  type Scenario,
} from "./scenario.js";

const SHARE_OF_PEAK = 0.5;

export const mixed: Scenario = {
  name: "mixed",
  figures: [
    {
      name: "mixed",
      title: "6 · end to end at half the peak",
      by: "latency",
    },
  ],
  needs: ["submit", "drain"],
  async run(run) {
    const perSecond = SHARE_OF_PEAK * peakOf(run);
    const { maxMs, mixedMs } = run.scale;
    return await inPlace(run, ["default"], async (open) => {
      const producer = open();
      const worker = run.system.oneProcess === true ? producer : open();
      await producer.call("openProducer");
      await worker.call("startWorker", {
        concurrency: CONCURRENCY,
        tellEach: false,
      });
      const { answer, per } = await costOf(
        run,
        [...new Set([producer, worker])],
        async () => {
          const count = Math.floor((perSecond * mixedMs) / 1_000);
          const enough = untilHandled([worker], count, mixedMs + maxMs);
          const { atMs: dueAtMs } = await producer.call("submitAtRate", {
            perSecond,
            ms: mixedMs,
          });
          await enough;
          return { dueAtMs, handled: await worker.call("stopWorker") };
        },
      );
      const { dueAtMs, handled } = answer;
      const handledAtMs = new Map(
        handled.n.map((n, nth) => [n, handled.atMs[nth]!]),
      );
      const first = Math.floor(dueAtMs.length * WARM_UP_SHARE);
      const counted = dueAtMs.slice(first);
      insist(
        counted.every((_, nth) => handledAtMs.has(first + nth)),
        "not all that was submitted was handled",
      );
      return {
        mixed: {
          perSecond,
          latenciesMs: counted.map(
            (dueMs, nth) => handledAtMs.get(first + nth)! - dueMs,
          ),
          ...per(dueAtMs.length),
        },
      };
    });
  },
};

/** Where each job is submitted and worked off by the same machine, as many a second. */
function peakOf({ perSecondOf }: Run): number {
  const submitting = perSecondOf("submit") ?? 0;
  const working = perSecondOf("drain") ?? 0;
  insist(submitting > 0 && working > 0, "the peak is not known");
  return 1 / (1 / submitting + 1 / working);
}
