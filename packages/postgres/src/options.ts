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
import type { Pool } from "pg";
import { z } from "zod";

const positive = z.number().int().min(1);

export const PostgresOptions = z.strictObject({
  /** `postgres://user@host/database`. Either this or `pool`. */
  connectionString: z.string().min(1).optional(),
  /** A pool of the caller's: used, never closed. */
  pool: z
    .custom<Pool>(
      (value) =>
        typeof value === "object" && value !== null && "connect" in value,
      "must be a pg.Pool",
    )
    .optional(),
  /** All tables live in it; made where it does not exist. Several stores side by side have one each. */
  schema: z
    .string()
    .regex(
      /^[a-z_][a-z0-9_]{0,47}$/,
      "lower-case letters, digits and _, at most 48",
    )
    .default("flowfabric"),
  /** A direct connection for LISTEN, where the other goes through a pooler that shares connections. */
  listenConnectionString: z.string().min(1).optional(),
  /** Connections of a pool made here, beside the one that listens. */
  maxConnections: positive.default(10),
  /**
   * How long server and client wait for each other, in milliseconds: for a connection, for the answer to a statement, and
   * for the next statement of a transaction. Beyond that the connection counts as lost, for a network that died silently
   * tells nobody. An idle connection is closed after as long, or ten seconds where that is less; what the server has not
   * heard of for this long beyond that, it ends itself.
   */
  answerTimeoutMs: z
    .number()
    .int()
    .min(100)
    .max(2 ** 31 - 1)
    .default(30_000),
  /** `never`: for poolers in transaction mode that know no prepared statements. */
  preparedStatements: z.enum(["auto", "never"]).default("auto"),
  /** Hear of other processes' work by LISTEN. Off: waiting calls look again every second; outcomes are the same. */
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
});
export type PostgresOptions = z.input<typeof PostgresOptions>;
export type ParsedOptions = z.output<typeof PostgresOptions>;

/** @throws EngineError `invalid_input` naming the option */
export function parseOptions(options: PostgresOptions): ParsedOptions {
  const parsed = parseInput(PostgresOptions, options);
  if ((parsed.connectionString === undefined) === (parsed.pool === undefined))
    throw invalidInput(
      "connectionString",
      "give either a connectionString or a pool",
    );
  return parsed;
}
