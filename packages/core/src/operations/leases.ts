import { z } from "zod";

import { Handle } from "../handles.js";
import { LeaseId } from "../ids.js";
import { ExecutionRef, LeaseFence, LeaseTtlMs, Reason } from "./inputs.js";

export const HandleInput = z.object({ handle: Handle });
export type HandleInput = z.input<typeof HandleInput>;

export const RenewLeaseInput = ExecutionRef.extend({
  attemptIndex: z.number().int().min(0),
  fence: LeaseFence.default({}),
  leaseTtlMs: LeaseTtlMs,
});
export type RenewLeaseInput = z.input<typeof RenewLeaseInput>;

export const RevokeLeaseInput = ExecutionRef.extend({
  /** Revoke only this lease. */
  expectedLeaseId: LeaseId.optional(),
  reason: Reason.default("operator"),
  /** Keep it from being taken over until `unholdExecution`. */
  hold: z.boolean().default(false),
});
export type RevokeLeaseInput = z.input<typeof RevokeLeaseInput>;

/**
 * Keeping and taking away leases.
 *
 * Every operation that needs a lease checks the fence in this order, in the same step as its write:
 * `execution_not_found`; `partial_fence_triple` / `fence_required`; not active `execution_not_active`; revoked
 * `lease_revoked`; expiry at or before now, or marked lapsed, `lease_expired` (and the lapse is written, even
 * though the call is refused); lease id, epoch or attempt id differ `stale_lease`. A handle is checked before
 * all of these: undecodable `corruption`, made elsewhere `handle_from_other_backend`, kind `suspended` `stale_lease`.
 */
export interface LeaseOperations {
  /**
   * Extends the lease by the TTL of its handle, counted from now; id and epoch stay.
   *
   * Repeat: extends again. Errors that end renewal for good: {@link stopsRenewal}.
   */
  renew(
    input: HandleInput,
  ): Promise<{ readonly expiresAtMs: number; readonly leaseEpoch: number }>;

  /** As {@link renew}, by fence and with a TTL of its own; a differing attempt index is `stale_lease`. */
  renewLease(
    input: RenewLeaseInput,
  ): Promise<{ readonly kind: "renewed"; readonly expiresAtMs: number }>;

  /**
   * Takes the lease away. Not terminal: the execution is offered to workers again at once, or after
   * `unholdExecution` with `hold`. Its holder hears by push. A lapsed lease that nobody marked is revocable.
   *
   * Atomic: ownership, attempt (interrupted) and the `lease_revoked` event.
   * Checks: `execution_not_found`, `execution_not_active`, another `expectedLeaseId` `stale_lease`.
   * Repeat: `alreadySatisfied`, `already_revoked`; on a lapse already marked `already_expired`.
   */
  revokeLease(input: RevokeLeaseInput): Promise<
    | {
        readonly kind: "revoked";
        readonly leaseId: LeaseId;
        readonly leaseEpoch: number;
      }
    | {
        readonly kind: "alreadySatisfied";
        readonly reason: "already_revoked" | "already_expired";
      }
  >;
}
