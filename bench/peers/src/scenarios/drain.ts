/** Work that waits is worked off by one process or four; what is put there before, by calls of many jobs, is measured as well. */
import {
  PAYLOAD_BYTES,
  WARM_UP_SHARE,
  type Participant,
} from "../participant.js";
import {
  CONCURRENCY,
  costOf,
  inPlace,
  insist,
  mergeHandled,
  PER_CALL,
  untilHandled,
  type Run,
  type Sample,
  type Scenario,
} from "./scenario.js";

export const drain: Scenario = {
  name: "drain",
  figures: [
    {
      name: "bulk",
      title: `2 · submit, ${PER_CALL} a call`,
      by: "perSecond",
    },
    {
      name: "drain",
      title: `3 · drain, 1 process, ${CONCURRENCY} handlers`,
      by: "perSecond",
    },
  ],
  run: (run) =>
    inPlace(run, ["default"], async (open, url) => {
      const bytes = await run.store.storedBytes(url);
      const { count, bulk } = await fill(run, open());
      const drained = await workOff(run, [open()], count);
      return {
        ...(bulk === undefined ? {} : { bulk }),
        drain: {
          ...drained,
          bytes: ((await run.store.storedBytes(url)) - bytes) / count,
        },
      };
    }),
};

export const drainByFour: Scenario = {
  name: "drain-by-four",
  figures: [
    {
      name: "drain-by-four",
      title: `4 · drain, 4 processes, ${CONCURRENCY} handlers each`,
      by: "perSecond",
    },
  ],
  run: (run) =>
    inPlace(run, ["default"], async (open) => {
      if (run.system.oneProcess === true) return {};
      const { count } = await fill(run, open());
      const workers = Array.from({ length: 4 }, () => open());
      return { "drain-by-four": await workOff(run, workers, count) };
    }),
};

const LANES = Array.from({ length: 100 }, (_, nth) => `lane-${nth}`);

export const lanes: Scenario = {
  name: "lanes",
  figures: [
    {
      name: "lanes",
      title: `9 · drain ${LANES.length} lanes with little work each`,
      by: "perSecond",
    },
  ],
  run: (run) =>
    inPlace(run, LANES, async (open) => {
      const { count } = await fill(run, open(), { onePerCall: true });
      return { lanes: await workOff(run, [open()], count) };
    }),
};

/** In calls of many where the system has them, else one by one for as long as it is patient. */
export async function fill(
  run: Run,
  producer: Participant,
  {
    onePerCall = false,
    count = run.scale.jobs,
    firstN = 0,
    payloadBytes = PAYLOAD_BYTES,
  } = {},
): Promise<{ count: number; bulk?: Sample }> {
  const { maxMs } = run.scale;
  await producer.call("openProducer");
  const { answer, per } = await costOf(run, [producer], async () =>
    onePerCall
      ? undefined
      : await producer.call("submitMany", {
          count,
          perCall: Math.min(PER_CALL, count),
          maxMs,
          firstN,
          payloadBytes,
        }),
  );
  const submitted =
    answer ??
    (await producer.call("submit", {
      count,
      inFlight: CONCURRENCY,
      maxMs,
      firstN,
      payloadBytes,
    }));
  await producer.call("closeProducer");
  await producer[Symbol.asyncDispose]();
  if (answer === undefined) return { count: submitted.count };
  const { perSecond, latenciesMs } = answer;
  return {
    count: answer.count,
    bulk: { perSecond, latenciesMs, ...per(answer.count) },
  };
}

/** By processes that start now, until they have done so many: all, unless there is more behind. */
export async function workOff(
  run: Run,
  workers: readonly Participant[],
  count: number,
  { moreBehind = false } = {},
): Promise<Sample> {
  // Loaded before anything counts.
  await Promise.all(workers.map((worker) => worker.call("cpuMs")));
  const { answer, per } = await costOf(run, workers, async () => {
    const enough = untilHandled(workers, count, run.scale.maxMs);
    await Promise.all(
      workers.map((worker) =>
        worker.call("startWorker", {
          concurrency: CONCURRENCY,
          tellEach: false,
        }),
      ),
    );
    await enough;
    return mergeHandled(
      await Promise.all(workers.map((worker) => worker.call("stopWorker"))),
    );
  });
  const { n, atMs } = answer;
  insist(n.length > 1, "hardly a job was handled");
  if (!moreBehind) {
    const handled = new Set(n).size;
    const left = await workers[0]!.call("unfinished");
    insist(handled + left >= count, "a job is neither done nor there");
    insist(handled < count || left === 0, "not all that was done is finished");
  }
  return { perSecond: rateOf(atMs), ...per(n.length) };
}

/** From one handler to another, behind the warm-up. */
function rateOf(atMs: readonly number[]): number {
  const sorted = Float64Array.from(atMs).sort();
  const first = Math.floor(sorted.length * WARM_UP_SHARE);
  const last = sorted.length - 1;
  return ((last - first) / (sorted[last]! - sorted[first]!)) * 1_000;
}
