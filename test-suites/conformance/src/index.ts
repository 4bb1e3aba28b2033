/**
 * Proves that a backend does what the contract says: `conformance(harness)` in a vitest file registers every case. A new
 * backend may begin with single groups.
 */
import { claimsConformance } from "./claims.js";
import { executionsConformance } from "./executions.js";
import { grantsConformance } from "./grants.js";
import type { BackendHarness, Group, Registrar } from "./harness.js";
import { leasesConformance } from "./leases.js";
import { reclaimConformance } from "./reclaim.js";

export type {
  BackendHarness,
  CallerTransaction,
  Group,
  OpenOptions,
  Registrar,
} from "./harness.js";
export {
  claimsConformance,
  executionsConformance,
  grantsConformance,
  leasesConformance,
  reclaimConformance,
};

const GROUPS: readonly Group[] = [
  executionsConformance,
  claimsConformance,
  grantsConformance,
  leasesConformance,
  reclaimConformance,
];

/** Every case of every group. */
export function conformance(
  harness: BackendHarness,
  registrar?: Registrar,
): void {
  for (const register of GROUPS) register(harness, registrar);
}
