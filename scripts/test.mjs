// npm test: makes the clone ready, runs every test project, and sums up what ran against which store.
//
// A suite that silently ran nothing looks like one that passed, so it fails here: a store without tests, a skipped test,
// a test file that no project claims, and stores that were given different numbers of the tests that run on all of them.
// Arguments go to vitest (`npm test -- --project unit`); such a run is meant to be partial and is held to its failures only.

import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  backends,
  storesOf,
  suitesOfEveryStore,
  unitProject,
} from "./backends.mjs";
import { bootstrap } from "./bootstrap.mjs";
import { root, runNode, seconds, tool, workspaces } from "./repository.mjs";

/**
 * @typedef {import("./count-reporter.mjs").Counts} Counts
 * @typedef {import("./count-reporter.mjs").ProjectCount} ProjectCount
 */

/** Share of the random cases and waiting times; 1 is what CI runs. */
const DEFAULT_SCALE = "0.2";

const SLOW_FILE_MS = 10_000;

const vitestArgs = process.argv.slice(2);
const partial = vitestArgs.length > 0;
const scale = process.env["FLOWFABRIC_TEST_SCALE"] ?? DEFAULT_SCALE;

await bootstrap();
console.log(`Running the tests on Node ${process.version}, scale ${scale}`);
const { code, counts } = await runVitest();

printSummary(counts.projects, await backendVersions());
if (!partial) printEqualSuites(counts.projects);
printSlowFiles(counts.projects);
const complaints = [
  ...runComplaints(counts, code),
  ...(partial ? [] : coverageComplaints(counts.projects)),
];
const failures = Object.values(counts.projects).flatMap(
  ({ failures }) => failures,
);
for (const line of [...failures, ...complaints]) console.log(`✗ ${line}`);

const { passed, failed } = total(Object.values(counts.projects));
process.exitCode = failed > 0 || complaints.length > 0 ? 1 : 0;
// A run that went wrong without a failed test must not read as "0 failed".
console.log(`${passed} passed, ${failed + complaints.length} failed`);

