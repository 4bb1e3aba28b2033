/** The two kinds of executions of the demo, and everything about them that is staged. */
import { defineExecution } from "@flowfabric/sdk";
import { z } from "zod";

import { Analysis, ANALYSIS_VERSION, sha256 } from "./analyse.js";
import type { TextFile } from "./files.js";
import { ReportFigures } from "./written-report.js";

const DAY_MS = 86_400_000;
/** For so long a repeated run finds what an earlier one has finished. */
const DEDUP_WINDOW_MS = 30 * DAY_MS;

/** Failures of these categories are not tried again: reading once more would not help. */
export const UNREADABLE = "unreadable_file";
export const CHANGED = "changed_file";

export const AnalyseFile = defineExecution({
  kind: "demo.analyse-file",
  input: z.object({ path: z.string(), sha256: z.string() }),
  output: Analysis,
  policy: {
    retryPolicy: {
      maxRetries: 3,
      backoff: { type: "fixed", delayMs: 400 },
      nonRetryableCategories: [UNREADABLE, CHANGED],
    },
    dedupWindowMs: DEDUP_WINDOW_MS,
    // A key that is remembered must not point at a result that is gone.
    streamPolicy: { retentionTtlMs: DEDUP_WINDOW_MS + DAY_MS },
  },
});

/** The category of a publication that somebody said no to. */
export const REJECTED = "rejected";
/** Where the publication waits for a person, and the only word that is a yes. */
export const APPROVAL = "approval";
export const APPROVED = "approved";
/** The frame behind the last word of the text. */
export const TEXT_IS_WRITTEN = "text-is-written";

/** Writes the report in words, waits until somebody approves of it, and only then has it as its result. */
export const PublishReport = defineExecution({
  kind: "demo.publish-report",
  input: ReportFigures,
  output: z.object({ text: z.string(), approvedBy: z.string() }),
  policy: {
    retryPolicy: { maxRetries: 3, nonRetryableCategories: [REJECTED] },
    dedupWindowMs: DEDUP_WINDOW_MS,
    streamPolicy: { retentionTtlMs: DEDUP_WINDOW_MS + DAY_MS },
  },
});

/** A report of the same figures is published once. */
export function publicationKeyOf(figures: ReportFigures): string {
  return `report:${sha256(JSON.stringify(figures))}`;
}

/** Declared poison: a file that nobody can read, because it does not exist. */
export const POISON: TextFile = {
  path: "poison/no-such-file.txt",
  sha256: sha256("poison"),
};

/** One lane per folder, so that what another folder left unfinished is not run against this one. */
export function laneOf(folder: string): string {
  return `demo-${sha256(folder).slice(0, 12)}`;
}

export function isDemoLane(lane: string): boolean {
  return lane.startsWith("demo-");
}

/** The same file with the same content, analysed in the same way, is the same piece of work. */
export function idempotencyKeyOf(file: TextFile): string {
  return `v${ANALYSIS_VERSION}:${digest(file)}`;
}

function digest({ path, sha256: content }: TextFile): string {
  return sha256(`${ANALYSIS_VERSION}\0${path}\0${content}`);
}

/** About one file in ten: its first attempt ends with an injected read error. Depends on the file only. */
export function isFlaky(file: TextFile): boolean {
  return Number.parseInt(digest(file).slice(0, 8), 16) % 10 === 0;
}

/** How much longer than needed the analysis of a file takes at most, so that there is a middle to kill in. */
export const SLOWEST_PACE_MS = 80;
const FASTEST_PACE_MS = 20;
/** Many files are read faster, or the demo would take minutes. */
const PACE_BUDGET_MS = 9_000;

/** @returns from 1 (the pace as it is) down to almost 0, so that all files fit into the budget */
export function paceScale(files: number, slots: number): number {
  const meanMs = (SLOWEST_PACE_MS + FASTEST_PACE_MS) / 2;
  return Math.min(1, (PACE_BUDGET_MS * slots) / (files * meanMs));
}

/** Writing the report in words takes about this long, however many words there are. */
export const WRITING_MS = 1_000;

export function paceMs(file: TextFile, scale: number): number {
  const spread = SLOWEST_PACE_MS - FASTEST_PACE_MS;
  const share = Number.parseInt(digest(file).slice(8, 16), 16) / 0xffff_ffff;
  return Math.round((FASTEST_PACE_MS + spread * share) * scale);
}
