/**
 * What this process knows of the leases it took: enough to decide about a failed attempt without reading the record
 * again. Only a memory: the statement that uses it checks that it still holds.
 */
import type { HandlePayload, LeaseId } from "@flowfabric/core";
import type { AttemptFacts } from "@flowfabric/core/sql";

export interface HeldLease extends AttemptFacts {
  readonly policy: string | null;
  readonly retries: number;
}

/** Leases that lapse are never taken out; the oldest go. */
const LEASES_MAX = 10_000;

export class HeldLeases {
  readonly #leases = new Map<LeaseId, HeldLease>();

  remember(leaseId: LeaseId, lease: HeldLease): void {
    if (this.#leases.size >= LEASES_MAX)
      for (const oldest of this.#leases.keys()) {
        this.#leases.delete(oldest);
        break;
      }
    this.#leases.set(leaseId, lease);
  }

  find({ leaseId }: HandlePayload): HeldLease | undefined {
    return this.#leases.get(leaseId);
  }

  forget({ leaseId }: HandlePayload): void {
    this.#leases.delete(leaseId);
  }
}
