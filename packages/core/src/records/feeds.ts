/** Feeds: views of the log over all executions. */
import { engineError } from "../errors.js";
import {
  EVENT_TYPES,
  type AcquireReason,
  type CompletionEvent,
  type DeliveryEffect,
  type EventType,
  type FeedCursor,
  type InstanceTagEvent,
  type LeaseHistoryEvent,
  type SignalDeliveryEvent,
} from "../events.js";
import type {
  AttemptId,
  LaneId,
  LeaseId,
  Namespace,
  SignalId,
  WaitpointId,
} from "../ids.js";
import type { Args } from "../operations/inputs-by-operation.js";
import type { SignalEffect } from "../rules/conditions.js";
import { unpackState } from "../state.js";
import { readData, type EventRecord } from "./events.js";
import { executionIdOf, readTags, type ExecutionName } from "./executions.js";
import { bytesToUuid, optional } from "./values.js";
import type { Holder } from "./workers.js";

const codesOf = (...types: EventType[]) =>
  types.map((type) => EVENT_TYPES.indexOf(type));
export const COMPLETION_TYPES = codesOf(
  "completed",
  "failed",
  "cancelled",
  "expired",
  "skipped",
);
export const LEASE_TYPES = codesOf(
  "claimed",
  "resumed",
  "reclaimed",
  "lease_expired",
  "lease_revoked",
  "cancelled",
  "renewed",
);
export const SIGNAL_TYPES = codesOf("signal");
/** What was given at creation is told by that event itself. */
export const TAG_TYPES = codesOf("created", "tags_changed");

/** An event with what its execution adds, gone or not. */
export interface FeedRecord extends EventRecord, ExecutionName {
  readonly position: number | string;
  readonly tags: string | null | undefined;
}

/** What stands beside the event. */
export interface FeedContext {
  readonly cursor: FeedCursor;
  readonly route: { readonly namespace: string; readonly lane: string };
  readonly holder: Holder | undefined;
}

/** What a row says to subscribers of one feed: an event, none, or several of one step. */
export type Convert<Event> = (
  row: FeedRecord,
  context: FeedContext,
) => Event | undefined | readonly Event[];

/** Whether a subscriber asked for events of the execution. */
export function matches(
  { filter, partition }: Args<"subscribeCompletion">,
  row: Pick<FeedRecord, "partition" | "tags">,
  namespace: string,
): boolean {
  if (partition !== undefined && partition !== row.partition) return false;
  if (filter.namespace !== undefined && filter.namespace !== namespace)
    return false;
  if (filter.instanceTag === undefined) return true;
  const [key, value] = filter.instanceTag;
  return readTags(row.tags)[key] === value;
}

/** What events of every feed say. */
function commonOf(row: FeedRecord, { cursor, route }: FeedContext) {
  return {
    cursor,
    executionId: executionIdOf(row),
    atMs: row.at,
    namespace: route.namespace as Namespace,
    tags: readTags(row.tags),
  };
}

export const toCompletion: Convert<CompletionEvent> = (row, context) => {
  const outcome =
    row.state === null ? undefined : unpackState(row.state)?.terminalOutcome;
  if (outcome === undefined || outcome === "none")
    throw engineError("corruption", {
      context: "event",
      field: "state",
      message: `position ${row.position}`,
    });
  return {
    ...commonOf(row, context),
    kind: "completion",
    outcome: outcome === "failed" ? "failure" : outcome,
    laneId: context.route.lane as LaneId,
    attemptIndex: row.attempt ?? 0,
  };
};

