/**
 * Proves that a backend does what the contract says: `conformance(harness)` in a vitest file registers every case. A new
 * backend may begin with single groups.
 */
import { adminConformance } from "./admin.js";
import { admissionConformance } from "./admission.js";
import { claimsConformance } from "./claims.js";
import { drivingConformance } from "./driving.js";
import { eventsConformance } from "./events.js";
import { executionsConformance } from "./executions.js";
import { grantsConformance } from "./grants.js";
import type { BackendHarness, Group, Registrar } from "./harness.js";
import { invariantsConformance } from "./invariants.js";
import { leasesConformance } from "./leases.js";
import { maintenanceConformance } from "./maintenance.js";
import { outcomesConformance } from "./outcomes.js";
import { readsConformance } from "./reads.js";
import { reclaimConformance } from "./reclaim.js";
import { secretsConformance } from "./secrets.js";
import { signalsConformance } from "./signals.js";
import { suspensionConformance } from "./suspension.js";
import { streamsConformance } from "./streams.js";
import { tagsConformance } from "./tags.js";
import { transitionsConformance } from "./transitions.js";
import { workersConformance } from "./workers.js";

export type {
  BackendHarness,
  CallerTransaction,
  Group,
  OpenOptions,
  Registrar,
} from "./harness.js";
export {
  adminConformance,
  admissionConformance,
  claimsConformance,
  drivingConformance,
  eventsConformance,
  executionsConformance,
  grantsConformance,
  invariantsConformance,
  leasesConformance,
  maintenanceConformance,
  outcomesConformance,
  readsConformance,
  reclaimConformance,
  secretsConformance,
  signalsConformance,
  suspensionConformance,
  streamsConformance,
  tagsConformance,
  transitionsConformance,
  workersConformance,
};

const GROUPS: readonly Group[] = [
  executionsConformance,
  readsConformance,
  tagsConformance,
  claimsConformance,
  grantsConformance,
  admissionConformance,
  leasesConformance,
  reclaimConformance,
  outcomesConformance,
  suspensionConformance,
  signalsConformance,
  secretsConformance,
  workersConformance,
  eventsConformance,
  streamsConformance,
  maintenanceConformance,
  adminConformance,
  drivingConformance,
  transitionsConformance,
  invariantsConformance,
];

/** Every case of every group. */
export function conformance(
  harness: BackendHarness,
  registrar?: Registrar,
): void {
  for (const register of GROUPS) register(harness, registrar);
}
