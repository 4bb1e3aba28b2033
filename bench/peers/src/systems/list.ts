/** What is measured. A system more is one entry more; nothing else names one. */
import type { StoreName } from "../stores/store.js";
import type { System } from "./system.js";

export interface MeasuredSystem {
  readonly name: string;
  readonly store: StoreName;
  readonly role: "ours" | "peer" | "floor";
  /** Whose versions are told. */
  readonly packages: readonly string[];
  /** What is set that its defaults do not say. */
  readonly settings: string;
  /** Of a variant: scenarios in which it does anything else than what it is a variant of. Of a floor: what it is the floor of. */
  readonly scenarios?: readonly string[];
  /** Whoever submits has to be the process that works: two of them fail each other's transactions. */
  readonly oneProcess?: boolean;
  /** What it does less than a durable engine: readers must know. */
  readonly lacks: string;
  load(): Promise<System>;
}

const FLOOR_SCENARIOS = ["submit", "drain", "pickup"];
const NOTHING = "nothing: fenced, with history, events and retention";
const NO_FENCE_ROWS_STAY = "no fence by epoch, no history of transitions";

export const SYSTEMS: readonly MeasuredSystem[] = [
  ours("FlowFabric", "Valkey", {}, "defaults"),
  {
    name: "BullMQ",
    store: "Valkey",
    role: "peer",
    packages: ["bullmq", "ioredis"],
    settings: "defaults: finished jobs stay",
    lacks: `${NO_FENCE_ROWS_STAY}; a lock token guards the end only`,
    load: async () => (await import("./bullmq.js")).bullmqOnValkey(),
  },
  {
    name: "FCALL floor",
    store: "Valkey",
    role: "floor",
    packages: ["ioredis"],
    settings:
      "one function per step, one job per call; idle handlers look every 5 ms",
    scenarios: FLOOR_SCENARIOS,
    lacks: "no retries, no history, no wake-ups, no take-over",
    load: async () => (await import("./floor-functions.js")).functionFloor(),
  },
  {
    name: "LPOP/INCR floor",
    store: "Valkey",
    role: "floor",
    packages: ["ioredis"],
    settings: "a list and a counter",
    scenarios: FLOOR_SCENARIOS,
    lacks: "everything: a job in the hands of a process that dies is lost",
    load: async () => (await import("./floor-lists.js")).listFloor(),
  },
  ours("FlowFabric", "Postgres", {}, "defaults"),
  {
    ...ours(
      "FlowFabric, prefetch 64",
      "Postgres",
      { prefetch: 64 },
      "prefetch: 64",
    ),
    scenarios: ["drain", "drain-by-four", "lanes"],
  },
  {
    name: "BullMQ",
    store: "Postgres",
    role: "peer",
    packages: ["bullmq", "pg"],
    settings: "createPostgresBackend, defaults: finished jobs stay",
    lacks: `${NO_FENCE_ROWS_STAY}; a lock token guards the end only`,
    load: async () => (await import("./bullmq.js")).bullmqOnPostgres(),
  },
  {
    name: "Graphile Worker",
    store: "Postgres",
    role: "peer",
    packages: ["graphile-worker", "pg"],
    settings: "defaults, a connection per handler",
    lacks: "no fence, no result, no history: the row is deleted at the end",
    load: async () => (await import("./graphile-worker.js")).graphileWorker(),
  },
  {
    name: "Graphile Worker, batched",
    store: "Postgres",
    role: "peer",
    packages: ["graphile-worker", "pg"],
    settings: "localQueue.size 64, completeJobBatchDelay 0",
    scenarios: ["drain", "drain-by-four", "pickup", "lanes"],
    lacks:
      "as Graphile Worker; what ended is told late, so that a crash runs it again",
    load: async () =>
      (await import("./graphile-worker.js")).graphileWorker({ batched: true }),
  },
  {
    name: "pg-boss",
    store: "Postgres",
    role: "peer",
    packages: ["pg-boss", "pg"],
    settings:
      "notify, batchSize 16 as 16 handlers at once, burstWhenBatchFull; finished jobs stay 7 days",
    lacks: `${NO_FENCE_ROWS_STAY}; one outcome for a batch`,
    load: async () => (await import("./pg-boss.js")).pgBoss(),
  },
  {
    name: "OpenWorkflow",
    store: "Postgres",
    role: "peer",
    packages: ["openworkflow", "postgres"],
    settings: "defaults; polls every 0.1 to 1 s",
    lacks: "fence by worker id; history of steps only; no bulk submission",
    load: async () => (await import("./openworkflow.js")).openWorkflow(),
  },
  {
    name: "DBOS",
    store: "Postgres",
    role: "peer",
    packages: ["@dbos-inc/dbos-sdk", "pg"],
    settings:
      "workerConcurrency 16, minPollingIntervalMs 10 (by default a queue is looked at once a second)",
    lacks:
      "no lease: an executor's work is recovered by its id; history of steps only; no bulk submission",
    load: async () => (await import("./dbos.js")).dbos(),
  },
  {
    name: "SKIP LOCKED floor",
    store: "Postgres",
    role: "floor",
    packages: ["pg"],
    settings:
      "a statement per step, 16 connections; idle handlers look every 20 ms",
    scenarios: FLOOR_SCENARIOS,
    lacks: "no retries, no history, no wake-ups, no take-over",
    load: async () =>
      (await import("./floor-skip-locked.js")).skipLockedFloor(),
  },
  ours("FlowFabric FULL", "SQLite", { durability: "full" }, "defaults"),
  ours(
    "FlowFabric NORMAL",
    "SQLite",
    { durability: "normal" },
    "durability: normal",
  ),
  {
    name: "OpenWorkflow",
    store: "SQLite",
    role: "peer",
    packages: ["openworkflow"],
    settings: "defaults: synchronous=FULL; polls every 0.1 to 1 s",
    oneProcess: true,
    lacks:
      "one process only; fence by worker id; history of steps only; no bulk submission",
    load: async () => (await import("./openworkflow.js")).openWorkflow(),
  },
  plainLoop("Plain loop FULL", "full"),
  plainLoop("Plain loop NORMAL", "normal"),
];

