/** Cursors of feeds whose positions are numbers. */
import { engineError } from "../errors.js";
import { EARLIEST, type FeedCursor } from "../events.js";

/** One byte for the kind of store, eight for the position; text as base64url. */
const PREFIX = 0x03;

export function formatCursor(position: number): FeedCursor {
  const bytes = Buffer.alloc(9);
  bytes[0] = PREFIX;
  bytes.writeBigUInt64BE(BigInt(position), 1);
  return bytes.toString("base64url");
}

/**
 * The position of a cursor that somebody brings back.
 * @throws EngineError `invalid_offset`, `cursor_expired`
 */
export function parseCursor(
  cursor: string,
  { floor, newest }: { readonly floor: number; readonly newest: number },
): number {
  if (cursor === EARLIEST) return floor;
  const bytes = Buffer.from(cursor, "base64url");
  const position =
    bytes.length === 9 && bytes[0] === PREFIX
      ? Number(bytes.readBigUInt64BE(1))
      : Number.NaN;
  if (
    !Number.isSafeInteger(position) ||
    position > newest ||
    formatCursor(position) !== cursor
  )
    throw engineError("invalid_offset", { value: cursor });
  if (position < floor)
    throw engineError("cursor_expired", { earliest: formatCursor(floor) });
  return position;
}