export const toLeaseHistory: Convert<LeaseHistoryEvent> = (row, context) => {
  const { holder } = context;
  // A cancellation tells of a lease only where it took one away.
  if (holder === undefined || row.lease === null) return undefined;
  const common = commonOf(row, context);
  const leaseId = bytesToUuid(row.lease) as LeaseId;
  const { workerId, workerInstanceId } = holder;
  const attemptIndex = row.attempt ?? 0;
  const leaseEpoch = row.epoch ?? 0;
  switch (EVENT_TYPES[row.type]) {
    case "claimed":
    case "resumed": {
      const resumed = EVENT_TYPES[row.type] === "resumed";
      const reason = (row.reason ??
        (resumed ? "claim_resumed" : "claim")) as AcquireReason;
      const attemptId = bytesToUuid(row.attempt_id!) as AttemptId;
      return {
        ...common,
        kind: "acquired",
        leaseId,
        leaseEpoch,
        workerId,
        workerInstanceId,
        attemptIndex,
        attemptId,
        reason,
      };
    }
    case "reclaimed":
      return {
        ...common,
        kind: "reclaimed",
        newLeaseId: leaseId,
        newOwner: workerInstanceId,
        attemptIndex,
      };
    case "lease_expired":
      return {
        ...common,
        kind: "expired",
        leaseId,
        prevOwner: workerInstanceId,
      };
    case "lease_revoked":
      return {
        ...common,
        kind: "revoked",
        leaseId,
        revokedBy: row.reason ?? "operator",
      };
    case "cancelled":
      return { ...common, kind: "revoked", leaseId, revokedBy: "operator" };
    case "renewed": {
      const { expiresAtMs } = readData<{ expiresAtMs: number }>(row);
      return {
        ...common,
        kind: "renewed",
        leaseId,
        leaseEpoch,
        workerInstanceId,
        expiresAtMs,
      };
    }
    default:
      return undefined;
  }
};

/** What the log keeps of a delivery. */
export interface SignalEventData {
  readonly signalId: string;
  readonly waitpointId: string;
  readonly sourceIdentity?: string;
  readonly effect: SignalEffect | "deduped";
}

export const toSignalDelivery: Convert<SignalDeliveryEvent> = (
  row,
  context,
) => {
  const data = readData<SignalEventData>(row);
  return {
    ...commonOf(row, context),
    kind: "signalDelivery",
    signalId: data.signalId as SignalId,
    waitpointId: data.waitpointId as WaitpointId,
    ...optional("sourceIdentity", data.sourceIdentity),
    effect: deliveryEffect(data.effect),
  };
};

function deliveryEffect(effect: SignalEventData["effect"]): DeliveryEffect {
  switch (effect) {
    case "resume_condition_satisfied":
      return "satisfied";
    case "buffered_for_pending_waitpoint":
      return "buffered";
    case "deduped":
      return "deduped";
    default:
      return `other(${effect})`;
  }
}

/** What the log keeps of a change of tags; values by key. */
export interface TagEventData {
  readonly cleared?: Readonly<Record<string, string>>;
  readonly attached?: Readonly<Record<string, string>>;
}

export const toInstanceTags: Convert<InstanceTagEvent> = (row, context) => {
  const common = commonOf(row, context);
  const { cleared = {}, attached = {} }: TagEventData =
    EVENT_TYPES[row.type] === "created"
      ? { attached: common.tags }
      : readData<TagEventData>(row);
  const told = (
    kind: InstanceTagEvent["kind"],
    tags: Readonly<Record<string, string>>,
  ) =>
    Object.keys(tags)
      .sort()
      .map((key): InstanceTagEvent => ({
        ...common,
        kind,
        tag: `${key}=${tags[key]!}`,
      }));
  return [...told("cleared", cleared), ...told("attached", attached)];
};

/**
 * The events of a row. Between two of one row there is no cursor: the earlier ones have the one in front of the row, so that
 * whoever goes on there sees all of them again and misses none.
 */
export function eventsOf<Event extends { readonly cursor: FeedCursor }>(
  converted: ReturnType<Convert<Event>>,
  before: FeedCursor,
): readonly Event[] {
  if (converted === undefined) return [];
  if (!Array.isArray(converted)) return [converted as Event];
  const events = converted as readonly Event[];
  return events.map((event, index) =>
    index === events.length - 1 ? event : { ...event, cursor: before },
  );
}
