import { z } from "zod";

import type {
  CompletionEvent,
  ExecutionEvent,
  InstanceTagEvent,
  LeaseHistoryEvent,
  SignalDeliveryEvent,
} from "../events.js";
import { Namespace } from "../ids.js";
import { EVENT_PAGE_MAX } from "../limits.js";
import {
  ExecutionRef,
  MaxWaitMs,
  PartitionKey,
  refuseWith,
  Signal,
  TagKey,
  TagValue,
} from "./inputs.js";

export const ReadEventsInput = ExecutionRef.extend({
  /** The last `seq` seen; exclusive. */
  after: z.number().int().min(0).default(0),
  limit: z.number().int().min(1).max(EVENT_PAGE_MAX).default(EVENT_PAGE_MAX),
});
export type ReadEventsInput = z.input<typeof ReadEventsInput>;

export const TailEventsInput = ReadEventsInput.extend({
  blockMs: MaxWaitMs,
  signal: Signal.optional(),
});
export type TailEventsInput = z.input<typeof TailEventsInput>;

export const SubscribeInput = z.object({
  /** Exclusive; from an earlier event, {@link EARLIEST}, or absent for from now on. */
  cursor: z
    .string()
    .superRefine((value, ctx) => {
      if (!/^[A-Za-z0-9_-]*$/.test(value))
        refuseWith(ctx, "invalid_offset", { value });
    })
    .optional(),
  filter: z
    .object({
      namespace: Namespace.optional(),
      instanceTag: z.tuple([TagKey, TagValue]).optional(),
    })
    .default({}),
  partition: PartitionKey.optional(),
  signal: Signal.optional(),
});
export type SubscribeInput = z.input<typeof SubscribeInput>;

/**
 * History of one execution, and feeds over all of them. Written in the same step as the change they tell of.
 *
 * Feeds are pull-based: a slow consumer slows itself only, nothing is dropped. Each matching event comes exactly
 * once while iterating; after resuming from an older cursor it may come again, and none is missing while it is
 * kept (24 h, at most 1 000 000 events). Order is that of commits per partition. A lost store throws
 * `stream_disconnected` with the cursor to go on from.
 */
export interface EventOperations {
  /**
   * Events of one execution by `seq`, without gaps from 1. The newest 1 000 are kept, plus the first and every
   * end; a `trimmed` marker (`data`: `fromSeq`, `toSeq`) stands for what is gone. Missing execution: empty.
   * Playing `toState` back gives the state vector.
   */
  readEvents(
    input: ReadEventsInput,
  ): Promise<{ readonly events: ExecutionEvent[] }>;

  /** {@link readEvents}, parked up to `blockMs` while there is nothing new. An abort answers empty. */
  tailEvents(
    input: TailEventsInput,
  ): Promise<{ readonly events: ExecutionEvent[] }>;

  /**
   * Every terminal transition of every execution, exactly one event each; a replayed execution ends again.
   *
   * The position is resolved before the promise resolves: what ends afterwards is delivered.
   * Checks: foreign or malformed cursor `invalid_offset`; behind what is kept `cursor_expired`, detail `earliest`.
   */
  subscribeCompletion(
    input: SubscribeInput,
  ): Promise<AsyncIterable<CompletionEvent>>;

  /** Acquired, renewed, expired, reclaimed and revoked leases; otherwise as {@link subscribeCompletion}. */
  subscribeLeaseHistory(
    input: SubscribeInput,
  ): Promise<AsyncIterable<LeaseHistoryEvent>>;

  /**
   * Every signal that was accepted, and once per signal that it came again (`deduped`); otherwise as
   * {@link subscribeCompletion}.
   */
  subscribeSignalDelivery(
    input: SubscribeInput,
  ): Promise<AsyncIterable<SignalDeliveryEvent>>;

  /**
   * Tags as they come and go: `attached` at creation and when set, `cleared` when replaced and when the execution is
   * purged; an equal value changes nothing. Several of one step come in the order cleared, attached, each sorted by key;
   * the cursor of all but the last of them stands before the step. Otherwise as {@link subscribeCompletion}.
   */
  subscribeInstanceTags(
    input: SubscribeInput,
  ): Promise<AsyncIterable<InstanceTagEvent>>;
}
