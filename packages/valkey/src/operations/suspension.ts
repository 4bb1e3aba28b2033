import {
  decodeHandle,
  encodeHandle,
  HOMES,
  invalidInput,
  refuse,
  WAITPOINT_STATES,
  WaitpointToken,
  type Args,
  type AttemptId,
  type BoundWaitpoint,
  type Handle,
  type Home,
  type Implementation,
  type LaneId,
  type LeaseId,
  type PendingWaitpointInfo,
  type ResumeSignal,
  type SignalId,
  type SuspendedExecutionEntry,
  type SuspendOutcome,
  type SuspensionId,
  type SuspensionOperations,
  type SuspensionReason,
  type WaitpointId,
} from "@flowfabric/core";
import {
  bytesToUuid,
  executionIdOf,
  optional,
  uuidToBytes,
} from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import {
  jsonOf,
  listOf,
  optionalNumber,
  optionalValues,
  textOf,
  type Argument,
  type Reply,
} from "../connection.js";
import { settle } from "../errors.js";
import { toHolder } from "../procedures/holders.js";
import { LOOK_ROWS } from "../procedures/listing.js";
import { fenceValues } from "../procedures/fences.js";
import {
  findFirst,
  shareOf,
  takeFirst,
  type Part,
} from "../procedures/merged.js";
import { readRef, refOf } from "../rows.js";
import type { Store } from "../store.js";
import { readHandle } from "./leases.js";

export function suspensionOperations(
  store: Store,
): Implementation<SuspensionOperations> {
  const { cells } = store;
  return {
    async suspend({ handle, ...args }) {
      const own = decodeHandle(handle, "valkey");
      const answer = await cells
        .of(own.executionId)
        .call(
          "suspend",
          refOf(own.executionId),
          "",
          ...fenceValues(own),
          ...suspendValues(args),
        );
      return toOutcome(answer, own.executionId);
    },

    async suspendByTriple({ executionId, namespace, fence, ...args }) {
      const answer = await cells
        .of(executionId)
        .call(
          "suspend",
          refOf(executionId),
          namespace ?? "",
          ...fenceValues(fence),
          ...suspendValues(args),
        );
      return toOutcome(answer, executionId);
    },

    async createWaitpoint({ handle, waitpointId, waitpointKey, expiresInMs }) {
      const own = settle(
        handle.kind === "suspended"
          ? refuse("already_suspended", {})
          : decodeHandle(handle, "valkey"),
      );
      const [token] = await cells
        .of(own.executionId)
        .call(
          "create_waitpoint",
          refOf(own.executionId),
          ...fenceValues(own),
          uuidToBytes(waitpointId),
          waitpointKey,
          expiresInMs,
        );
      return { waitpointId, hmacToken: new WaitpointToken(textOf(token!)) };
    },

    async closeWaitpoint(args) {
      const own =
        "handle" in args ? settle(readHandle(args.handle)) : undefined;
      const target = own ?? (args as CloseByOperator);
      const [kind] = await cells
        .of(target.executionId)
        .call(
          "close_waitpoint",
          refOf(target.executionId),
          (own === undefined && (target as CloseByOperator).namespace) || "",
          own === undefined ? "" : 1,
          ...fenceValues(own),
          uuidToBytes(args.waitpointId),
          args.reason,
        );
      return { kind: textOf(kind!) as "closed" | "alreadyClosed" };
    },

    observeSignals: ({ handle }) => observe(store, handle),

    async resumeExecution({
      executionId,
      namespace,
      triggerType,
      resumeDelayMs,
    }) {
      const [home] = await cells
        .of(executionId)
        .call(
          "resume_execution",
          refOf(executionId),
          namespace ?? "",
          triggerType,
          resumeDelayMs,
        );
      return { kind: "resumed", publicState: HOMES[home as Home].publicState };
    },

    async readWaitpointToken({ executionId, namespace, waitpointId }) {
      const [token] = await cells
        .of(executionId)
        .call(
          "read_waitpoint_token",
          refOf(executionId),
          namespace ?? "",
          uuidToBytes(waitpointId),
        );
      return token === undefined
        ? undefined
        : new WaitpointToken(textOf(token));
    },

    async listPendingWaitpoints({ executionId, namespace, after, limit }) {
      const [list, more] = await cells
        .of(executionId)
        .call(
          "list_waitpoints",
          refOf(executionId),
          namespace ?? "",
          after === undefined ? "" : uuidToBytes(after),
          limit,
        );
      const entries = listOf(list).map((each) =>
        toWaitpointInfo(listOf(each), executionId),
      );
      return more === 1
        ? { entries, nextCursor: entries.at(-1)!.waitpointId }
        : { entries };
    },

    listSuspended: (args) => listSuspended(store, args),
  };
}

