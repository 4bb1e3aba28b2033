import {
  type Args,
  type CompletionEvent,
  type EventOperations,
  type Implementation,
  type InstanceTagEvent,
  type LeaseHistoryEvent,
  type SignalDeliveryEvent,
} from "@flowfabric/core";
import {
  COMPLETION_TYPES,
  LEASE_TYPES,
  SIGNAL_TYPES,
  TAG_TYPES,
  toCompletion,
  toInstanceTags,
  toLeaseHistory,
  toSignalDelivery,
} from "@flowfabric/core/records";

import { openFeed } from "../procedures/feeds.js";
import { readHistory } from "../procedures/history.js";
import { News } from "../procedures/news.js";
import type { Store } from "../store.js";

export function eventOperations(store: Store): Implementation<EventOperations> {
  return {
    readEvents: async (args) => ({ events: await readHistory(store, args) }),

    async tailEvents(args) {
      if ((args.blockMs ?? 0) > 0) store.wakeups.requireOpen();
      const endsAtMs = performance.now() + (args.blockMs ?? 0);
      const news = new News(store.wakeups);
      for (;;) {
        news.look();
        const events = await readHistory(store, args);
        const leftMs = endsAtMs - performance.now();
        if (
          events.length > 0 ||
          leftMs <= 0 ||
          args.signal?.aborted === true ||
          store.wakeups.closed
        )
          return { events };
        await news.wait(leftMs, args.signal);
        if (store.wakeups.closed) return { events: [] };
      }
    },

    subscribeCompletion: (
      args: Args<"subscribeCompletion">,
    ): Promise<AsyncIterable<CompletionEvent>> =>
      openFeed(store, args, COMPLETION_TYPES, toCompletion),

    subscribeLeaseHistory: (
      args: Args<"subscribeLeaseHistory">,
    ): Promise<AsyncIterable<LeaseHistoryEvent>> =>
      openFeed(store, args, LEASE_TYPES, toLeaseHistory),

    subscribeSignalDelivery: (
      args: Args<"subscribeSignalDelivery">,
    ): Promise<AsyncIterable<SignalDeliveryEvent>> =>
      openFeed(store, args, SIGNAL_TYPES, toSignalDelivery),

    subscribeInstanceTags: (
      args: Args<"subscribeInstanceTags">,
    ): Promise<AsyncIterable<InstanceTagEvent>> =>
      openFeed(store, args, TAG_TYPES, toInstanceTags),
  };
}
