/** Runs the benchmarks and prints what they found, with the machine they found it on. */
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { parseArgs } from "node:util";

import { BACKENDS, backendsNamed } from "./backends.js";
import type { Measure } from "./benchmarks.js";
import type { FiguresOfBackend } from "./engine/figures.js";
import { measureEngine } from "./engine/main.js";
import {
  compareLargeTables,
  type LargeTablesFigures,
} from "./large-tables/main.js";
import { describeMachine, machineLines } from "./machine.js";
import { comparePlainLoop, type PlainLoopFigures } from "./plain-loop/main.js";
import { describeServer, stopServer } from "./postgres.js";
import {
  backendsTable,
  figureText,
  largeTablesTable,
  plainLoopTable,
  roundTripsTable,
  runText,
  serverLine,
  times,
} from "./report.js";
import { measureRoundTrips } from "./round-trips/main.js";
import { stopValkeyServers } from "./valkey.js";
import { measureWaiting } from "./waiting/main.js";

const NAMES = [
  "engine",
  "waiting",
  "plain-loop",
  "round-trips",
  "large-tables",
];
const USAGE = `npm run bench -- <name>… [options]

Parts of FlowFabric by themselves: ${NAMES.join(", ")}. Beside other systems:
npm run bench -- --help. round-trips and large-tables are about Postgres; large-tables compares tables of a million finished
and a hundred thousand waiting executions with small ones, which takes some minutes and 2 GB of disk.

  --quick             a few seconds in all; says that it works, not how fast it is
  --backend <name>    only this store or family of stores, may be repeated: ${names(({ family }) => family)}, ${names(({ name }) => `'${name}'`)}
  --directory <path>  where stores in files are made (default: the system's folder for temporary files)
  --json <file>       writes every figure there
  --help              this text`;

const FULL_SCALE = {
  engine: { rounds: 5, jobs: 10_000, warmUpJobs: 2_000, pickups: 60 },
  waiting: {
    rounds: 3,
    resumes: 200,
    frames: 2_000,
    tailedFrames: 200,
    suspended: 10_000,
    idleWindowMs: 10_000,
  },
  plainLoop: { jobs: 10_000, pairs: 7 },
  largeTables: { finished: 1_000_000, waiting: 100_000, rounds: 9, jobs: 640 },
};
const QUICK_SCALE = {
  engine: { rounds: 1, jobs: 1_000, warmUpJobs: 100, pickups: 10 },
  waiting: {
    rounds: 1,
    resumes: 20,
    frames: 200,
    tailedFrames: 20,
    suspended: 500,
    idleWindowMs: 1_000,
  },
  plainLoop: { jobs: 1_000, pairs: 1 },
  largeTables: { finished: 10_000, waiting: 1_000, rounds: 2, jobs: 160 },
};

function names(of: (backend: (typeof BACKENDS)[number]) => string): string {
  return [...new Set(BACKENDS.map(of))].join(", ");
}

const { values: options, positionals: chosen } = readArguments();
const directory = options.directory ?? tmpdir();
const scale = options.quick ? QUICK_SCALE : FULL_SCALE;
const backends = [...new Set(options.backend.flatMap(backendsNamed))];
const families = new Set(backends.map(({ family }) => family));

try {
  await run();
} finally {
  await stopServer();
  await stopValkeyServers();
}

