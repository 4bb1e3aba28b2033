/** Runs the benchmarks and prints what they found, with the machine they found it on. */
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { parseArgs } from "node:util";

import { BACKENDS, backendNamed } from "./backends.js";
import { measureEngine, type EngineFigures } from "./engine/main.js";
import { describeMachine, machineLines } from "./machine.js";
import { comparePlainLoop, type PlainLoopFigures } from "./plain-loop/main.js";
import {
  engineTable,
  figureText,
  plainLoopTable,
  runText,
  times,
} from "./report.js";

const USAGE = `npm run bench -- [engine] [plain-loop] [options]

Both benchmarks run unless named.

  --quick             a few seconds in all; says that it works, not how fast it is
  --backend <name>    only this store, may be repeated: ${BACKENDS.map(({ name }) => `'${name}'`).join(", ")}
  --directory <path>  where stores in files are made (default: the system's folder for temporary files)
  --json <file>       writes every figure there
  --help              this text`;

const FULL_SCALE = {
  engine: { rounds: 5, jobs: 10_000, warmUpJobs: 2_000, pickups: 60 },
  plainLoop: { jobs: 10_000, pairs: 7 },
};
const QUICK_SCALE = {
  engine: { rounds: 1, jobs: 1_000, warmUpJobs: 100, pickups: 10 },
  plainLoop: { jobs: 1_000, pairs: 1 },
};
const NAMES = ["engine", "plain-loop"];

const { values: options, positionals } = readArguments();
const directory = options.directory ?? tmpdir();
const scale = options.quick ? QUICK_SCALE : FULL_SCALE;
const chosen = positionals.length === 0 ? NAMES : positionals;

const machine = describeMachine(directory);
for (const line of machineLines(machine)) console.log(line);
if (options.quick) console.log("--quick: too short for figures to mean much");

const engine = chosen.includes("engine") ? await runEngine() : [];
const plainLoop = chosen.includes("plain-loop") ? await runPlainLoop() : [];

if (engine.length > 0) {
  console.log(
    "\nPer second in bold, latency of a call as p50 / p95 / p99; payload 4 KiB.\n",
  );
  for (const line of engineTable(engine)) console.log(line);
}
if (plainLoop.length > 0) {
  console.log(
    `\nTime of a plain better-sqlite3 loop by time of the engine, ${scale.plainLoop.jobs} jobs, median of ${scale.plainLoop.pairs} pairs; above 1 the engine is faster.\n`,
  );
  for (const line of plainLoopTable(plainLoop)) console.log(line);
}
if (options.json !== undefined) {
  const figures = { machine, quick: options.quick, engine, plainLoop };
  writeFileSync(options.json, `${JSON.stringify(figures, undefined, 2)}\n`);
}

async function runEngine(): Promise<EngineFigures[]> {
  const all: EngineFigures[] = [];
  for (const name of options.backend) {
    console.log(`\n${name}`);
    all.push(
      await measureEngine(
        backendNamed(name),
        directory,
        scale.engine,
        (figure) => console.log(`  ${figureText(figure)}`),
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
    for (const name of read.values.backend) backendNamed(name);
    return read;
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}
