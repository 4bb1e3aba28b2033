/** Payloads as they are typed: JSON, a file, or stdin. */
import { readFileSync } from "node:fs";

import { UsageError } from "./errors.js";

/**
 * The bytes as given: a number such as 1.0 must not come out as 1.
 * @param option what it was given with, for messages
 * @throws UsageError where it is not JSON, unless it is to be taken `raw`
 */
export function readPayload(
  option: string,
  given: string | undefined,
  { raw }: { readonly raw?: true },
): Uint8Array | undefined {
  if (given === undefined) return undefined;
  const [bytes, source] = sourceOf(option, given);
  if (raw) return bytes;
  try {
    JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new UsageError(
      `${source} is not JSON (${error instanceof Error ? error.message : String(error)}); correct it, or pass --raw to send it as it is`,
      { cause: error },
    );
  }
  return bytes;
}

function sourceOf(option: string, given: string): [Buffer, string] {
  if (given === "-") return [readFileSync(0), `what stdin gave for ${option}`];
  if (!given.startsWith("@"))
    return [Buffer.from(given), `${option} '${shorten(given)}'`];
  const path = given.slice(1);
  try {
    return [readFileSync(path), `the file '${path}' of ${option}`];
  } catch (error) {
    throw new UsageError(
      `cannot read the file '${path}' of ${option} (${error instanceof Error ? error.message : String(error)})`,
      { cause: error },
    );
  }
}

function shorten(text: string): string {
  return text.length <= 60 ? text : `${text.slice(0, 57)}…`;
}
