import {
  engineError,
  invalidInput,
  type Args,
  type AttemptRecord,
  type ExecutionId,
  type ExecutionSnapshot,
  type Implementation,
  type LaneId,
  type ReadOperations,
  type WaitpointId,
} from "@flowfabric/core";
import {
  bytesToUuid,
  executionIdOf,
  parseJson,
  publicStateAt,
  readTags,
  toCurrentAttempt,
  toEarlierAttempt,
  toInfo,
  toSnapshot,
  type ArchivedAttempt,
  type ExecutionRecord,
  type RecordContext,
} from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import {
  listOf,
  optionalNumber,
  optionalText,
  textOf,
  type Reply,
} from "../connection.js";
import { toHolder, toOptionalHolder } from "../procedures/holders.js";
import { filterValues, LOOK_ROWS } from "../procedures/listing.js";
import {
  findFirst,
  shareOf,
  takeFirst,
  type Part,
} from "../procedures/merged.js";
import { readRef, refOf, toExecutionRow } from "../rows.js";
import type { Store } from "../store.js";

interface ExecutionRefArgs {
  readonly executionId: ExecutionId;
  readonly namespace?: string | undefined;
}

export function readOperations(store: Store): Implementation<ReadOperations> {
  return {
    async describeExecution(args) {
      const answer = await ask(store, "describe", args);
      return answer && snapshot(answer);
    },

    async readExecutionContext(args) {
      const answer = required(await ask(store, "read_context", args), args);
      return {
        inputPayload: (answer[2] as Buffer | null) ?? new Uint8Array(),
        executionKind: textOf(answer[0]!),
        tags: readTags(optionalText(answer[1])),
      };
    },

    async readExecutionInfo(args) {
      const found = await find(store, args);
      return found && toInfo(found.row, found);
    },

    async readExecutionState(args) {
      const found = await find(store, args);
      return found && publicStateAt(found.row, found.nowMs);
    },

    async getExecutionResult(args) {
      const answer = await ask(store, "read_result", args);
      return (answer?.[0] as Buffer | null | undefined) ?? undefined;
    },

    async readCurrentAttemptIndex(args) {
      return required(await find(store, args), args).row.attempt;
    },

    async readTotalAttemptCount(args) {
      return required(await find(store, args), args).row.attempts;
    },

    async getExecutionNamespace(args) {
      return (await find(store, args))?.route.namespace;
    },

    listExecutions: (args) => list(store, args),

    async listAttempts(args) {
      const answer = await ask(store, "read_attempts", args);
      return answer === undefined ? [] : attempts(answer);
    },

    async listLanes({ cursor, limit }) {
      if (limit === 0) return { lanes: [] };
      const pages = await Promise.all(
        store.cells.all.map(async (cell) => {
          const [page] = await cell.call("list_lanes", cursor ?? "", limit + 1);
          return listOf(page).map(textOf);
        }),
      );
      // Printable ASCII: the order of their bytes is that of their characters.
      const lanes = [...new Set(pages.flat())].sort() as LaneId[];
      if (lanes.length <= limit) return { lanes };
      lanes.length = limit;
      return { lanes, nextCursor: lanes.at(-1)! };
    },
  };
}

/** What a read of one execution answers; nothing where it is missing or of another namespace. */
async function ask(
  store: Store,
  name: string,
  { executionId, namespace }: ExecutionRefArgs,
): Promise<readonly Reply[] | undefined> {
  const answer = await store.cells
    .of(executionId)
    .call(name, refOf(executionId), namespace ?? "");
  return answer.length === 0 ? undefined : answer;
}

function required<Answer>(
  answer: Answer | undefined,
  { executionId }: ExecutionRefArgs,
): Answer {
  if (answer !== undefined) return answer;
  throw engineError("execution_not_found", {
    entity: "execution",
    executionId,
  });
}

interface Found extends RecordContext {
  readonly row: ExecutionRecord;
}

async function find(
  store: Store,
  args: ExecutionRefArgs,
): Promise<Found | undefined> {
  const answer = await ask(store, "read", args);
  return answer && toFound(answer);
}

/** As told in lua/functions/reads.lua says it: six values. */
function toFound(answer: readonly Reply[]): Found {
  const row = toExecutionRow(listOf(answer[5]));
  const required = textOf(answer[3]!);
  return {
    row,
    nowMs: answer[0] as number,
    route: {
      namespace: textOf(answer[1]!),
      lane: textOf(answer[2]!),
      required: required === "" ? [] : required.split(","),
    },
    holder: toOptionalHolder(answer[4]),
  };
}

