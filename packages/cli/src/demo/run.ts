/** The demo from the first file to the report. */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";

import { Client } from "@flowfabric/sdk";

import { EXIT_REFUSED, UsageError } from "../errors.js";
import { describeAddress } from "../open.js";
import {
  formatCount,
  formatDuration,
  paint,
  plural,
  print,
  tableLines,
} from "../output.js";
import { laneOf, POISON } from "./definition.js";
import { findTextFiles, type FoundFiles } from "./files.js";
import { readHistory, type FileHistory } from "./history.js";
import { publishReport } from "./publish-report.js";
import { reportHtml } from "./report-html.js";
import { escapeHtml } from "./report-text.js";
import { demoFolder, openDemoStore, parseDemoAddress } from "./store.js";
import { submitFiles, type SubmittedFile } from "./submit.js";
import {
  summarise,
  summaryRows,
  type RunFacts,
  type Summary,
} from "./summary.js";
import { LEASE_TTL_MS, SLOTS_PER_WORKER, work, type Worked } from "./work.js";
import { figuresOf } from "./written-report.js";

export interface DemoOptions {
  readonly backend: string;
  readonly report?: string;
  readonly workers: number;
  readonly kill: boolean;
  readonly manual?: true;
  readonly fresh?: true;
  readonly limit: number;
}

const NOBODY_WORKED: Worked = { kill: undefined, workerNames: new Map() };

/** @returns the exit code */
export async function runDemo(
  folderGiven: string,
  options: DemoOptions,
  interrupt: AbortSignal,
): Promise<number> {
  const startedAtMs = Date.now();
  const folder = requireFolder(folderGiven);
  const address = parseDemoAddress(options.backend);
  const found = await findTextFiles(folder, options.limit);
  if (found.files.length === 0) {
    print(
      `There are no text files in ${folder}${leftOut(found)}; nothing to do.`,
    );
    return 0;
  }
  print(
    `${paint("bold", plural(found.files.length, "text file"))} in ${folder}${leftOut(found)}, and one declared poison that nobody can read`,
  );

  await using backend = await openDemoStore(address, options.fresh ?? false);
  await using client = new Client({ backend });
  const closing = new AbortController();
  const completions = await backend.subscribeCompletion({
    signal: closing.signal,
  });
  const lane = laneOf(folder);
  const submitted = await submitFiles(client, backend, lane, [
    ...found.files,
    POISON,
  ]);
  sayOrigins(submitted);

  const open = submitted.filter(({ origin }) => origin !== "reused");
  const { workers, kill } = options;
  const plan = {
    backend,
    completions,
    address,
    folder,
    lane,
    workers,
    kill,
    interrupt,
  };
  const worked = open.length === 0 ? NOBODY_WORKED : await work(plan, open);
  closing.abort();
  const endedAtMs = Date.now();

  const files: FileHistory[] = [];
  for (const one of submitted)
    files.push(await readHistory(client, backend, one));
  const facts: RunFacts = {
    ...worked,
    folder,
    store: describeAddress(address),
    startedAtMs,
    endedAtMs,
    leaseTtlMs: LEASE_TTL_MS,
    slotsPerWorker: SLOTS_PER_WORKER,
    files,
  };
  const summary = summarise(facts);
  printSummary(facts, summary);
  print();
  const usual = join(demoFolder(address), "report.html");
  if (options.report === undefined && isWorthKeeping(usual, facts, summary))
    print(`Report: ${usual} (of the run that did the work)`);
  else writeReport(resolve(options.report ?? usual), facts, summary);
  const code = verdict(facts);
  if (code !== 0) return code;
  await publishReport(
    {
      client,
      backend,
      address,
      folder,
      lane,
      manual: options.manual ?? false,
      path: join(demoFolder(address), "report.md"),
      interrupt,
    },
    figuresOf(folder, files),
  );
  return 0;
}

