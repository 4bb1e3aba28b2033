/** What one step of a hammer needs besides its kind, and on whom it may be done. */
import type { ClaimedExecution, ExecutionId } from "@flowfabric/core";
import fc from "fast-check";

export const LANES = ["red", "green"];

/** All of it drawn, so that a seed names the plan of a process. */
export const Step = fc.record({
  /** Of the known or held executions. */
  which: fc.nat(),
  lane: fc.constantFrom(...LANES),
  count: fc.integer({ min: 1, max: 8 }),
  ms: fc.constantFrom(0, 1, 5, 20, 100, 1_000),
  flag: fc.boolean(),
});
export type Step = typeof Step extends fc.Arbitrary<infer S> ? S : never;

export interface Whose {
  /** What is ready on the lane of the step, under a lease that lasts for a few calls. */
  claim(step: Step): Promise<readonly ClaimedExecution[]>;
  /** On a lease that may be long lost. */
  withHeld(
    step: Step,
    call: (claimed: ClaimedExecution) => Promise<unknown>,
  ): Promise<void>;
  withKnown(
    step: Step,
    call: (id: { executionId: ExecutionId }) => Promise<unknown>,
  ): Promise<void>;
}
