/** Events of the log, and what histories and notices make of them. */
import {
  EVENT_TYPES,
  type EventActor,
  type EventType,
  type ExecutionEvent,
  type TaskEndedNotice,
} from "../events.js";
import type { ExecutionId } from "../ids.js";
import type { JsonValue } from "../json.js";
import { unpackState } from "../state.js";
import { bytesToUuid, optional, parseJson } from "./values.js";
import type { Holder } from "./workers.js";

export const ACTORS = [
  "client",
  "worker",
  "operator",
  "engine",
] as const satisfies readonly EventActor[];

/** Fields as in records of executions. */
export interface EventRecord {
  readonly at: number;
  /** Index in {@link EVENT_TYPES}. */
  readonly type: number;
  /** Packed; none where the event is no transition. */
  readonly state: number | null;
  readonly attempt: number | null;
  readonly epoch: number | null;
  readonly lease: Uint8Array | null;
  readonly attempt_id: Uint8Array | null;
  readonly reason: string | null | undefined;
  readonly data: string | null | undefined;
}

/** With its place among the events of its execution. */
export interface HistoryRecord extends EventRecord {
  readonly n: number;
  /** Index in {@link ACTORS}. */
  readonly actor: number;
  /** The state before it, packed. */
  readonly from_state: number | null;
}

export function toEvent(
  row: HistoryRecord,
  holder: Holder | undefined,
): ExecutionEvent {
  const fromState =
    row.state === null || row.from_state === null
      ? undefined
      : unpackState(row.from_state);
  const data: Record<string, JsonValue> = {
    ...readData<Record<string, JsonValue>>(row),
    ...(row.lease === null ? {} : { leaseId: bytesToUuid(row.lease) }),
    ...(row.attempt_id === null
      ? {}
      : { attemptId: bytesToUuid(row.attempt_id) }),
    ...holder,
  };
  return {
    seq: row.n,
    atMs: row.at,
    type: EVENT_TYPES[row.type]!,
    ...optional("fromState", fromState),
    ...optional(
      "toState",
      row.state === null ? undefined : unpackState(row.state),
    ),
    ...optional("attemptIndex", row.attempt),
    ...optional("leaseEpoch", row.epoch),
    actor: ACTORS[row.actor]!,
    ...optional("reason", row.reason),
    ...(Object.keys(data).length === 0 ? {} : { data }),
  };
}

/**
 * Stands for events that are shown no more. Its number is that of the last one, so that reading on behind it goes on behind
 * the gap.
 */
export function trimmedEvent(
  fromSeq: number,
  toSeq: number,
  atMs: number,
): ExecutionEvent {
  return {
    seq: toSeq,
    atMs,
    type: "trimmed",
    actor: "engine",
    data: { fromSeq, toSeq },
  };
}

/** An event that ended a lease. */
export interface NoticeRecord extends Pick<
  EventRecord,
  "type" | "state" | "reason" | "data"
> {
  readonly epoch: number;
}

/** Whatever else ended a lease left the execution running no more. */
const NOTICE_CODES: { readonly [T in EventType]?: TaskEndedNotice["code"] } = {
  lease_expired: "lease_expired",
  lease_revoked: "lease_revoked",
};

/** What the lease's holder hears. */
export function toNotice(
  executionId: ExecutionId,
  row: NoticeRecord,
): TaskEndedNotice {
  const outcome =
    row.state === null
      ? "none"
      : (unpackState(row.state)?.terminalOutcome ?? "none");
  return {
    kind: "taskEnded",
    executionId,
    leaseEpoch: row.epoch,
    code: NOTICE_CODES[EVENT_TYPES[row.type]!] ?? "execution_not_active",
    ...(outcome === "none" ? {} : { outcome }),
    ...optional("reason", row.reason),
    ...optional("source", readData<{ source?: string }>(row).source),
  };
}

/** What the event says beside its columns. */
export function readData<Data>({ data }: Pick<EventRecord, "data">): Data {
  return parseJson<Data>(data ?? "{}", "event data");
}
