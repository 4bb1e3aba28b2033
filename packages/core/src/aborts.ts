/**
 * Hearing of aborts. A program may give one signal to hundreds of calls, and Node takes the eleventh listener for a leak:
 * all that wait under a signal share one, which goes with the last of them.
 */

/** What the one listener of a signal calls. */
const reactions = new WeakMap<AbortSignal, Shared>();

interface Shared {
  readonly all: Set<() => void>;
  readonly listener: () => void;
}

/**
 * Calls `react` once, when the signal aborts; never for one that has aborted before.
 * @returns ends that; to be called in any case
 */
export function onAbort(
  signal: AbortSignal | undefined,
  react: () => void,
): () => void {
  if (signal === undefined) return () => {};
  const { all } = reactions.get(signal) ?? listenTo(signal);
  // Of its own for each call: the same function may wait twice.
  const own = () => react();
  all.add(own);
  return () => leave(signal, own);
}

function listenTo(signal: AbortSignal): Shared {
  const all = new Set<() => void>();
  const listener = () => {
    for (const react of all) react();
  };
  signal.addEventListener("abort", listener, { once: true });
  const shared = { all, listener };
  reactions.set(signal, shared);
  return shared;
}

function leave(signal: AbortSignal, own: () => void): void {
  const shared = reactions.get(signal);
  if (!shared?.all.delete(own) || shared.all.size > 0) return;
  signal.removeEventListener("abort", shared.listener);
  reactions.delete(signal);
}