async function run(): Promise<void> {
  const machine = describeMachine(directory);
  for (const line of machineLines(machine)) console.log(line);
  // Before anything is measured: a server that cannot be had is known at once.
  const postgres = families.has("postgres")
    ? await describeServer(directory)
    : undefined;
  if (postgres !== undefined) console.log(serverLine(postgres));
  if (options.quick) console.log("--quick: too short for figures to mean much");

  const engine = chosen.includes("engine")
    ? await runOnEach(measureEngine, scale.engine)
    : [];
  const waiting = chosen.includes("waiting")
    ? await runOnEach(measureWaiting, scale.waiting)
    : [];
  const plainLoop =
    chosen.includes("plain-loop") && families.has("sqlite")
      ? await runPlainLoop()
      : [];
  const roundTrips =
    chosen.includes("round-trips") && families.has("postgres")
      ? await measureRoundTrips(directory)
      : [];
  const largeTables =
    chosen.includes("large-tables") && families.has("postgres")
      ? await runLargeTables()
      : undefined;

  if (engine.length > 0) {
    console.log(
      "\nPer second in bold, latency of a call as p50 / p95 / p99; payload 4 KiB.\n",
    );
    for (const line of backendsTable(engine)) console.log(line);
  }
  if (waiting.length > 0) {
    console.log(
      `\nThrough the SDK: per second in bold, latency as p50 / p95 / p99; frames of 100 bytes. Idle: what the server was asked, and the CPU of the worker's process; many are ${scale.waiting.suspended}.\n`,
    );
    for (const line of backendsTable(waiting)) console.log(line);
  }
  if (plainLoop.length > 0) {
    console.log(
      `\nTime of a plain better-sqlite3 loop by time of the engine, ${scale.plainLoop.jobs} jobs, median of ${scale.plainLoop.pairs} pairs; above 1 the engine is faster.\n`,
    );
    for (const line of plainLoopTable(plainLoop)) console.log(line);
  }
  if (roundTrips.length > 0) {
    console.log(
      "\nStatements that Postgres is sent for one call by a process that has been at work.\n",
    );
    for (const line of roundTripsTable(roundTrips)) console.log(line);
  }
  if (largeTables !== undefined) {
    console.log(
      `\nPostgres with ${largeTables.finished} finished and ${largeTables.waiting} waiting executions beside small tables, median of ${scale.largeTables.rounds} rounds in turn.\n`,
    );
    for (const line of largeTablesTable(largeTables)) console.log(line);
  }
  if (options.json !== undefined) {
    const figures = {
      machine,
      postgres,
      quick: options.quick,
      engine,
      waiting,
      plainLoop,
      roundTrips,
      largeTables,
    };
    writeFileSync(options.json, `${JSON.stringify(figures, undefined, 2)}\n`);
  }
}

async function runLargeTables(): Promise<LargeTablesFigures> {
  console.log("\nfilling large tables");
  return await compareLargeTables(directory, scale.largeTables, (line) =>
    console.log(`  ${line}`),
  );
}

async function runOnEach<Scale>(
  measure: Measure<Scale>,
  scale: Scale,
): Promise<FiguresOfBackend[]> {
  const all: FiguresOfBackend[] = [];
  for (const backend of backends) {
    console.log(`\n${backend.name}`);
    all.push(
      await measure(backend, directory, scale, (figure) =>
        console.log(`  ${figureText(figure)}`),
      ),
    );
  }
  return all;
}

async function runPlainLoop(): Promise<PlainLoopFigures[]> {
  const all: PlainLoopFigures[] = [];
  for (const durability of ["full", "normal"] as const) {
    console.log(`\nplain loop and engine at ${durability.toUpperCase()}`);
    const figures = await comparePlainLoop(
      durability,
      directory,
      scale.plainLoop,
      ({ plain, engine: own }) => {
        console.log(`  plain  ${runText(plain)}`);
        console.log(`  engine ${runText(own)}`);
      },
    );
    console.log(`  median of plain / engine: ${times(figures.totalRatio)}`);
    all.push(figures);
  }
  return all;
}

function readArguments() {
  try {
    const read = parseArgs({
      allowPositionals: true,
      options: {
        quick: { type: "boolean", default: false },
        backend: {
          type: "string",
          multiple: true,
          default: BACKENDS.map(({ name }) => name),
        },
        directory: { type: "string" },
        json: { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
    if (read.values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    const unknown = read.positionals.find((name) => !NAMES.includes(name));
    if (unknown !== undefined)
      throw new Error(`There is no benchmark '${unknown}'.`);
    for (const name of read.values.backend) backendsNamed(name);
    return read;
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}
