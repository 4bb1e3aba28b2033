/** Runs FlowFabric and what one would use instead side by side, prints tables and writes results. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

import { describeMachine } from "@flowfabric/bench/machine";

import { chartOf } from "./results/chart.js";
import { headLines, markdownOf, overview } from "./results/markdown.js";
import { profilesToText } from "./results/profile.js";
import type { Results } from "./results/results.js";
import { targetsTable } from "./results/targets.js";
import { measure } from "./rounds.js";
import { FULL, QUICK, SCENARIOS } from "./scenarios/list.js";
import type { Scale, Scenario } from "./scenarios/scenario.js";
import { postgresStore } from "./stores/postgres.js";
import { sqliteStore } from "./stores/sqlite.js";
import type { Store, StoreName } from "./stores/store.js";
import { valkeyStore } from "./stores/valkey.js";
import {
  fullName,
  SYSTEMS,
  systemsNamed,
  type MeasuredSystem,
} from "./systems/list.js";

const USAGE = `npm run bench [-- peers] [options]

FlowFabric side by side with other systems, on the same servers of this machine, in turn.

  --full             every scenario, 5 rounds, large counts: an hour and a half
  --scenario <name>  only this one, may be repeated: ${SCENARIOS.map(({ name }) => name).join(", ")}
  --system <name>    only this one, or all of a store, may be repeated: ${[...new Set(SYSTEMS.flatMap(({ name, store }) => [store, name]))].join("; ")}
  --rounds <n>, --jobs <n>, --seconds <n>
                     rounds, jobs of a series, and how long a series may take
  --directory <path> where Valkey and files have their data (default: the system's folder for temporary files)
  --results <path>   where JSON, Markdown and charts are written (default: bench/results/quick or bench/results/full)
  --profiles <path>  writes there, as text, where the CPU time of each process went; slows what it looks at
  --help             this text`;

const OPEN: Readonly<Record<StoreName, (directory: string) => Promise<Store>>> =
  { Valkey: valkeyStore, Postgres: postgresStore, SQLite: sqliteStore };

const options = readArguments();
const { plan, scale, systems } = options;
const stores = new Map<StoreName, Store>();
try {
  await run();
} finally {
  await Promise.all([...stores.values()].map((store) => store.stop()));
}

async function run(): Promise<void> {
  for (const name of new Set(systems.map(({ store }) => store)))
    stores.set(name, await OPEN[name](options.directory));
  const about = {
    date: new Date().toISOString().slice(0, 16).replace("T", " "),
    command: commandOf(options.told),
    commit: commit(),
    node: process.version,
    machine: describeMachine(options.directory),
    stores: await Promise.all(
      [...stores].map(async ([name, store]) => ({
        name,
        description: await store.describe(),
      })),
    ),
    scale,
    systems: systems.map((system) => ({
      fullName: fullName(system),
      name: system.name,
      store: system.store,
      role: system.role,
      versions: system.packages.map((name) => `${name} ${versionOf(name)}`),
      settings: system.settings,
      lacks: system.lacks,
    })),
    descriptions: plan.flatMap(({ figures }) => figures),
  };
  for (const line of headLines({ ...about, figures: [], failures: [] }))
    console.log(line);
  for (const { fullName, versions, settings } of about.systems)
    console.log(`${fullName}: ${[...versions, settings].join(", ")}`);
  console.log();

  const { profiles } = options;
  const found = await measure(
    plan,
    systems,
    stores,
    scale,
    console.log,
    profiles,
  );
  if (profiles !== undefined) profilesToText(profiles);
  const results: Results = { ...about, ...found };
  write(results, options.results);
  for (const { name } of results.stores) {
    console.log(`\n${name}\n`);
    for (const line of overview(results, name)) console.log(line);
  }
  console.log("\nTargets\n");
  for (const line of targetsTable(results)) console.log(line);
  console.log(`\nWritten to ${options.results}`);
  if (results.failures.length > 0) process.exitCode = 1;
}

/** As it can be typed again. */
function commandOf(told: readonly string[]): string {
  if (told.length === 0) return "npm run bench";
  const quoted = told.map((part) => (/[ ,]/.test(part) ? `"${part}"` : part));
  return `npm run bench -- ${quoted.join(" ")}`;
}

