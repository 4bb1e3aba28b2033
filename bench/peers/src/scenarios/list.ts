/** All scenarios, and the two runs that are made of them. */
import { drainBehind } from "./backlog.js";
import { drain, drainByFour, lanes } from "./drain.js";
import { mixed } from "./mixed.js";
import { pickup } from "./pickup.js";
import { resume } from "./resume.js";
import type { Scale, Scenario } from "./scenario.js";
import { submit } from "./submit.js";

export const SCENARIOS: readonly Scenario[] = [
  submit,
  drain,
  drainByFour,
  pickup,
  mixed,
  drainBehind,
  resume,
  lanes,
];

export interface Plan {
  readonly scenarios: readonly Scenario[];
  readonly scale: Scale;
}

export const QUICK: Plan = {
  scenarios: [submit, drain, pickup, resume],
  scale: {
    rounds: 3,
    jobs: 10_000,
    maxMs: 1_500,
    pickups: 30,
    resumes: 30,
    mixedMs: 5_000,
    finishedBehind: 10_000,
    waitingBehind: 1_000,
    fillMs: 20_000,
  },
};

export const FULL: Plan = {
  scenarios: SCENARIOS,
  scale: {
    rounds: 5,
    jobs: 20_000,
    maxMs: 5_000,
    pickups: 100,
    resumes: 100,
    mixedMs: 12_000,
    finishedBehind: 1_000_000,
    waitingBehind: 100_000,
    fillMs: 600_000,
  },
};