type CloseByOperator = Extract<
  Args<"closeWaitpoint">,
  { readonly operator: true }
>;

/** As read_request in lua/functions/suspension.lua reads it. */
function suspendValues(args: Omit<Args<"suspend">, "handle">): Argument[] {
  const {
    reasonCode: reason,
    requestedBy,
    timeoutAtMs,
    timeoutBehavior,
  } = args;
  return [
    uuidToBytes(args.suspensionId),
    jsonOf({ reason, requestedBy, timeoutAtMs, timeoutBehavior }),
    jsonOf(args.resumeCondition),
    jsonOf(args.resumePolicy),
    ...optionalValues(args.continuationMetadataPointer),
    args.idempotencyKey ?? "",
    ...args.waitpoints.flatMap((binding) => [
      binding.kind,
      uuidToBytes(binding.waitpointId),
      binding.kind === "fresh" ? binding.waitpointKey : "",
    ]),
  ];
}

/** As suspending.answer in lua/lib/suspending.lua says it. */
function toOutcome(
  answer: readonly Reply[],
  executionId: Args<"suspendByTriple">["executionId"],
): SuspendOutcome {
  const [primary, ...additionalWaitpoints] = listOf(answer[2]).map((each) =>
    toBoundWaitpoint(listOf(each)),
  );
  const details = {
    suspensionId: bytesToUuid(answer[1] as Buffer) as SuspensionId,
    ...primary!,
    additionalWaitpoints,
  };
  if (textOf(answer[0]!) === "alreadySatisfied")
    return { kind: "alreadySatisfied", details };
  const handle = encodeHandle("valkey", "suspended", {
    executionId,
    leaseId: bytesToUuid(answer[3] as Buffer) as LeaseId,
    leaseEpoch: answer[4] as number,
    attemptId: bytesToUuid(answer[5] as Buffer) as AttemptId,
    attemptIndex: answer[6] as number,
    leaseTtlMs: answer[7] as number,
    laneId: textOf(answer[8]!) as LaneId,
    workerInstanceId: toHolder(answer[9]!).workerInstanceId,
  });
  return { kind: "suspended", details, handle };
}

function toBoundWaitpoint([id, key, token]: readonly Reply[]): BoundWaitpoint {
  return {
    waitpointId: bytesToUuid(id as Buffer) as WaitpointId,
    waitpointKey: textOf(key!),
    waitpointToken: new WaitpointToken(textOf(token!)),
  };
}

/** In pieces, for payloads may be many and long; from the start again where another suspension came in between. */
async function observe(store: Store, handle: Handle): Promise<ResumeSignal[]> {
  const { executionId, attemptIndex } = decodeHandle(handle, "valkey");
  let found: ResumeSignal[] = [];
  let seen: Buffer | undefined;
  let from = 0;
  for (;;) {
    const [suspension, signals, next, timedOutAt] = await store.cells
      .of(executionId)
      .call(
        "observe_signals",
        refOf(executionId),
        attemptIndex,
        handle.kind === "suspended" ? 1 : "",
        from,
      );
    if (suspension === undefined) return [];
    if (seen?.equals(suspension as Buffer) === false) {
      [found, seen, from] = [[], undefined, 0];
      continue;
    }
    seen = suspension as Buffer;
    found.push(...listOf(signals).map((each) => toSignal(listOf(each))));
    if (next !== null) {
      from = next as number;
      continue;
    }
    return timedOutAt === null
      ? found
      : [...found, timeoutSignal(seen, timedOutAt as number)];
  }
}

/** As signals.contributors in lua/lib/signals.lua says it. */
function toSignal(values: readonly Reply[]): ResumeSignal {
  return {
    signalId: bytesToUuid(values[0] as Buffer) as SignalId,
    signalName: textOf(values[1]!),
    signalCategory: textOf(values[2]!),
    sourceType: textOf(values[3]!),
    sourceIdentity: textOf(values[4]!),
    correlationId: textOf(values[5]!),
    acceptedAtMs: values[6] as number,
    ...optional("payload", values[7] as Buffer | null),
  };
}

/** Stands for the timeout that resumed; its id is the suspension's. */
function timeoutSignal(suspension: Buffer, acceptedAtMs: number): ResumeSignal {
  const suspensionId = bytesToUuid(suspension);
  return {
    signalId: suspensionId as SignalId,
    signalName: "timeout",
    signalCategory: "system",
    sourceType: "suspension_timeout",
    sourceIdentity: suspensionId,
    correlationId: "",
    acceptedAtMs,
  };
}

