import {
  HOMES,
  invalidInput,
  type Args,
  type Home,
  type Implementation,
  type TagOperations,
  type TagSearchEntry,
} from "@flowfabric/core";
import { executionIdOf, readTags } from "@flowfabric/core/records";

import type { Cell } from "../cells.js";
import {
  listOf,
  optionalText,
  type Argument,
  type Reply,
} from "../connection.js";
import { filterValues, LOOK_ROWS } from "../procedures/listing.js";
import {
  findFirst,
  shareOf,
  takeFirst,
  type Part,
} from "../procedures/merged.js";
import { readRef, refOf } from "../rows.js";
import type { Store } from "../store.js";

type Query = Args<"countByTags">;

export function tagOperations(store: Store): Implementation<TagOperations> {
  const { cells } = store;
  return {
    async setExecutionTag({ executionId, namespace, key, value }) {
      await cells
        .of(executionId)
        .call("set_tag", refOf(executionId), namespace ?? "", key, value);
    },

    async getExecutionTag({ executionId, namespace, key }) {
      const [value] = await cells
        .of(executionId)
        .call("read_tag", refOf(executionId), namespace ?? "", key);
      return optionalText(value);
    },

    async searchByTags(args) {
      const after = parseCursor(args.cursor);
      if (args.limit === 0) return { entries: [] };
      const parts = cells.all.map((cell) =>
        searchPart(cell, args, after, cells.all.length),
      );
      const page = await takeFirst(parts, args.limit, comesFirst);
      const entries = page.map(({ entry }) => entry);
      return (await findFirst(parts, comesFirst)) === undefined
        ? { entries }
        : { entries, nextCursor: formatCursor(page.at(-1)!.place) };
    },

    async countByTags(args) {
      const counts = await Promise.all(
        cells.all.map((cell) => countIn(cell, args)),
      );
      return counts.reduce((sum, count) => sum + count, 0);
    },
  };
}

/** Behind it a search goes on: the order is that of creation, the newest first, then of the bytes of the ref. */
interface Place {
  readonly createdAtMs: number;
  readonly ref: Buffer;
}

interface Match {
  readonly place: Place;
  readonly entry: TagSearchEntry;
}

function comesFirst(a: Match, b: Match): boolean {
  return a.place.createdAtMs === b.place.createdAtMs
    ? Buffer.compare(a.place.ref, b.place.ref) < 0
    : a.place.createdAtMs > b.place.createdAtMs;
}

function searchPart(
  cell: Cell,
  args: Args<"searchByTags">,
  after: Place | undefined,
  cells: number,
): Part<Match> {
  let lookedTo = after;
  const part: Part<Match> = {
    items: [],
    isRead: false,
    async readOn() {
      const [found, stoppedAt] = await cell.call(
        "search_tags",
        ...placeValues(lookedTo),
        shareOf(args.limit + 1, cells),
        LOOK_ROWS,
        ...queryValues(args),
      );
      lookedTo = toPlace(stoppedAt);
      part.isRead = lookedTo === undefined;
      part.items.push(...listOf(found).map((each) => toMatch(listOf(each))));
    },
  };
  return part;
}

function toMatch([createdAt, ref, home, tags]: readonly Reply[]): Match {
  const createdAtMs = createdAt as number;
  return {
    place: { createdAtMs, ref: ref as Buffer },
    entry: {
      executionId: executionIdOf(readRef(ref)),
      publicState: HOMES[home as Home].publicState,
      createdAtMs,
      tags: readTags(optionalText(tags)),
    },
  };
}

async function countIn(cell: Cell, query: Query): Promise<number> {
  let total = 0;
  let lookedTo: Place | undefined;
  do {
    const [count, stoppedAt] = await cell.call(
      "count_tags",
      ...placeValues(lookedTo),
      LOOK_ROWS,
      ...queryValues(query),
    );
    total += count as number;
    lookedTo = toPlace(stoppedAt);
  } while (lookedTo !== undefined);
  return total;
}

function placeValues(place: Place | undefined): Argument[] {
  return place === undefined ? ["", ""] : [place.createdAtMs, place.ref];
}

function toPlace(reply: Reply | undefined): Place | undefined {
  if (reply === null || reply === undefined) return undefined;
  const [createdAt, ref] = listOf(reply);
  return { createdAtMs: createdAt as number, ref: ref as Buffer };
}

/** As tags.read_query in lua/lib/tags.lua reads it. */
function queryValues(query: Query): Argument[] {
  const { all, any } = query.match;
  return [
    query.createdAfterMs ?? "",
    query.createdBeforeMs ?? "",
    ...filterValues(query),
    all.length,
    ...[...all, ...any].map(({ key, value }) => `${key}\n${value}`),
  ];
}

function formatCursor({ createdAtMs, ref }: Place): string {
  return `${createdAtMs}.${ref.toString("hex")}`;
}

function parseCursor(cursor: string | undefined): Place | undefined {
  if (cursor === undefined) return undefined;
  const match = /^(\d{1,16})\.([0-9a-f]{36})$/.exec(cursor);
  if (match === null)
    throw invalidInput(
      "cursor",
      `'${cursor}' is no cursor of this search; pass nextCursor of the page before`,
    );
  return { createdAtMs: Number(match[1]), ref: Buffer.from(match[2]!, "hex") };
}
