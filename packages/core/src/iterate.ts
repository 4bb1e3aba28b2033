/** Async iterables whose `return()` ends a wait that is going on, not just the next one. */

/**
 * @param run the feed; must end soon after its signal aborts
 * @param outer ends every iteration too
 */
export function closableIterable<Item>(
  run: (signal: AbortSignal) => AsyncGenerator<Item, void>,
  outer?: AbortSignal,
): AsyncIterable<Item> {
  return {
    [Symbol.asyncIterator]() {
      const closed = new AbortController();
      const signal =
        outer === undefined
          ? closed.signal
          : AbortSignal.any([outer, closed.signal]);
      const generator = run(signal);
      return {
        next: () => generator.next(),
        // A generator that waits takes a return() only after its wait: end that first.
        return: async () => {
          closed.abort();
          return await generator.return();
        },
      };
    },
  };
}
