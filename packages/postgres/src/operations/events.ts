import {
  type Args,
  type CompletionEvent,
  type EventOperations,
  type ExecutionEvent,
  type Implementation,
  type InstanceTagEvent,
  type LeaseHistoryEvent,
  type SignalDeliveryEvent,
} from "@flowfabric/core";
import {
  toCompletion,
  toInstanceTags,
  toLeaseHistory,
  toSignalDelivery,
  COMPLETION_TYPES,
  LEASE_TYPES,
  SIGNAL_TYPES,
  TAG_TYPES,
} from "@flowfabric/core/sql";

import { openFeed } from "../procedures/feeds.js";
import { readHistory } from "../procedures/history.js";
import type { Store } from "../store.js";

export function eventOperations(store: Store): Implementation<EventOperations> {
  const { db } = store;
  return {
    readEvents: (args) =>
      db.read(async (tx) => ({ events: await readHistory(store, tx, args) })),

    async tailEvents(args) {
      if ((args.blockMs ?? 0) > 0) store.wakeups.requireOpen();
      const endsAtMs = performance.now() + (args.blockMs ?? 0);
      for (;;) {
        const ticket = store.wakeups.ticket("news");
        const events: ExecutionEvent[] = await db.read(
          async (tx) => await readHistory(store, tx, args),
        );
        const leftMs = endsAtMs - performance.now();
        if (
          events.length > 0 ||
          leftMs <= 0 ||
          args.signal?.aborted === true ||
          store.wakeups.closed
        )
          return { events };
        await store.wakeups.wait(ticket, leftMs, args.signal);
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
