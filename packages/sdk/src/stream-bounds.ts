/** How much a reader of streams may ask for, and from where. */
import {
  MAX_WAIT_MS_CEILING,
  parseFrameCursor,
  STREAM_PAGE_MAX,
} from "@flowfabric/core";

import { ConfigError } from "./errors.js";

type Query = Readonly<Record<string, unknown>>;

/** @throws ConfigError of the context, field `count_limit` */
export function requireReadBounds(
  context: string,
  { countLimit }: Query,
): void {
  if (!isWhole(countLimit, 1, STREAM_PAGE_MAX))
    throw new ConfigError(
      context,
      `must be a whole number from 1 to ${STREAM_PAGE_MAX}`,
      "count_limit",
    );
}

/** @throws ConfigError of the context, fields `count_limit`, `block_ms`, `after` */
export function requireTailBounds(context: string, query: Query): void {
  requireReadBounds(context, query);
  const { blockMs = 0, after } = query;
  if (!isWhole(blockMs, 0, MAX_WAIT_MS_CEILING))
    throw new ConfigError(
      context,
      `must be a whole number from 0 to ${MAX_WAIT_MS_CEILING}`,
      "block_ms",
    );
  const cursor = typeof after === "string" ? parseFrameCursor(after) : after;
  if (typeof cursor !== "object")
    throw new ConfigError(
      context,
      "give the id of a frame; 0-0 is before all of them",
      "after",
    );
}

function isWhole(value: unknown, min: number, max: number): boolean {
  return (
    Number.isInteger(value) && Number(value) >= min && Number(value) <= max
  );
}
