/** Failures of the command itself, and the one line that each failure becomes. */

import { isEngineError } from "@flowfabric/core";

/** The call as typed cannot work: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** The call was understood and could not be done: exit code 1. */
export class RefusedError extends Error {
  override readonly name = "RefusedError";
}

export const EXIT_REFUSED = 1;
export const EXIT_USAGE = 2;
/** As shells have it: 128 + SIGINT. */
export const EXIT_INTERRUPTED = 130;

export function exitCodeOf(error: unknown): number {
  return error instanceof UsageError ? EXIT_USAGE : EXIT_REFUSED;
}

/** One line, whatever was thrown; validators of arguments write several. */
export function describeFailure(error: unknown): string {
  return messageOf(error)
    .trim()
    .replaceAll(/\s*\n\s*/g, "; ");
}

function messageOf(error: unknown): string {
  if (!isEngineError(error))
    return error instanceof Error ? error.message : String(error);
  // Where the detail says it in words of its own, the table's sentence for all cases would only hide it.
  const { reason, message } = error.detail as {
    reason?: unknown;
    message?: unknown;
  };
  const told = reason ?? message;
  return typeof told === "string" ? `${error.code}: ${told}` : error.message;
}
