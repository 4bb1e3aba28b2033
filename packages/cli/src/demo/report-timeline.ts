/**
 * The report's picture: a row per place of each worker, a bar per attempt, the kill as a line through all of it.
 * Horizontal positions are shares of the run, so that a wider picture is a zoom without redrawing.
 */
import { formatDuration } from "../output.js";
import { escapeHtml } from "./report-text.js";
import type { Attempt, FileHistory } from "./history.js";
import type { Kill } from "./kill.js";
import { placesOf, type PlacedAttempt, type RunFacts } from "./summary.js";

/** What a pointer on a bar shows; the page's script reads it. */
export interface BarDetail {
  /** Index of the file. */
  readonly f: number;
  readonly attempt: number;
  readonly type: string;
  readonly worker: string;
  readonly from: string;
  readonly took: string;
  readonly outcome: string;
  readonly reason?: string;
}

export interface Timeline {
  readonly svg: string;
  readonly labels: string;
  readonly height: number;
  readonly bars: readonly BarDetail[];
}

const TOP = 44;
const ROW = 20;
const BAR = 16;
const GAP = 18;
const CHART = 60;
const AXIS = 24;
const MAX_BINS = 72;

interface Row {
  readonly instanceId: string;
  readonly name: string;
  readonly y: number;
  readonly height: number;
  readonly places: readonly (readonly PlacedAttempt[])[];
}

export function timeline(facts: RunFacts): Timeline {
  const { kill, startedAtMs, endedAtMs } = facts;
  const spanMs = Math.max(1, endedAtMs - startedAtMs);
  const share = (atMs: number) =>
    ((Math.min(Math.max(atMs, startedAtMs), endedAtMs) - startedAtMs) * 100) /
    spanMs;
  const x = (atMs: number) => `${share(atMs).toFixed(3)}%`;

  const rows = rowsOf(facts);
  const last = rows.at(-1);
  const chartTop = (last === undefined ? TOP : last.y + last.height) + GAP;
  const axisY = chartTop + CHART;
  const height = axisY + AXIS;
  const fileNumbers = new Map(facts.files.map((file, at) => [file, at]));

  const parts = [axis(spanMs, axisY)];
  for (const row of rows)
    parts.push(
      `<rect class="row" x="0" y="${row.y - 3}" width="100%" height="${row.height + 4}" rx="3"/>`,
    );
  const killed = rows.find(({ instanceId }) => instanceId === kill?.instanceId);
  if (kill !== undefined && killed !== undefined)
    parts.push(
      `<rect class="dead" x="${x(kill.atMs)}" y="${killed.y - 3}" width="${(100 - share(kill.atMs)).toFixed(3)}%" height="${killed.height + 4}"/>`,
    );

  const bars: BarDetail[] = [];
  const drawn: DrawnBar[] = [];
  for (const row of rows)
    for (const [place, attempts] of row.places.entries())
      for (const placed of attempts) {
        const attempt = placed.file.attempts[placed.index];
        const f = fileNumbers.get(placed.file);
        if (attempt === undefined || f === undefined) continue;
        const y = row.y + place * ROW;
        const { startedAtMs: fromMs, endedAtMs: toMs } = placed;
        parts.push(
          `<rect class="bar ${styleOf(attempt)}" data-b="${bars.length}" data-f="${f}" x="${x(fromMs)}" y="${y}" width="${Math.max(0.05, share(toMs) - share(fromMs)).toFixed(3)}%" height="${BAR}" rx="2"/>`,
        );
        drawn.push({ file: placed.file, attempt, fromMs, toMs, y });
        bars.push({
          f,
          attempt: attempt.index + 1,
          type: TYPE_TEXT[attempt.type],
          worker: row.name,
          from: formatDuration(fromMs - startedAtMs),
          took: formatDuration(toMs - fromMs),
          outcome: outcomeText(attempt),
          ...(attempt.reason === undefined ? {} : { reason: attempt.reason }),
        });
      }

  parts.push(throughput(facts, chartTop, spanMs));
  parts.push(`<g id="links"></g>`);
  if (kill !== undefined) {
    const label = `kill -9 ${kill.worker} at ${formatDuration(kill.atMs - startedAtMs)}`;
    parts.push(killMarker(label, share(kill.atMs), axisY));
    parts.push(takeovers(drawn, x));
    parts.push(recoveryMarker(drawn, kill, share));
  }
  return {
    svg: `<svg id="timeline" role="img" aria-label="When which worker ran what" width="100%" height="${height}">${DEFINITIONS}${parts.join("")}</svg>`,
    labels: labels(rows, chartTop, kill?.instanceId),
    height,
    bars,
  };
}

interface DrawnBar {
  readonly file: FileHistory;
  readonly attempt: Attempt;
  readonly fromMs: number;
  readonly toMs: number;
  readonly y: number;
}

const DEFINITIONS = `<defs><pattern id="hatch-lost" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="5" height="5" class="hatch-ground"/><line x1="0" y1="0" x2="0" y2="5" class="hatch-lost"/></pattern><pattern id="hatch-dead" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line x1="0" y1="0" x2="0" y2="7" class="hatch-dead"/></pattern></defs>`;

function rowsOf(facts: RunFacts): Row[] {
  const rows: Row[] = [];
  let y = TOP;
  for (const [instanceId, places] of placesOf(facts)) {
    const height = Math.max(1, places.length) * ROW;
    const name = facts.workerNames.get(instanceId) ?? instanceId;
    rows.push({ instanceId, name, y, height, places });
    y += height + GAP;
  }
  return rows;
}

const TYPE_TEXT: { readonly [T in Attempt["type"]]: string } = {
  initial: "first attempt",
  retry: "retry",
  reclaim: "taken over",
  replay: "replay",
};

