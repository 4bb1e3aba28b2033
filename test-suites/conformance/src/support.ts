/** What an operation that a backend does not offer must answer: `unavailable`, whatever the arguments. */
import type { EngineBackend, SupportFlag } from "@flowfabric/core";

import { expectRefused } from "./assertions.js";
import { UNKNOWN_ID, WORKER } from "./builders.js";

const LEASE_TTL_MS = 30_000;
const ref = { executionId: UNKNOWN_ID };

/** The smallest valid call per flag; none where the flag names no operation. */
const CALLS: {
  readonly [F in SupportFlag]?: (backend: EngineBackend) => unknown;
} = {
  submitMany: (b) => b.submitMany({ items: [{ executionKind: "k" }] }),
  cancelExecution: (b) => b.cancelExecution({ ...ref, reason: "r" }),
  changePriority: (b) => b.changePriority({ ...ref, newPriority: 1 }),
  replayExecution: (b) => b.replayExecution(ref),
  holdExecution: (b) => b.holdExecution(ref),
  readExecutionState: (b) => b.readExecutionState(ref),
  readExecutionInfo: (b) => b.readExecutionInfo(ref),
  getExecutionResult: (b) => b.getExecutionResult(ref),
  tagSearch: (b) =>
    b.countByTags({ match: { all: [{ key: "a", value: "" }] } }),
  claimMany: (b) =>
    b.claimMany({
      ...WORKER,
      lanes: ["default"],
      max: 1,
      leaseTtlMs: LEASE_TTL_MS,
    }),
  claimForWorker: (b) =>
    b.claimForWorker({ ...WORKER, laneId: "default", grantTtlMs: 1_000 }),
  blockExecutionForAdmission: (b) =>
    b.blockExecutionForAdmission({ ...ref, reason: "waiting_for_budget" }),
  explainCapabilityMismatch: (b) => b.explainCapabilityMismatch(ref),
  revokeLease: (b) => b.revokeLease(ref),
  issueReclaimGrant: (b) =>
    b.issueReclaimGrant({ ...ref, ...WORKER, grantTtlMs: 1_000 }),
  listExpiredLeases: (b) => b.listExpiredLeases({}),
  registerWorker: (b) =>
    b.registerWorker({
      ...WORKER,
      lanes: ["default"],
      livenessTtlMs: 1_000,
      namespace: "default",
    }),
  heartbeatWorker: (b) =>
    b.heartbeatWorker({
      workerInstanceId: WORKER.workerInstanceId,
      namespace: "default",
    }),
  markWorkerDead: (b) =>
    b.markWorkerDead({
      workerInstanceId: WORKER.workerInstanceId,
      namespace: "default",
      reason: "r",
    }),
  listWorkers: (b) => b.listWorkers({}),
  watchWorker: (b) =>
    b
      .watchWorker({ workerInstanceId: WORKER.workerInstanceId })
      [Symbol.asyncIterator]()
      .next(),
  executionEvents: (b) => b.readEvents(ref),
  subscribeCompletion: (b) => b.subscribeCompletion({}),
  subscribeLeaseHistory: (b) => b.subscribeLeaseHistory({}),
  callerTransaction: (b) =>
    b.createExecutionInTransaction({ executionKind: "k", transaction: {} }),
};

export async function expectUnavailable(
  backend: EngineBackend,
  flag: SupportFlag,
): Promise<void> {
  const call = CALLS[flag];
  if (call === undefined) return;
  // The call itself may throw: some operations are synchronous.
  await expectRefused((async () => await call(backend))(), "unavailable");
}
