/** Handlers of the floors: so many loops, each one step after the other. */

export function runLoops(
  count: number,
  step: () => Promise<void>,
): { stop(): Promise<void> } {
  let stopped = false;
  const loops = Array.from({ length: count }, async () => {
    while (!stopped) await step();
  });
  const ended = Promise.all(loops);
  return {
    async stop() {
      stopped = true;
      await ended;
    },
  };
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
