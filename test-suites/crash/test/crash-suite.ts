/** Everything that a backend must live through. */
import type { CrashHarness } from "./harness.js";
import { recoveryTests } from "./recovery.js";

export function crashSuite(harness: CrashHarness): void {
  recoveryTests(harness);
}