/** As told in lua/functions/suspension.lua says it. */
function toWaitpointInfo(
  values: readonly Reply[],
  executionId: PendingWaitpointInfo["executionId"],
): PendingWaitpointInfo {
  const print = values[7] as Buffer | null;
  return {
    executionId,
    waitpointId: bytesToUuid(values[0] as Buffer) as WaitpointId,
    waitpointKey: textOf(values[1]!),
    state: WAITPOINT_STATES[
      values[2] as number
    ] as PendingWaitpointInfo["state"],
    requiredSignalNames: listOf(values[11]).map(textOf),
    createdAtMs: values[3] as number,
    ...optional("activatedAtMs", optionalNumber(values[4])),
    ...optional("expiresAtMs", optionalNumber(values[5])),
    tokenKid: textOf(values[6]!),
    ...optional("tokenFingerprint", print?.toString("hex")),
    signalCount: values[8] as number,
    matchedSignalCount: values[9] as number,
    ...optional("lastSignalAtMs", optionalNumber(values[10])),
  };
}

/** Behind it a list goes on: the order is that of suspension, then of the bytes of the ref. */
interface Place {
  readonly suspendedAtMs: number;
  readonly ref: Buffer;
}

interface Listed {
  readonly place: Place;
  readonly entry: SuspendedExecutionEntry;
}

function comesFirst({ place: a }: Listed, { place: b }: Listed): boolean {
  return a.suspendedAtMs === b.suspendedAtMs
    ? Buffer.compare(a.ref, b.ref) < 0
    : a.suspendedAtMs < b.suspendedAtMs;
}

async function listSuspended(
  store: Store,
  args: Args<"listSuspended">,
): Promise<{ entries: SuspendedExecutionEntry[]; nextCursor?: string }> {
  const after = parseCursor(args.cursor);
  if (args.limit === 0) return { entries: [] };
  const asked =
    args.partition === undefined
      ? store.cells.all
      : [store.cells.ofPartition(args.partition)];
  const parts = asked.map((cell) => suspendedPart(cell, args, after, asked));
  const page = await takeFirst(parts, args.limit, comesFirst);
  const entries = page.map(({ entry }) => entry);
  return (await findFirst(parts, comesFirst)) === undefined
    ? { entries }
    : { entries, nextCursor: formatCursor(page.at(-1)!.place) };
}

function suspendedPart(
  cell: Cell,
  { limit, partition }: Args<"listSuspended">,
  after: Place | undefined,
  { length: cells }: readonly Cell[],
): Part<Listed> {
  let lookedTo = after;
  const part: Part<Listed> = {
    items: [],
    isRead: false,
    async readOn() {
      const [found, stoppedAt] = await cell.call(
        "list_suspended",
        lookedTo?.suspendedAtMs ?? "",
        lookedTo?.ref ?? "",
        shareOf(limit + 1, cells),
        LOOK_ROWS,
        partition ?? "",
      );
      part.isRead = stoppedAt === null;
      if (!part.isRead) lookedTo = toPlace(listOf(stoppedAt));
      part.items.push(...listOf(found).map((each) => toListed(listOf(each))));
    },
  };
  return part;
}

function toPlace([suspendedAt, ref]: readonly Reply[]): Place {
  return { suspendedAtMs: suspendedAt as number, ref: ref as Buffer };
}

function toListed(values: readonly Reply[]): Listed {
  const place = toPlace(values);
  return {
    place,
    entry: {
      executionId: executionIdOf(readRef(place.ref)),
      suspendedAtMs: place.suspendedAtMs,
      ...optional("timeoutAtMs", optionalNumber(values[2])),
      reason: textOf(values[3]!) as SuspensionReason,
    },
  };
}

function formatCursor({ suspendedAtMs, ref }: Place): string {
  return `${suspendedAtMs}.${ref.toString("hex")}`;
}

function parseCursor(cursor: string | undefined): Place | undefined {
  if (cursor === undefined) return undefined;
  const match = /^(\d{1,16})\.([0-9a-f]{36})$/.exec(cursor);
  if (match === null)
    throw invalidInput(
      "cursor",
      `'${cursor}' is no cursor of this list; pass nextCursor of the page before`,
    );
  return {
    suspendedAtMs: Number(match[1]),
    ref: Buffer.from(match[2]!, "hex"),
  };
}