/** A run that reused everything has no picture to offer in place of the one there is. */
function isWorthKeeping(
  report: string,
  { folder }: RunFacts,
  { attempts }: Summary,
): boolean {
  if (attempts > 0 || !existsSync(report)) return false;
  return readFileSync(report, "utf8").includes(
    `<code>${escapeHtml(folder)}</code>`,
  );
}

function writeReport(path: string, facts: RunFacts, summary: Summary): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, reportHtml(facts, summary));
  print(`Report: ${path}`);
}

function requireFolder(given: string): string {
  const folder = resolve(given);
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found?.isDirectory() !== true)
    throw new UsageError(
      `${found === undefined ? "there is no folder" : "this is no folder:"} ${folder}; name one to analyse`,
    );
  return folder;
}

function leftOut({ binary, tooLarge, beyondLimit }: FoundFiles): string {
  const parts = [
    binary > 0 ? `${formatCount(binary)} binary` : "",
    tooLarge > 0 ? `${formatCount(tooLarge)} over 1 MiB` : "",
    beyondLimit > 0 ? `${formatCount(beyondLimit)} beyond --limit` : "",
  ].filter((part) => part !== "");
  return parts.length === 0 ? "" : ` (left out: ${parts.join(", ")})`;
}

function sayOrigins(submitted: readonly SubmittedFile[]): void {
  const count = (origin: SubmittedFile["origin"]) =>
    submitted.filter((file) => file.origin === origin).length;
  const continued = count("continued");
  print(
    paint(
      "bold",
      `${formatCount(count("reused"))} reused, ${formatCount(count("new"))} new${continued > 0 ? `, ${formatCount(continued)} continued from a run that was stopped` : ""}`,
    ),
  );
  if (count("reused") === submitted.length)
    print(
      "Every analysis is in the store already: no worker was started for them, and there was nothing to kill. --fresh starts over.",
    );
}

function printSummary(facts: RunFacts, summary: Summary): void {
  print();
  const rows = summaryRows(facts, summary);
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows)
    print(`${paint("dim", name.padEnd(width))}  ${value}`);
  if (summary.workers.length > 0) printWorkers(summary.workers);
  for (const file of summary.failed) printFailure(file);
}

/** Holds the run to its promise. */
function verdict(facts: RunFacts): number {
  const wrong = facts.files.filter(
    (file) => file.completionEvents !== file.expectedCompletionEvents,
  );
  const took = formatDuration(facts.endedAtMs - facts.startedAtMs);
  if (wrong.length > 0) {
    for (const file of wrong)
      print(
        paint(
          "red",
          `✗ ${file.path} has ${file.completionEvents} completion events instead of ${file.expectedCompletionEvents} (${file.executionId})`,
        ),
      );
    return EXIT_REFUSED;
  }
  print(
    paint(
      "green",
      `✓ Each of ${plural(facts.files.length, "execution")} ended exactly once, checked against the store's events (${took})`,
    ),
  );
  return 0;
}

function printWorkers(workers: Summary["workers"]): void {
  print();
  const rows = workers.map((worker) => [
    worker.name,
    String(worker.completed),
    String(worker.failed),
    String(worker.lost),
    worker.killed ? paint("red", "killed") : "",
  ]);
  const columns = [
    { heading: "Worker" },
    { heading: "completed", align: "right" as const },
    { heading: "failed attempts", align: "right" as const },
    { heading: "lost", align: "right" as const },
    { heading: "" },
  ];
  for (const row of tableLines(columns, rows)) print(row);
}

function printFailure(file: FileHistory): void {
  const { path, state, category, reason, origin, executionId } = file;
  const poison = path === POISON.path;
  print(
    `${paint("red", state)} ${path}${origin === "reused" ? " (stored by an earlier run)" : ""}: ${reason ?? "no reason"}${category === undefined ? "" : ` [${category}]`}${poison ? paint("dim", ", the declared poison") : `; flowfabric replay '${executionId}' runs it again`}`,
  );
}