function write(results: Results, directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  writeFileSync(
    join(directory, "results.json"),
    `${JSON.stringify(results, undefined, 2)}\n`,
  );
  const charts = results.descriptions.map((description) => {
    const chart = chartOf(results, description);
    const file = `${description.name}.svg`;
    if (chart !== undefined) writeFileSync(join(directory, file), chart);
    return chart === undefined ? [] : [file];
  });
  writeFileSync(
    join(directory, "README.md"),
    markdownOf(
      results,
      charts.map(([file]) => file),
    ),
  );
}

function versionOf(name: string): string {
  // Not all of them let their manifest be imported, so it is read from where the package lies.
  const paths = createRequire(import.meta.url).resolve.paths(name) ?? [];
  for (const path of paths) {
    try {
      const manifest = readFileSync(join(path, name, "package.json"), "utf8");
      return (JSON.parse(manifest) as { version: string }).version;
    } catch {
      // Further out.
    }
  }
  return "unknown";
}

function commit(): string {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], {
      cwd: import.meta.dirname,
      encoding: "utf8",
    }).trim();
  } catch {
    return "unknown";
  }
}

interface Options {
  readonly plan: readonly Scenario[];
  readonly scale: Scale;
  readonly systems: readonly MeasuredSystem[];
  readonly directory: string;
  readonly results: string;
  readonly profiles: string | undefined;
  /** Arguments as they were given. */
  readonly told: readonly string[];
}

function readArguments(): Options {
  try {
    const told = process.argv.slice(2);
    const { values } = parseArgs({
      args: told,
      options: {
        full: { type: "boolean", default: false },
        scenario: { type: "string", multiple: true, default: [] },
        system: { type: "string", multiple: true, default: [] },
        rounds: { type: "string" },
        jobs: { type: "string" },
        seconds: { type: "string" },
        directory: { type: "string", default: tmpdir() },
        results: { type: "string" },
        profiles: { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
    if (values.help) {
      console.log(USAGE);
      process.exit(0);
    }
    const { scenarios, scale } = values.full ? FULL : QUICK;
    const plan =
      values.scenario.length === 0 ? scenarios : planOf(values.scenario);
    const named = new Set(values.system.flatMap(systemsNamed));
    return {
      plan,
      scale: {
        ...scale,
        rounds: given("rounds", values.rounds) ?? scale.rounds,
        jobs: given("jobs", values.jobs) ?? scale.jobs,
        maxMs: given("seconds", values.seconds, 1_000) ?? scale.maxMs,
      },
      systems: SYSTEMS.filter(
        (system) => named.size === 0 || named.has(system),
      ),
      directory: values.directory,
      results: resolve(
        values.results ??
          join(
            import.meta.dirname,
            "../../results",
            values.full ? "full" : "quick",
          ),
      ),
      profiles:
        values.profiles === undefined ? undefined : resolve(values.profiles),
      told,
    };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}

/** With what they need, in the order of all. */
function planOf(names: readonly string[]): readonly Scenario[] {
  const wanted = new Set<Scenario>();
  const want = (name: string) => {
    const found = SCENARIOS.find((scenario) => scenario.name === name);
    if (found === undefined) throw new Error(`There is no scenario '${name}'.`);
    found.needs?.forEach(want);
    wanted.add(found);
  };
  names.forEach(want);
  return SCENARIOS.filter((scenario) => wanted.has(scenario));
}

/** A number of an option, in units; absent where it was not given. */
function given(
  name: string,
  text: string | undefined,
  unit = 1,
): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new Error(`--${name} is a whole number from 1 on, not '${text}'.`);
  return value * unit;
}
