/**
 * What this process knows of the streams it writes: enough to append without reading first. Only a memory: the statement
 * that uses it checks that it still holds.
 */
import type { HandlePayload, LeaseId } from "@flowfabric/core";

export interface HeldStream {
  /** How many durable frames are kept. */
  readonly durableKept: number;
  readonly summary: HeldSummary | undefined;
}

export interface HeldSummary {
  readonly version: number;
  readonly document: string;
}

/** Summed over what is remembered, in characters; of the leases that lapse nobody tells, so the oldest go. */
const REMEMBERED_MAX = 32 * 1_048_576;
const WEIGHT_OF_ONE = 1_000;

export class HeldStreams {
  readonly #streams = new Map<LeaseId, HeldStream>();
  #weight = 0;

  remember(own: HandlePayload, stream: HeldStream): void {
    this.forget(own);
    this.#streams.set(own.leaseId, stream);
    this.#weight += weightOf(stream);
    for (const [oldest, one] of this.#streams) {
      if (this.#weight <= REMEMBERED_MAX) return;
      this.#streams.delete(oldest);
      this.#weight -= weightOf(one);
    }
  }

  find({ leaseId }: HandlePayload): HeldStream | undefined {
    return this.#streams.get(leaseId);
  }

  forget({ leaseId }: HandlePayload): void {
    const stream = this.#streams.get(leaseId);
    if (stream === undefined) return;
    this.#streams.delete(leaseId);
    this.#weight -= weightOf(stream);
  }
}

function weightOf({ summary }: HeldStream): number {
  return WEIGHT_OF_ONE + (summary?.document.length ?? 0);
}
