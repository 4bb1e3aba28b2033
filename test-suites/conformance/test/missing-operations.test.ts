/** A backend may leave operations out, if it says so. */
import { SUPPORT_FLAGS, type EngineBackend } from "@flowfabric/core";
import { conformance, type BackendHarness } from "@flowfabric/conformance";
import { engineError } from "@flowfabric/core";
import { expect, test } from "vitest";

import { sqliteHarness } from "../../../packages/sqlite/test/harness.js";
import { casesOf, firstFailure } from "./run-groups.js";

process.env["FLOWFABRIC_TEST_SCALE"] = "0.05";
process.env["FLOWFABRIC_TEST_SHRINK"] = "off";

const TIMEOUT_MS = 300_000;
const OPTIONAL = [
  "submitMany",
  "cancelExecution",
  "changePriority",
  "replayExecution",
  "holdExecution",
  "unholdExecution",
  "readExecutionState",
  "readExecutionInfo",
  "getExecutionResult",
  "searchByTags",
  "countByTags",
  "claimMany",
  "claimForWorker",
  "blockExecutionForAdmission",
  "blockRoute",
  "unblockExecution",
  "explainCapabilityMismatch",
  "revokeLease",
  "issueReclaimGrant",
  "reclaimExecution",
  "listExpiredLeases",
  "completeMany",
  "completeAndClaim",
  "registerWorker",
  "deregisterWorker",
  "heartbeatWorker",
  "markWorkerDead",
  "listWorkers",
  "watchWorker",
  "readEvents",
  "tailEvents",
  "subscribeCompletion",
  "subscribeLeaseHistory",
  "subscribeSignalDelivery",
  "subscribeInstanceTags",
  "listPendingWaitpoints",
  "seedWaitpointHmacSecret",
  "rotateWaitpointHmacSecretAll",
  "appendFrame",
  "appendFrames",
  "readStream",
  "tailStream",
  "readSummary",
  "createExecutionInTransaction",
] as const satisfies (keyof EngineBackend)[];

/** A harness whose backends say that they offer nothing optional, and refuse it or not. */
function bare(refuses: boolean): BackendHarness {
  const sound = sqliteHarness();
  const inner = new WeakMap<EngineBackend, EngineBackend>();
  const off = Object.fromEntries(SUPPORT_FLAGS.map((flag) => [flag, false]));
  const strip = (backend: EngineBackend): EngineBackend => {
    const refusals = Object.fromEntries(
      OPTIONAL.map((op) => [
        op,
        () => {
          throw engineError("unavailable", { op });
        },
      ]),
    );
    const stripped = {
      ...backend,
      ...(refuses ? refusals : {}),
      capabilities: () => ({ ...backend.capabilities(), supports: off }),
    } as unknown as EngineBackend;
    inner.set(stripped, backend);
    return stripped;
  };
  return {
    name: "bare",
    open: async (options) => strip(await sound.open(options)),
    passTime: (backend, ms) => sound.passTime(inner.get(backend)!, ms),
  };
}

test(
  "a backend that offers nothing optional, on one connection, passes what is left",
  async () => {
    const failure = await firstFailure(
      casesOf(
        [(harness, registrar) => conformance(harness, registrar)],
        bare(true),
      ),
    );
    expect(failure?.error, failure?.name).toBeUndefined();
  },
  TIMEOUT_MS,
);

test(
  "whoever offers an operation must not deny it",
  async () => {
    const cases = casesOf(
      [(harness, registrar) => conformance(harness, registrar)],
      bare(false),
    );
    expect(await firstFailure(cases)).toBeDefined();
  },
  TIMEOUT_MS,
);
