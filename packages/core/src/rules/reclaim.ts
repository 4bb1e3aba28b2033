/** When taking over lost work stops. Source: specification 01 §8.2, 00 D7. */
import { MAX_RECLAIMS_DEFAULT } from "../limits.js";

/** Policy value, else the call's, else 100. */
export function effectiveReclaimCap(
  policyCap: number | undefined,
  callCap?: number,
): number {
  return policyCap ?? callCap ?? MAX_RECLAIMS_DEFAULT;
}

export function atReclaimCap(
  reclaims: number,
  policyCap: number | undefined,
  callCap?: number,
): boolean {
  return reclaims >= effectiveReclaimCap(policyCap, callCap);
}
