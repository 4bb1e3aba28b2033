/** Positions in the streams of fed events, and the cursors that hold one for each cell. */
import { EARLIEST, engineError, type FeedCursor } from "@flowfabric/core";

import type { Cell } from "../cells.js";
import { textOf } from "../connection.js";
import type { Store } from "../store.js";

/** The id of a stream's entry: milliseconds, a hyphen, a number within them. */
export type Position = string;

export interface Range {
  /** Up to here events are gone. */
  readonly floor: Position;
  /** Behind everything so far. */
  readonly newest: Position;
}

export async function rangeOf(cell: Cell): Promise<Range> {
  const [floor, newest] = await cell.call("feed_range");
  return { floor: textOf(floor!), newest: textOf(newest!) };
}

function partsOf(position: Position): [ms: number, seq: number] {
  const [ms, seq] = position.split("-");
  return [Number(ms), Number(seq)];
}

export function isBefore(first: Position, second: Position): boolean {
  const [ms, seq] = partsOf(first);
  const [otherMs, otherSeq] = partsOf(second);
  return ms === otherMs ? seq < otherSeq : ms < otherMs;
}

/** Where a feed begins: a position for each cell. @throws `invalid_offset`, `cursor_expired` */
export async function resolveCursor(
  store: Store,
  cursor: string | undefined,
  read: readonly Cell[],
): Promise<Position[]> {
  const ranges = await Promise.all(store.cells.all.map(rangeOf));
  if (cursor === undefined || cursor === "")
    return ranges.map(({ newest }) => newest);
  if (cursor === EARLIEST) return ranges.map(({ floor }) => floor);
  const positions = parseCursor(cursor, ranges.length);
  if (
    positions === undefined ||
    positions.some((position, index) =>
      isBefore(ranges[index]!.newest, position),
    )
  )
    throw engineError("invalid_offset", { value: cursor });
  if (
    read.some(({ index }) => isBefore(positions[index]!, ranges[index]!.floor))
  )
    throw expired(ranges);
  return positions;
}

/** What was asked for is gone. */
export async function cursorExpired(store: Store): Promise<Error> {
  return expired(await Promise.all(store.cells.all.map(rangeOf)));
}

function expired(ranges: readonly Range[]): Error {
  return engineError("cursor_expired", {
    earliest: formatCursor(ranges.map(({ floor }) => floor)),
  });
}

/**
 * Of one cell: a byte for the kind of store, then eight for the milliseconds and eight for the number. Of several: another
 * byte, their count in two, then sixteen for each. Text as base64url.
 */
const ONE = 0x01;
const SEVERAL = 0x11;

export function formatCursor(positions: readonly Position[]): FeedCursor {
  const start =
    positions.length === 1
      ? [ONE]
      : [SEVERAL, positions.length >> 8, positions.length & 0xff];
  const bytes = Buffer.alloc(start.length + 16 * positions.length);
  bytes.set(start);
  for (const [index, position] of positions.entries())
    for (const [place, part] of partsOf(position).entries())
      bytes.writeBigUInt64BE(
        BigInt(part),
        start.length + 16 * index + 8 * place,
      );
  return bytes.toString("base64url");
}

function parseCursor(cursor: string, cells: number): Position[] | undefined {
  const bytes = Buffer.from(cursor, "base64url");
  const start = cells === 1 ? 1 : 3;
  if (bytes.length !== start + 16 * cells) return undefined;
  const parts = Array.from({ length: 2 * cells }, (_unused, index) =>
    Number(bytes.readBigUInt64BE(start + 8 * index)),
  );
  if (!parts.every(Number.isSafeInteger)) return undefined;
  const positions = Array.from(
    { length: cells },
    (_unused, index) => `${parts[2 * index]}-${parts[2 * index + 1]}`,
  );
  return formatCursor(positions) === cursor ? positions : undefined;
}
