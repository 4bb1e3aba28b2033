/**
 * Operations that a store may not offer. With a flag off, each of them must answer `unavailable`; a case that comes to one
 * has then seen all there is to see.
 */
import {
  type EngineBackend,
  type EngineOperations,
  type SupportFlag,
  isEngineError,
} from "@flowfabric/core";

type OperationName = keyof EngineOperations;

const OPERATIONS_OF: {
  readonly [F in SupportFlag]: readonly OperationName[];
} = {
  submitMany: ["submitMany"],
  cancelExecution: ["cancelExecution"],
  changePriority: ["changePriority"],
  replayExecution: ["replayExecution"],
  holdExecution: ["holdExecution", "unholdExecution"],
  readExecutionState: ["readExecutionState"],
  readExecutionInfo: ["readExecutionInfo"],
  getExecutionResult: ["getExecutionResult"],
  tagSearch: ["searchByTags", "countByTags"],
  claimMany: ["claimMany"],
  claimForWorker: ["claimForWorker"],
  blockExecutionForAdmission: [
    "blockExecutionForAdmission",
    "blockRoute",
    "unblockExecution",
  ],
  explainCapabilityMismatch: ["explainCapabilityMismatch"],
  revokeLease: ["revokeLease"],
  issueReclaimGrant: ["issueReclaimGrant", "reclaimExecution"],
  listExpiredLeases: ["listExpiredLeases"],
  completeMany: ["completeMany"],
  completeAndClaim: ["completeAndClaim"],
  registerWorker: ["registerWorker", "deregisterWorker"],
  heartbeatWorker: ["heartbeatWorker"],
  markWorkerDead: ["markWorkerDead"],
  listWorkers: ["listWorkers"],
  watchWorker: ["watchWorker"],
  executionEvents: ["readEvents", "tailEvents"],
  subscribeCompletion: ["subscribeCompletion"],
  subscribeLeaseHistory: ["subscribeLeaseHistory"],
  subscribeSignalDelivery: ["subscribeSignalDelivery"],
  subscribeInstanceTags: ["subscribeInstanceTags"],
  listPendingWaitpoints: ["listPendingWaitpoints"],
  seedWaitpointHmacSecret: ["seedWaitpointHmacSecret"],
  rotateWaitpointHmacSecretAll: ["rotateWaitpointHmacSecretAll"],
  attemptStreams: [
    "appendFrame",
    "appendFrames",
    "readStream",
    "tailStream",
    "readSummary",
  ],
  callerTransaction: ["createExecutionInTransaction"],
  // Verifying is always possible.
  concurrentCalls: [],
  prepare: [],
};

/** A case has come to an operation that is not offered, and was told so. */
export class NotOffered extends Error {
  constructor(operation: string) {
    super(`${operation} is not offered`);
    this.name = "NotOffered";
  }
}

interface Guarded {
  readonly backend: EngineBackend;
  /** Whether an operation that is not offered was called. */
  readonly wasTold: () => boolean;
}

/** The backend itself where it offers everything; else one that ends the case at what is missing. */
export function guarded(backend: EngineBackend): Guarded {
  const { supports } = backend.capabilities();
  const missing = new Set<PropertyKey>(
    Object.entries(OPERATIONS_OF).flatMap(([flag, operations]) =>
      supports[flag as SupportFlag] ? [] : operations,
    ),
  );
  if (missing.size === 0) return { backend, wasTold: () => false };

  let told = false;
  const guard = new Proxy(backend, {
    get(target, name) {
      const found: unknown = Reflect.get(target, name);
      if (typeof found !== "function") return found;
      const operation = found as (input: unknown) => unknown;
      if (!missing.has(name)) return operation.bind(target);
      const refuse = async (input: unknown) => {
        const refused = await refusalOf(() => operation.call(target, input));
        if (!isEngineError(refused, "unavailable"))
          throw new Error(
            `${String(name)} is not offered, so it must answer unavailable`,
          );
        told = true;
        throw new NotOffered(String(name));
      };
      const tell = (input: unknown) => {
        const refusal = refuse(input);
        // A case that started several at once ends with the first; nobody awaits the others any more.
        refusal.catch(() => {});
        return refusal;
      };
      return name === "watchWorker"
        ? (input: unknown) => ({
            [Symbol.asyncIterator]: () => ({ next: () => tell(input) }),
          })
        : tell;
    },
  });
  return { backend: guard, wasTold: () => told };
}

/** What the call throws, at once, as a promise, or when the feed it answers is read; nothing where it answers. */
async function refusalOf(call: () => unknown): Promise<unknown> {
  try {
    const answer = await call();
    if (isFeed(answer)) await answer[Symbol.asyncIterator]().next();
    return undefined;
  } catch (error) {
    return error;
  }
}

function isFeed(answer: unknown): answer is AsyncIterable<unknown> {
  return (
    typeof answer === "object" &&
    answer !== null &&
    Symbol.asyncIterator in answer
  );
}

/** Every operation that may be missing, with its flag. */
export const OPTIONAL_OPERATIONS = Object.entries(OPERATIONS_OF).flatMap(
  ([flag, operations]) =>
    operations.map((operation) => ({ flag: flag as SupportFlag, operation })),
);
