/** A handler waits for a signal; how long until it goes on? From the call that signals to the first line behind the wait. */
import { untilIdle } from "@flowfabric/bench/other-process";

import type { Participant, ParticipantNews } from "../participant.js";
import { costOf, inPlace, type Scenario } from "./scenario.js";

const WARM_UP = 5;

export const resume: Scenario = {
  name: "resume",
  figures: [
    { name: "resume", title: "8 · signal to resumed handler", by: "latency" },
  ],
  run: (run) =>
    inPlace(run, ["default"], async (open) => {
      const producer = open();
      if (!(await producer.call("canWait"))) return {};
      const worker = run.system.oneProcess === true ? producer : open();
      await producer.call("openWaitingProducer");
      await worker.call("startWaitingWorker");

      const { resumes, maxMs } = run.scale;
      const latenciesMs: number[] = [];
      const once = async (n: number) => {
        const [{ token }] = await Promise.all([
          next(worker, "suspended"),
          producer.call("submitWaiting", n),
        ]);
        await untilIdle();
        const [{ atMs }, startMs] = await Promise.all([
          next(worker, "resumed"),
          producer.call("signal", token),
        ]);
        return atMs - startMs;
      };
      for (let n = 0; n < WARM_UP; n++) await once(n);
      const endMs = performance.now() + maxMs;
      const { per } = await costOf(
        run,
        [...new Set([producer, worker])],
        async () => {
          for (let n = 0; n < resumes && performance.now() < endMs; n++)
            latenciesMs.push(await once(WARM_UP + n));
        },
      );
      return { resume: { latenciesMs, ...per(latenciesMs.length) } };
    }),
};

async function next<Kind extends ParticipantNews["kind"]>(
  worker: Participant,
  kind: Kind,
): Promise<Extract<ParticipantNews, { kind: Kind }>> {
  let found: ParticipantNews | undefined;
  await worker.news((news) => {
    if (news.kind !== kind) return false;
    found ??= news;
    return true;
  });
  return found as Extract<ParticipantNews, { kind: Kind }>;
}
