/** One job a call, 16 calls in flight, 4 KiB each. */
import { PAYLOAD_BYTES } from "../participant.js";
import {
  CONCURRENCY,
  costOf,
  inPlace,
  insist,
  type Scenario,
} from "./scenario.js";

export const submit: Scenario = {
  name: "submit",
  figures: [
    { name: "submit", title: "1 · submit, 16 in flight", by: "perSecond" },
  ],
  run: (run) =>
    inPlace(run, ["default"], async (open, url) => {
      const { jobs, maxMs } = run.scale;
      const producer = open();
      await producer.call("openProducer");
      const bytes = await run.store.storedBytes(url);
      const { answer, per } = await costOf(run, [producer], () =>
        producer.call("submit", {
          count: jobs,
          inFlight: CONCURRENCY,
          maxMs,
          firstN: 0,
          payloadBytes: PAYLOAD_BYTES,
        }),
      );
      const { count, perSecond, latenciesMs } = answer;
      await producer.call("closeProducer");
      insist(
        (await producer.call("unfinished")) === count,
        "not all that was submitted is there",
      );
      return {
        submit: {
          perSecond,
          latenciesMs,
          ...per(count),
          bytes: ((await run.store.storedBytes(url)) - bytes) / count,
        },
      };
    }),
};