/** Colour tells what became of it and, where it went well, why it was there at all. */
function styleOf({ outcome, type }: Attempt): string {
  return outcome === "completed" ? `completed-${type}` : outcome;
}

function outcomeText({ outcome }: Attempt): string {
  switch (outcome) {
    case "completed":
      return "completed";
    case "retried":
      return "failed, tried again";
    case "failed":
      return "failed for good";
    case "lost":
      return "lost with its worker";
    case "open":
      return "still open";
  }
}

/** From each lost attempt, however short it was, to the one that made up for it. */
function takeovers(
  drawn: readonly DrawnBar[],
  x: (atMs: number) => string,
): string {
  return drawn
    .filter(({ attempt }) => attempt.outcome === "lost")
    .map((lost) => {
      const next = drawn.find(
        ({ file, attempt }) =>
          file === lost.file && attempt.index === lost.attempt.index + 1,
      );
      const y = lost.y + BAR / 2;
      const link =
        next === undefined
          ? ""
          : `<line class="takeover" x1="${x(lost.toMs)}" y1="${y}" x2="${x(next.fromMs)}" y2="${next.y + BAR / 2}"/>`;
      return `${link}<circle class="lost-end" cx="${x(lost.toMs)}" cy="${y}" r="4.5"/>`;
    })
    .join("");
}

/** What ended per slice of time, under the rows. */
function throughput(facts: RunFacts, top: number, spanMs: number): string {
  const ends = facts.files.flatMap((file) =>
    file.attempts
      .filter(
        ({ outcome, instanceId }) =>
          (outcome === "completed" || outcome === "failed") &&
          facts.workerNames.has(instanceId),
      )
      .map(({ endedAtMs }) => endedAtMs ?? facts.endedAtMs),
  );
  const binMs = niceStep(spanMs / MAX_BINS);
  const bins = Array.from({ length: Math.ceil(spanMs / binMs) }, () => 0);
  for (const endedAtMs of ends) {
    const bin = Math.min(
      bins.length - 1,
      Math.max(0, Math.floor((endedAtMs - facts.startedAtMs) / binMs)),
    );
    bins[bin] = (bins[bin] ?? 0) + 1;
  }
  const most = Math.max(1, ...bins);
  const bars = bins.map((count, at) => {
    const height = (count / most) * (CHART - 12);
    const left = (at * binMs * 100) / spanMs;
    const width = Math.min(100 - left, (binMs * 100) / spanMs);
    return count === 0
      ? ""
      : `<rect class="rate" x="${left.toFixed(3)}%" y="${(top + CHART - height).toFixed(1)}" width="${(width * 0.88).toFixed(3)}%" height="${height.toFixed(1)}"><title>${count} ended in ${formatDuration(binMs)}</title></rect>`;
  });
  return `<g>${bars.join("")}</g>`;
}

function axis(spanMs: number, y: number): string {
  const stepMs = niceStep(spanMs / 8);
  const ticks: string[] = [];
  for (let atMs = 0; atMs <= spanMs; atMs += stepMs) {
    const at = `${((atMs * 100) / spanMs).toFixed(3)}%`;
    const anchor =
      atMs === 0 ? "start" : atMs > spanMs * 0.97 ? "end" : "middle";
    ticks.push(
      `<line class="grid" x1="${at}" y1="${TOP - 6}" x2="${at}" y2="${y}"/><text class="tick" x="${at}" y="${y + 16}" text-anchor="${anchor}">${(atMs / 1_000).toFixed(stepMs < 1_000 ? 1 : 0)} s</text>`,
    );
  }
  return ticks.join("");
}

/** 1, 2 or 5 times a power of ten, at least `ms`. */
function niceStep(ms: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, ms)));
  const factor = [1, 2, 5, 10].find((factor) => factor * power >= ms) ?? 10;
  return factor * power;
}

function killMarker(text: string, share: number, bottom: number): string {
  const at = `${share.toFixed(3)}%`;
  const left = share > 65;
  return `<g class="kill" data-kill="true"><line x1="${at}" y1="6" x2="${at}" y2="${bottom}"/><text x="${at}" y="16" dx="${left ? -8 : 8}" text-anchor="${left ? "end" : "start"}">✗ ${escapeHtml(text)}</text></g>`;
}

/** When the first of what the killed worker held ran again. Others may have lost work, too. */
function recoveryMarker(
  drawn: readonly DrawnBar[],
  kill: Kill,
  share: (atMs: number) => number,
): string {
  const starts = drawn
    .filter(
      ({ file, attempt }) =>
        attempt.type === "reclaim" && kill.held.includes(file.executionId),
    )
    .map(({ fromMs }) => fromMs);
  if (starts.length === 0) return "";
  const firstMs = Math.min(...starts);
  const at = `${share(firstMs).toFixed(3)}%`;
  const left = share(firstMs) > 65;
  return `<g class="recovery"><line x1="${at}" y1="24" x2="${at}" y2="${TOP - 4}"/><text x="${at}" y="33" dx="${left ? -8 : 8}" text-anchor="${left ? "end" : "start"}">taken over ${formatDuration(firstMs - kill.atMs)} later</text></g>`;
}

function labels(
  rows: readonly Row[],
  chartTop: number,
  killed: string | undefined,
): string {
  const workers = rows.map(
    ({ name, instanceId, y, height }) =>
      `<div class="label" style="top:${y - 3}px;height:${height + 4}px"><b>${escapeHtml(name)}</b>${instanceId === killed ? '<span class="killed">killed</span>' : ""}</div>`,
  );
  return `${workers.join("")}<div class="label" style="top:${chartTop}px;height:${CHART}px"><span>ended over time</span></div>`;
}