function snapshot(answer: readonly Reply[]): ExecutionSnapshot {
  const { row, ...context } = toFound(answer);
  return toSnapshot(row, context, {
    creator: optionalText(answer[6]),
    progress: {
      percent: optionalNumber(answer[7]),
      message: optionalText(answer[8]),
    },
    currentWaitpoint:
      answer[9] === null
        ? undefined
        : (bytesToUuid(answer[9] as Buffer) as WaitpointId),
  });
}

function attempts(answer: readonly Reply[]): AttemptRecord[] {
  const { row, holder } = toFound(answer);
  const earlier = listOf(answer[6]).map((each) => {
    const [index, record, name] = listOf(each);
    const stored = parseJson<ArchivedAttempt>(textOf(record!), "attempt");
    return toEarlierAttempt(index as number, stored, toHolder(name!));
  });
  if (row.attempt_id === null) return earlier;
  return [...earlier, toCurrentAttempt(row, holder!)];
}

interface Listed {
  readonly place: number;
  readonly part: ListPart;
  readonly executionId: ExecutionId;
}

/** A cell's executions. */
interface ListPart extends Part<Listed> {
  /** Behind it a list goes on that has not taken anything more from this cell. */
  place: number;
}

async function list(
  store: Store,
  args: Args<"listExecutions">,
): Promise<{ executions: ExecutionId[]; nextCursor?: string }> {
  const { all } = store.cells;
  const places =
    args.cursor === undefined
      ? all.map(() => 0)
      : parsePlaces(args.cursor, all.length);
  if (args.limit === 0) return { executions: [] };
  const parts = all.map((cell, index) =>
    listPart(cell, places[index]!, args, all.length),
  );
  const asked =
    args.partition === undefined
      ? parts
      : [parts[store.cells.ofPartition(args.partition).index]!];
  const page = await takeFirst(asked, args.limit, isCreatedBefore);
  for (const { place, part } of page) part.place = place;
  const executions = page.map(({ executionId }) => executionId);
  return (await findFirst(asked, isCreatedBefore)) === undefined
    ? { executions }
    : { executions, nextCursor: formatPlaces(parts.map(({ place }) => place)) };
}

function isCreatedBefore(a: Listed, b: Listed): boolean {
  return a.place < b.place;
}

function listPart(
  cell: Cell,
  place: number,
  args: Args<"listExecutions">,
  cells: number,
): ListPart {
  let lookedTo = place;
  const part: ListPart = {
    place,
    items: [],
    isRead: false,
    async readOn() {
      const [places, refs, upTo, isLast] = await cell.call(
        "list",
        lookedTo,
        shareOf(args.limit + 1, cells),
        LOOK_ROWS,
        args.partition ?? "",
        ...filterValues(args),
      );
      lookedTo = upTo as number;
      part.isRead = isLast === 1;
      for (const [at, ref] of listOf(refs).entries())
        part.items.push({
          place: listOf(places)[at] as number,
          part,
          executionId: executionIdOf(readRef(ref)),
        });
      // Nothing of what was passed over is looked at again for the next page.
      if (part.items.length === 0) part.place = lookedTo;
    },
  };
  return part;
}

/** One byte for the kind of cursor, eight for the place in each cell; text as base64url. */
const PREFIX = 0x21;

function formatPlaces(places: readonly number[]): string {
  const bytes = Buffer.alloc(1 + 8 * places.length);
  bytes[0] = PREFIX;
  for (const [index, place] of places.entries())
    bytes.writeBigUInt64BE(BigInt(place), 1 + 8 * index);
  return bytes.toString("base64url");
}

function parsePlaces(cursor: string, cells: number): number[] {
  const bytes = Buffer.from(cursor, "base64url");
  if (bytes.length === 1 + 8 * cells && bytes[0] === PREFIX) {
    const places = Array.from({ length: cells }, (_unused, index) =>
      Number(bytes.readBigUInt64BE(1 + 8 * index)),
    );
    if (places.every(Number.isSafeInteger) && formatPlaces(places) === cursor)
      return places;
  }
  throw invalidInput(
    "cursor",
    `'${cursor}' is no cursor of this list; pass nextCursor of the page before`,
  );
}
