/** Reading feeds to an end that they do not have by themselves. */
import {
  EARLIEST,
  type CompletionEvent,
  type EngineBackend,
  type LeaseHistoryEvent,
  type SubscribeInput,
} from "@flowfabric/core";

import { within } from "./assertions.js";

/** An event is there within 100 ms; ten times that and more is waited for it. */
const EVENT_WITHIN_MS = 5_000;

/** The next `count` events. */
export async function take<T>(
  feed: AsyncIterable<T>,
  count: number,
): Promise<T[]> {
  const events: T[] = [];
  if (count === 0) return events;
  const reading = (async () => {
    for await (const event of feed) {
      events.push(event);
      if (events.length === count) break;
    }
  })();
  await within(
    EVENT_WITHIN_MS,
    `${count} events, of which ${events.length} came`,
    reading,
  );
  return events;
}

/** How long an event may be missing that has to come. */
const MISSING_MS_MAX = 3_000;

/** All that comes until nothing has come for a while; what is known to be missing is waited for longer. */
export async function drainFeed<T>(
  subscribe: (signal: AbortSignal) => Promise<AsyncIterable<T>>,
  quietMs = 200,
  isEnough: (events: readonly T[]) => boolean = () => true,
  missingMsMax = MISSING_MS_MAX,
): Promise<T[]> {
  const giveUp = new AbortController();
  const events: T[] = [];
  const watch = () =>
    setTimeout(() => giveUp.abort(), isEnough(events) ? quietMs : missingMsMax);
  let quiet = watch();
  for await (const event of await subscribe(giveUp.signal)) {
    events.push(event);
    clearTimeout(quiet);
    quiet = watch();
  }
  clearTimeout(quiet);
  return events;
}

/** All completions so far, unless `input` begins later. */
export function drainCompletions(
  backend: EngineBackend,
  input: SubscribeInput = {},
): Promise<CompletionEvent[]> {
  return drainFeed((signal) =>
    backend.subscribeCompletion({ cursor: EARLIEST, ...input, signal }),
  );
}

export function drainLeases(
  backend: EngineBackend,
): Promise<LeaseHistoryEvent[]> {
  return drainFeed((signal) =>
    backend.subscribeLeaseHistory({ cursor: EARLIEST, signal }),
  );
}
