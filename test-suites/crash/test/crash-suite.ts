/** Everything that a backend must live through. */
import { drainingTests } from "./draining.js";
import { fencingTests } from "./fencing.js";
import { hammeringTests } from "./hammering.js";
import type { CrashHarness } from "./harness.js";
import { interruptionTests } from "./interruption.js";
import { latencyTests } from "./latency.js";
import { recoveryTests } from "./recovery.js";
import { streamingTests } from "./streaming.js";
import { waitingTests } from "./waiting.js";

export function crashSuite(harness: CrashHarness): void {
  recoveryTests(harness);
  fencingTests(harness);
  drainingTests(harness);
  interruptionTests(harness);
  streamingTests(harness);
  waitingTests(harness);
  latencyTests(harness);
  hammeringTests(harness);
}
