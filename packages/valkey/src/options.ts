/** What a caller may choose when opening a store, checked before anything is touched. */
import {
  DEFAULT_PARTITIONS,
  EVENTS_PER_EXECUTION_MAX,
  FEED_EVENTS_MAX,
  FEED_RETENTION_MS_DEFAULT,
  invalidInput,
  parseInput,
  PARKED_TAILS_MAX,
  PAYLOAD_MAX_BYTES_CEILING,
  PAYLOAD_MAX_BYTES_DEFAULT,
  RETENTION_MS_DEFAULT,
  type SoloPartitioner,
} from "@flowfabric/core";
import type { Cluster, ClusterOptions, Redis, RedisOptions } from "ioredis";
import { z } from "zod";

const positive = z.number().int().min(1);
const object = <T>(message: string) =>
  z.custom<T>((value) => typeof value === "object" && value !== null, message);

export const ValkeyOptions = z.strictObject({
  /** `valkey://`, `redis://`, or with TLS `valkeys://`, `rediss://`. One of this, `clusterNodes` and `client`. */
  url: z.string().min(1).optional(),
  /** Some masters of a cluster; the others are found from there. */
  clusterNodes: z
    .array(z.object({ host: z.string().min(1), port: positive.max(65_535) }))
    .min(1)
    .optional(),
  /** An ioredis client of the caller's: used, never closed. Waiting needs a connection more, made by `duplicate()`. */
  client: object<Redis | Cluster>("must be an ioredis client").optional(),
  /** Passed on to ioredis, with `url` or, for a cluster, its nodes: passwords, TLS, Sentinel. */
  redisOptions: object<RedisOptions>("must be ioredis options").optional(),
  clusterOptions: object<ClusterOptions>(
    "must be ioredis cluster options",
  ).optional(),
  /** Begins all keys. Several stores side by side have one each. */
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9_.-]{1,48}$/, "letters, digits, _ . and -, at most 48")
    .default("ff"),
  /**
   * Into how many parts a cluster's store is divided, each on one node. Fixed at first boot; default 16 in a cluster, and
   * one where there is one server. At most 40: cursors of lists hold a place in each.
   */
  cells: positive.max(40).optional(),
  /**
   * Submissions and ends wait until so many replicas have them (`WAIT`), or fail after the time, at most half of
   * `answerTimeoutMs`. With `fsync` until they have them on disk, and the server itself (`WAITAOF`).
   */
  waitForReplicas: z
    .strictObject({
      replicas: z.number().int().min(0),
      timeoutMs: positive.default(1_000),
      fsync: z.boolean().default(false),
    })
    .refine(
      ({ replicas, fsync }) => replicas > 0 || fsync,
      "without fsync there is nothing to wait for but replicas",
    )
    .optional(),
  /** How long an answer may take before the connection counts as lost, in milliseconds. */
  answerTimeoutMs: z
    .number()
    .int()
    .min(100)
    .max(2 ** 31 - 1)
    .default(30_000),
  /** Hear of other processes' work by pub/sub. Off: waiting calls look again every second; outcomes are the same. */
  push: z.boolean().default(true),
  /** Largest input or result in bytes. */
  maxPayloadBytes: positive
    .max(PAYLOAD_MAX_BYTES_CEILING)
    .default(PAYLOAD_MAX_BYTES_DEFAULT),
  /** How long finished executions are kept, in milliseconds; an execution's own policy wins. */
  retentionMs: z.number().int().min(0).default(RETENTION_MS_DEFAULT),
  /** How long, and how many, events stay in the feeds. */
  feedRetentionMs: z.number().int().min(0).default(FEED_RETENTION_MS_DEFAULT),
  feedEventsMax: positive.default(FEED_EVENTS_MAX),
  /** Events shown per execution, beside its creation and its ends. */
  eventsPerExecution: z
    .number()
    .int()
    .min(100)
    .max(10_000)
    .default(EVENTS_PER_EXECUTION_MAX),
  /** Tails of streams that this process lets wait at once; more are refused with `resource_exhausted`. */
  parkedTailsMax: positive.default(PARKED_TAILS_MAX),
  /** Fixed at first boot; a later difference is refused. */
  partitions: z
    .strictObject({
      flow: positive.max(65_536),
      budget: positive,
      quota: positive,
    })
    .default(DEFAULT_PARTITIONS),
  partitioner: z
    .custom<SoloPartitioner>(
      (value) => typeof value === "function",
      "must be a function",
    )
    .optional(),
  /** @internal A clock with an offset, for tests. */
  testClock: z.boolean().default(false),
});
export type ValkeyOptions = z.input<typeof ValkeyOptions>;
export type ParsedOptions = z.output<typeof ValkeyOptions>;

/** @throws EngineError `invalid_input` naming the option */
export function parseOptions(options: ValkeyOptions): ParsedOptions {
  const parsed = parseInput(ValkeyOptions, options);
  const given = [parsed.url, parsed.clusterNodes, parsed.client].filter(
    (way) => way !== undefined,
  );
  if (given.length !== 1)
    throw invalidInput("url", "give one of url, clusterNodes and client");
  const { waitForReplicas, answerTimeoutMs } = parsed;
  if (
    waitForReplicas !== undefined &&
    waitForReplicas.timeoutMs > answerTimeoutMs / 2
  )
    throw invalidInput(
      "waitForReplicas",
      "timeoutMs may be half of answerTimeoutMs at most, for an answer that takes that long is given up",
    );
  return parsed;
}
