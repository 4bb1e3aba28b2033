/** What a worker may be told, and what is wrong with it. Checked before any I/O. */
import {
  DEFAULT_LANE,
  DEFAULT_NAMESPACE,
  digest8,
  identityFault,
  laneFault,
  LEASE_TTL_MS_DEFAULT,
  newUuid,
  parseCapabilities,
  type EngineBackend,
  type LaneId,
  type Namespace,
  type PartitionConfig,
  type WorkerId,
  type WorkerInstanceId,
} from "@flowfabric/core";

import { jsonCodec, type Codec } from "./codec.js";
import { ConfigError } from "./errors.js";
import { silentLogger, type Logger } from "./logger.js";
import { signingKeyOf, type WaitpointHmac } from "./signing-key.js";

export interface ConnectOptions {
  /** An opened store; the only required field. Whoever opened it closes it. */
  readonly backend: EngineBackend;
  /** Tenant boundary; default `default`. */
  readonly namespace?: string | undefined;
  /** Logical pool, shared by replicas; 1–256 bytes without white space; default `worker`. */
  readonly workerId?: string | undefined;
  /** This process; unique among live ones of the namespace; minted by default. */
  readonly workerInstanceId?: string | undefined;
  /** Served in turn; each 1–64 bytes of printable ASCII; default `["default"]`. */
  readonly lanes?: readonly string[] | undefined;
  /** Tokens that work may require; at most 256 and 4 096 bytes joined; default none. */
  readonly capabilities?: readonly string[] | undefined;
  /** How long a silent worker keeps its work, in milliseconds; at least 1 000, default 30 000. */
  readonly leaseTtlMs?: number | undefined;
  /** How many tasks are held at once; below 1 counts as 1, the default. */
  readonly maxConcurrentTasks?: number | undefined;
  /** Longest sleep between claims where push is off, in milliseconds; default 1 000. */
  readonly claimPollIntervalMs?: number | undefined;
  /** Whether an idle claim parks until work appears; `false` polls. Default `true`; same outcomes. */
  readonly push?: boolean | undefined;
  /** Given: must be what the store was set up with. Default: the store's. */
  readonly partitionConfig?: PartitionConfig | undefined;
  /** Default: JSON. A definition's own goes first. */
  readonly codec?: Codec | undefined;
  /** The first key of a store that has none to sign waitpoint tokens with; default: a random one. */
  readonly waitpointHmac?: WaitpointHmac | undefined;
  /** Default: silent. */
  readonly logger?: Logger | undefined;
}

export interface WorkerConfig {
  readonly namespace: Namespace;
  readonly workerId: WorkerId;
  readonly workerInstanceId: WorkerInstanceId;
  readonly lanes: readonly LaneId[];
  /** Sorted, without repeats. */
  readonly capabilities: readonly string[];
  /** Names the capability set in log lines. */
  readonly capabilityDigest: string;
  readonly leaseTtlMs: number;
  readonly maxConcurrentTasks: number;
  readonly claimPollIntervalMs: number;
  readonly push: boolean;
  readonly codec: Codec;
  readonly logger: Logger;
}

const CONTEXT = "worker_config";
const LEASE_TTL_MS_MIN = 1_000;
const LEASE_TTL_MS_MAX = 86_400_000;

/** @throws ConfigError `worker_config` with the field in snake case; without lanes, no field */
export function parseWorkerConfig(options: ConnectOptions): WorkerConfig {
  if (typeof options.backend?.claimMany !== "function")
    throw new ConfigError(CONTEXT, "give an opened store", "backend");
  const workerId = identity(options.workerId ?? "worker", "worker_id");
  const capabilities = parseCapabilities(options.capabilities ?? [], "worker");
  if (!Array.isArray(capabilities))
    throw new ConfigError(CONTEXT, capabilities.detail.reason, "capabilities");
  // Only looked at: a configuration is shown to people, a key is not.
  signingKeyOf(options.waitpointHmac, CONTEXT);
  const concurrency = integer(
    options.maxConcurrentTasks ?? 1,
    "max_concurrent_tasks",
    -Infinity,
    Number.MAX_SAFE_INTEGER,
  );
  return {
    namespace: identity(
      options.namespace ?? DEFAULT_NAMESPACE,
      "namespace",
    ) as Namespace,
    workerId: workerId as WorkerId,
    workerInstanceId: identity(
      options.workerInstanceId ?? `${workerId.slice(0, 200)}-${newUuid()}`,
      "worker_instance_id",
    ) as WorkerInstanceId,
    lanes: parseLanes(options.lanes ?? [DEFAULT_LANE]),
    capabilities,
    capabilityDigest: digest8(capabilities.join(",")),
    leaseTtlMs: integer(
      options.leaseTtlMs ?? LEASE_TTL_MS_DEFAULT,
      "lease_ttl_ms",
      LEASE_TTL_MS_MIN,
      LEASE_TTL_MS_MAX,
    ),
    maxConcurrentTasks: Math.max(1, concurrency),
    claimPollIntervalMs: integer(
      options.claimPollIntervalMs ?? 1_000,
      "claim_poll_interval_ms",
      1,
      3_600_000,
    ),
    push: options.push ?? true,
    codec: options.codec ?? jsonCodec,
    logger: options.logger ?? silentLogger,
  };
}

/** @throws ConfigError `worker_config` naming the field */
export function integer(
  value: number,
  field: string,
  min: number,
  max: number,
): number {
  if (!Number.isInteger(value) || value < min || value > max)
    throw new ConfigError(
      CONTEXT,
      `must be a whole number${min === -Infinity ? "" : ` from ${min} to ${max}`}, got ${value}`,
      field,
    );
  return value;
}

function identity(text: string, field: string): string {
  const fault =
    typeof text === "string" ? identityFault(text) : "must be a string";
  if (fault !== undefined) throw new ConfigError(CONTEXT, fault, field);
  return text;
}

function parseLanes(lanes: readonly string[]): LaneId[] {
  if (lanes.length === 0)
    throw new ConfigError(CONTEXT, "at least one lane is required");
  for (const lane of lanes) {
    const fault =
      typeof lane === "string" ? laneFault(lane) : "must be a string";
    if (fault !== undefined)
      throw new ConfigError(CONTEXT, `lane id ${fault}`, "lanes");
  }
  return [...new Set(lanes)] as LaneId[];
}
