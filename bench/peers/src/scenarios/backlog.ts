/** Does it get slower where much is finished and more waits than is worked off? */
import { fill, workOff } from "./drain.js";
import { inPlace, type Run, type Samples, type Scenario } from "./scenario.js";

/** What is behind is there to be in the way, not to fill memory. */
const PAYLOAD_BYTES_BEHIND = 100;

export const drainBehind: Scenario = {
  name: "drain-behind",
  figures: [
    {
      name: "drain-behind",
      title: "7 · drain with much finished and waiting behind",
      by: "perSecond",
    },
  ],
  needs: ["submit", "drain"],
  async runRounds(run) {
    const { jobs, rounds, finishedBehind, waitingBehind, fillMs } = run.scale;
    if (estimateMs(run) > fillMs) return [];
    const patient = { ...run, scale: { ...run.scale, maxMs: 2 * fillMs } };
    return await inPlace(
      patient,
      ["default"],
      async (open) => {
        const behind = { payloadBytes: PAYLOAD_BYTES_BEHIND };
        const finished = await fill(patient, open(), {
          count: finishedBehind,
          ...behind,
        });
        await workOff(patient, [open()], finished.count);
        await fill(patient, open(), { count: waitingBehind, ...behind });
        const samples: Samples[] = [];
        while (samples.length < rounds) {
          await fill(run, open(), { count: jobs });
          samples.push({
            "drain-behind": await workOff(run, [open()], jobs, {
              moreBehind: true,
            }),
          });
        }
        return samples;
      },
      6 * fillMs,
    );
  },
};

/** By what this run has found before; jobs of 100 bytes take less. */
function estimateMs({ perSecondOf, scale }: Run): number {
  const submitting = perSecondOf("bulk") ?? perSecondOf("submit") ?? 0;
  const working = perSecondOf("drain") ?? 0;
  const { finishedBehind, waitingBehind } = scale;
  return (
    ((finishedBehind + waitingBehind) / submitting + finishedBehind / working) *
    1_000
  );
}
