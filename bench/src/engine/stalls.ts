/** How long the event loop was held up: nothing else in the process could run then. */
import { monitorEventLoopDelay } from "node:perf_hooks";

const TICK_MS = 1;

export async function whileWatchingStalls<Answer>(
  work: () => Promise<Answer>,
): Promise<{ answer: Answer; stallMs: number }> {
  const delays = monitorEventLoopDelay({ resolution: TICK_MS });
  delays.enable();
  const answer = await work();
  delays.disable();
  // What it records includes the tick itself.
  return { answer, stallMs: Math.max(0, delays.max / 1e6 - TICK_MS) };
}
