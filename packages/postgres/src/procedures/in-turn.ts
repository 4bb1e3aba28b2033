/**
 * Appends of one execution in the order of their calls: while one is on its way the next ones gather, and leave together
 * as if they were one call. Appends of different executions do not wait for each other.
 */
import {
  BATCH_ITEMS_MAX,
  type AppendedFrame,
  type HandlePayload,
} from "@flowfabric/core";

import type { Append } from "./quick-streams.js";

interface Waiting {
  readonly append: Append;
  readonly resolve: (answer: AppendedFrame[]) => void;
  readonly reject: (error: unknown) => void;
}

export interface AppendWays {
  /** @returns nothing where it has to go the other way */
  readonly quickly: (append: Append) => Promise<AppendedFrame[] | undefined>;
  readonly slowly: (append: Append) => Promise<AppendedFrame[]>;
}

/** What may leave together with others; one call may be larger. */
const BYTES_MAX = 1_048_576;

export class InTurn {
  readonly #ways: AppendWays;
  readonly #lines = new Map<string, Waiting[]>();

  constructor(ways: AppendWays) {
    this.#ways = ways;
  }

  append(append: Append): Promise<AppendedFrame[]> {
    return new Promise((resolve, reject) => {
      const waiting = { append, resolve, reject };
      const line = this.#lines.get(append.own.executionId);
      if (line !== undefined) {
        line.push(waiting);
        return;
      }
      this.#lines.set(append.own.executionId, [waiting]);
      // Behind this turn of the event loop, so that its other calls come along.
      setImmediate(() => void this.#serve(append.own.executionId));
    });
  }

  async #serve(executionId: string): Promise<void> {
    const line = this.#lines.get(executionId)!;
    while (line.length > 0) {
      const together = line.splice(0, countTogether(line));
      try {
        await this.#send(together);
      } catch (error) {
        for (const { reject } of together) reject(error);
      }
    }
    this.#lines.delete(executionId);
  }

  async #send(together: readonly Waiting[]): Promise<void> {
    const { own } = together[0]!.append;
    const frames = together.flatMap(({ append }) => append.frames);
    const appended = await this.#ways.quickly({ own, frames });
    if (appended === undefined) {
      // One of them may be refused: each for itself.
      for (const { append, resolve, reject } of together)
        await this.#ways.slowly(append).then(resolve, reject);
      return;
    }
    let at = 0;
    for (const { append, resolve } of together)
      resolve(appended.slice(at, (at += append.frames.length)));
  }
}

/** How many calls at the head of the line can be one. */
function countTogether(line: readonly Waiting[]): number {
  const first = line[0]!.append;
  let last = first;
  let frames = first.frames.length;
  let bytes = bytesOf(first);
  for (let count = 1; count < line.length; count++) {
    const { append } = line[count]!;
    frames += append.frames.length;
    bytes += bytesOf(append);
    if (
      frames > BATCH_ITEMS_MAX ||
      bytes > BYTES_MAX ||
      !isSameLease(first.own, append.own) ||
      !goesOn(last, append)
    )
      return count;
    last = append;
  }
  return line.length;
}

function bytesOf({ frames }: Append): number {
  return frames.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

function isSameLease(a: HandlePayload, b: HandlePayload): boolean {
  return (
    a.leaseId === b.leaseId &&
    a.leaseEpoch === b.leaseEpoch &&
    a.attemptId === b.attemptId &&
    a.attemptIndex === b.attemptIndex
  );
}

/** As within one call: all have numbers, rising, or none has. */
function goesOn(before: Append, next: Append): boolean {
  const last = before.frames.at(-1)!.seq;
  const first = next.frames[0]!.seq;
  if (last === undefined || first === undefined) return last === first;
  return first > last;
}