/** As arguments name it: `FlowFabric` alone means it on every store. */
export function systemsNamed(name: string): MeasuredSystem[] {
  const wanted = name.toLowerCase();
  const found = SYSTEMS.filter((system) =>
    [system.name, system.store, fullName(system)].some(
      (known) => known.toLowerCase() === wanted,
    ),
  );
  if (found.length === 0) throw new Error(`There is no system '${name}'.`);
  return found;
}

/** What tells it from all others. */
export function fullName({ name, store }: MeasuredSystem): string {
  return `${name} on ${store}`;
}

export function systemByFullName(name: string): MeasuredSystem {
  const found = SYSTEMS.find((system) => fullName(system) === name);
  if (found === undefined) throw new Error(`There is no system '${name}'.`);
  return found;
}

function ours(
  name: string,
  store: StoreName,
  variant: { durability?: "full" | "normal"; prefetch?: number },
  settings: string,
): MeasuredSystem {
  return {
    name,
    store,
    role: "ours",
    packages: ["@flowfabric/sdk"],
    settings,
    lacks: NOTHING,
    load: async () => (await import("./flowfabric.js")).flowfabric(variant),
  };
}

function plainLoop(
  name: string,
  durability: "full" | "normal",
): MeasuredSystem {
  return {
    name,
    store: "SQLite",
    role: "floor",
    packages: ["better-sqlite3"],
    settings: `synchronous=${durability.toUpperCase()}, two transactions per job; looks every 5 ms`,
    scenarios: FLOOR_SCENARIOS,
    lacks: "no retries, no history, no wake-ups; one handler at a time",
    load: async () =>
      (await import("./floor-plain-loop.js")).plainLoopFloor(durability),
  };
}
