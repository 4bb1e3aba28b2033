/** Many callers at once, as a server or a worker with permits has them. */

/**
 * Calls `call` with 0 … `count` - 1, never more than `callers` at a time.
 *
 * @returns how long each took, in milliseconds, in the order of their ends
 */
export async function inFlight(
  callers: number,
  count: number,
  call: (index: number) => Promise<unknown>,
): Promise<number[]> {
  const tookMs: number[] = [];
  let next = 0;
  const caller = async () => {
    while (next < count) {
      const index = next++;
      const startMs = performance.now();
      await call(index);
      tookMs.push(performance.now() - startMs);
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  return tookMs;
}