/** @returns {Promise<{ code: number, counts: Counts }>} */
async function runVitest() {
  const directory = mkdtempSync(join(tmpdir(), "flowfabric-test-"));
  const countsFile = join(directory, "counts.json");
  try {
    const { code } = await runNode(
      [
        tool("vitest"),
        "run",
        "--reporter=default",
        `--reporter=${join(root, "scripts/count-reporter.mjs")}`,
        ...vitestArgs,
      ],
      {
        env: {
          FLOWFABRIC_TEST_SCALE: scale,
          FLOWFABRIC_COUNTS_FILE: countsFile,
        },
      },
    );
    return { code, counts: readCounts(countsFile) };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/**
 * @param {string} file not there when vitest ended before its reporters did
 * @returns {Counts}
 */
function readCounts(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return { projects: {}, unhandledErrors: 0 };
  }
}

/** By what stands behind a project's first colon. */
async function backendVersions() {
  const stores = backends.flatMap((backend) =>
    storesOf(backend).map(({ store, server }) => ({ store, server, backend })),
  );
  return new Map(
    await Promise.all(
      stores.map(
        async ({ store, server, backend }) =>
          /** @type {const} */ ([store, await backend.versions(server)]),
      ),
    ),
  );
}

/**
 * @param {Record<string, ProjectCount>} projects
 * @param {Map<string, { store: string, driver: string }>} versions
 */
function printSummary(projects, versions) {
  const rows = Object.entries(projects)
    .map(([project, count]) => {
      const [suite = project, backend = "", server] = project.split(":");
      const version = versions.get(
        server === undefined ? backend : `${backend}:${server}`,
      );
      return {
        backend,
        cells: [
          backend,
          suite,
          version?.store ?? "",
          version?.driver ?? "",
          process.version,
          ...countCells(count),
        ],
      };
    })
    // Stores first; what belongs to none comes after them.
    .sort(
      (a, b) =>
        Number(a.backend === "") - Number(b.backend === "") ||
        a.cells.join().localeCompare(b.cells.join()),
    );
  console.log("");
  printTable(
    ["Backend", "Suite", "Store", "Driver", "Node"],
    ["Passed", "Failed", "Time"],
    [
      ...rows.map(({ cells }) => cells),
      ["total", "", "", "", "", ...countCells(total(Object.values(projects)))],
    ],
  );
  console.log("");
}

/** @param {{ passed: number, failed: number, durationMs: number }} count */
function countCells({ passed, failed, durationMs }) {
  return [String(passed), String(failed), seconds(durationMs)];
}

/** @param {readonly ProjectCount[]} counts */
function total(counts) {
  const sum = { passed: 0, failed: 0, durationMs: 0 };
  for (const { passed, failed, durationMs } of counts) {
    sum.passed += passed;
    sum.failed += failed;
    sum.durationMs += durationMs;
  }
  return sum;
}

/**
 * @param {readonly string[]} texts headings of the columns aligned left
 * @param {readonly string[]} numbers headings of the columns after them, aligned right
 * @param {readonly string[][]} rows
 */
function printTable(texts, numbers, rows) {
  const all = [[...texts, ...numbers], ...rows];
  const widths = [...texts, ...numbers].map((_, column) =>
    Math.max(...all.map((row) => row[column]?.length ?? 0)),
  );
  for (const row of all) {
    const cells = row.map((cell, column) =>
      column < texts.length
        ? cell.padEnd(widths[column] ?? 0)
        : cell.padStart(widths[column] ?? 0),
    );
    console.log(cells.join("  ").trimEnd());
  }
}

/** @param {Record<string, ProjectCount>} projects */
function printSlowFiles(projects) {
  const slow = Object.entries(projects)
    .flatMap(([project, { files }]) =>
      Object.entries(files).map(([file, ms]) => ({ project, file, ms })),
    )
    .filter(({ ms }) => ms >= SLOW_FILE_MS)
    .sort((a, b) => b.ms - a.ms);
  for (const { project, file, ms } of slow) {
    console.log(`slow: ${file} (${project}) took ${seconds(ms)}`);
  }
}

/**
 * @param {Counts} counts
 * @param {number} code
 * @returns {string[]}
 */
function runComplaints({ projects, unhandledErrors }, code) {
  const complaints = [];
  const { failed } = total(Object.values(projects));
  if (unhandledErrors > 0)
    complaints.push(
      `errors outside of any test: ${unhandledErrors}, see above`,
    );
  else if (code !== 0 && failed === 0)
    complaints.push(`vitest ended with ${code}, see above`);
  return complaints;
}

/**
 * @param {Record<string, ProjectCount>} projects
 * @returns {string[]}
 */
function coverageComplaints(projects) {
  const complaints = [];
  for (const [project, { skipped }] of Object.entries(projects)) {
    if (skipped > 0)
      complaints.push(`${project}: ${skipped} tests did not run`);
  }
  const expected = backends.flatMap((backend) => [
    ...storesOf(backend).flatMap(({ store }) =>
      suitesOfEveryStore.map((suite) => `${suite}:${store}`),
    ),
    ...[unitProject(backend) ?? []].flat(),
    ...(backend.faultTest === undefined ? [] : [`faults:${backend.name}`]),
    ...(backend.rateTest === undefined ? [] : [`rates:${backend.name}`]),
  ]);
  for (const project of ["unit", "types", "self-test", ...expected]) {
    const count = projects[project];
    if (count === undefined || count.passed + count.failed === 0)
      complaints.push(`${project}: no test ran`);
  }
  const ran = new Set(
    Object.values(projects).flatMap(({ files }) => Object.keys(files)),
  );
  for (const file of testFiles()) {
    if (!ran.has(file)) complaints.push(`${file} belongs to no project`);
  }
  for (const suite of suitesOfEveryStore) {
    const cases = casesByStore(projects, suite);
    if (new Set(cases.map(({ tests }) => tests)).size > 1)
      complaints.push(
        `${suite}: the stores ran different numbers of cases: ${cases.map(({ store, tests }) => `${store} ${tests}`).join(", ")}`,
      );
  }
  return complaints;
}

/**
 * All of them are to be the same.
 *
 * @param {Record<string, ProjectCount>} projects
 * @param {string} suite
 */
function casesByStore(projects, suite) {
  return backends.flatMap(storesOf).map(({ store }) => {
    const count = projects[`${suite}:${store}`];
    return {
      store,
      tests: count === undefined ? 0 : count.passed + count.failed,
    };
  });
}

/** @param {Record<string, ProjectCount>} projects */
function printEqualSuites(projects) {
  for (const suite of suitesOfEveryStore) {
    const cases = casesByStore(projects, suite);
    const [first] = cases;
    if (
      first !== undefined &&
      cases.every(({ tests }) => tests === first.tests)
    )
      console.log(
        `${suite}: the same ${first.tests} cases on ${cases.map(({ store }) => store).join(", ")}`,
      );
  }
}

/** @returns {string[]} every test file of the workspaces, below the root, with the slashes that vitest writes */
function testFiles() {
  return workspaces().flatMap(({ directory }) => {
    const tests = join(root, directory, "test");
    if (!existsSync(tests)) return [];
    return readdirSync(tests, { recursive: true, encoding: "utf8" })
      .filter((file) => /\.test(-d)?\.ts$/.test(file))
      .map((file) => `${directory}/test/${file.replaceAll("\\", "/")}`);
  });
}
