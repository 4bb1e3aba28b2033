/** What a caller may choose when opening a store, checked before anything is touched. */
import {
  DEFAULT_PARTITIONS,
  EVENTS_PER_EXECUTION_MAX,
  FEED_EVENTS_MAX,
  FEED_RETENTION_MS_DEFAULT,
  parseInput,
  PARKED_TAILS_MAX,
  PAYLOAD_MAX_BYTES_CEILING,
  PAYLOAD_MAX_BYTES_DEFAULT,
  RETENTION_MS_DEFAULT,
  type SoloPartitioner,
} from "@flowfabric/core";
import { z } from "zod";

const positive = z.number().int().min(1);

export const SqliteOptions = z.strictObject({
  /** A file, made where it does not exist (its folder must), or `:memory:`. Several processes of one host may share it. */
  path: z.string().min(1, "give a file path or ':memory:'"),
  /**
   * What survives. `full` (default): once a call has answered, its effect survives a killed process and a power
   * failure. `normal`: it survives a killed process; a power failure or kernel crash may take back the last
   * moments, never anything half.
   */
  durability: z.enum(["full", "normal"]).default("full"),
  /** How long a call may wait for other processes' writes, in milliseconds. Then it is refused with `retry_exhausted`. */
  busyTimeoutMs: z.number().int().min(0).default(10_000),
  /** Wake waiting calls by watching the file. Off: they look again every second; outcomes are the same. */
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
  /** Added to the clock at every reading. For tests; may be changed while open. */
  clock: z
    .custom<{ offsetMs: number }>(
      (value) => typeof value === "object" && value !== null,
    )
    .optional(),
});
export type SqliteOptions = z.input<typeof SqliteOptions>;
export type ParsedOptions = z.output<typeof SqliteOptions>;

/** @throws EngineError `invalid_input` naming the option */
export function parseOptions(options: SqliteOptions): ParsedOptions {
  return parseInput(SqliteOptions, options);
}
