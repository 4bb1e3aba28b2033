/** The report: one HTML file that needs nothing else, also not the network. */
import { formatCount, formatDuration, plural } from "../output.js";
import type { FileHistory } from "./history.js";
import { SCRIPT } from "./report-script.js";
import { STYLE } from "./report-style.js";
import { embedJson, escapeHtml } from "./report-text.js";
import { timeline, type BarDetail } from "./report-timeline.js";
import {
  summaryRows,
  type RunFacts,
  type Summary,
  type WorkerCount,
} from "./summary.js";

export function reportHtml(facts: RunFacts, summary: Summary): string {
  const picture = summary.attempts === 0 ? undefined : timeline(facts);
  const data = {
    files: facts.files.map(({ path }) => path),
    bars: picture?.bars ?? ([] as BarDetail[]),
  };
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>FlowFabric demo</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<header>
<h1>FlowFabric demo</h1>
<p>${escapeHtml(plural(facts.files.length, "execution"))} over the text files of <code>${escapeHtml(facts.folder)}</code></p>
<p>${escapeHtml(new Date(facts.startedAtMs).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "medium" }))}, ${formatDuration(facts.endedAtMs - facts.startedAtMs)}, store <code>${escapeHtml(facts.store)}</code></p>
</header>
${verdict(facts)}
${tiles(summary)}
${
  picture === undefined
    ? `<section><h2>Nothing ran</h2><p class="soft">Every result was in the store already, from an earlier run. No worker was started, and there was nothing to kill.</p></section>`
    : `<section>
<div class="bar-of"><h2>Who ran what, when</h2>${LEGEND}<div><button id="zoom-out" aria-label="zoom out">−</button> <button id="zoom-in" aria-label="zoom in">+</button> <button id="zoom-fit">fit</button></div></div>
<div class="plot"><div class="labels" style="height:${picture.height}px">${picture.labels}</div><div class="scroll">${picture.svg}</div></div>
<p class="soft">Point at a bar for its details and for the other attempts of its file; click it to find the file below. Read errors, the slow pace and the kill are injected by the demo.</p>
</section>`
}
<div class="pair">
<section><h2>Summary</h2><dl>${summaryRows(facts, summary)
    .map(
      ([name, value]) =>
        `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`,
    )
    .join("")}</dl></section>
<section><h2>Workers</h2>${workersTable(summary.workers)}</section>
</div>
<section id="files">
<div class="bar-of"><h2>Files</h2><div>${chips(facts.files)}</div><div class="filter"><input id="filter" type="search" placeholder="filter" aria-label="filter files"> <span class="soft" id="visible"></span></div></div>
${filesTable(facts)}
</section>
</main>
<div id="tip" hidden></div>
<script type="application/json" id="data">${embedJson(data)}</script>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

const LEGEND = `<div class="legend">${[
  ["var(--ok)", "completed"],
  ["var(--retried)", "failed, tried again"],
  ["var(--retry)", "retry completed"],
  ["var(--bad)", "failed for good"],
  [
    "repeating-linear-gradient(45deg,var(--bad) 0 2px,color-mix(in srgb,var(--bad) 22%,var(--card)) 2px 5px)",
    "lost with its worker",
  ],
  ["var(--takeover)", "taken over"],
]
  .map(
    ([colour, text]) =>
      `<span><i style="background:${colour}"></i>${text}</span>`,
  )
  .join("")}</div>`;

function verdict({ files }: RunFacts): string {
  const wrong = files.filter(
    (file) => file.completionEvents !== file.expectedCompletionEvents,
  );
  return wrong.length === 0
    ? `<div class="verdict good">✓ Each of ${plural(files.length, "execution")} has exactly one completion event</div>`
    : `<div class="verdict wrong">✗ ${plural(wrong.length, "execution")} with a wrong number of completion events: ${escapeHtml(wrong.map(({ path }) => path).join(", "))}</div>`;
}

function tiles(summary: Summary): string {
  const { reused, recoveryMs, executionsPerSecond } = summary;
  const shown: (readonly [string, string, string?])[] = [
    [formatCount(summary.completed), "completed"],
    [formatCount(summary.failed.length), "failed", "red"],
    [formatCount(reused), "reused"],
    ...(summary.attempts === 0
      ? []
      : [
          [formatCount(summary.attempts), "attempts"] as const,
          [formatCount(summary.retries), "retries", "teal"] as const,
          [formatCount(summary.recovered), "taken over", "violet"] as const,
        ]),
    ...(recoveryMs === undefined
      ? []
      : [[formatDuration(recoveryMs), "to recover"] as const]),
    ...(executionsPerSecond === undefined
      ? []
      : [[executionsPerSecond.toFixed(1), "per second"] as const]),
  ];
  return `<div class="tiles">${shown
    .map(
      ([value, name, colour]) =>
        `<div class="tile ${colour ?? ""}"><b>${escapeHtml(value)}</b><span>${escapeHtml(name)}</span></div>`,
    )
    .join("")}</div>`;
}

function workersTable(workers: readonly WorkerCount[]): string {
  if (workers.length === 0) return `<p class="soft">None was started.</p>`;
  return `<table><thead><tr><th>Worker</th><th class="n">Completed</th><th class="n">Failed</th><th class="n">Lost</th></tr></thead><tbody>${workers
    .map(
      ({ name, completed, failed, lost, killed }) =>
        `<tr><td>${escapeHtml(name)}${killed ? ' <span class="pill bad">killed</span>' : ""}</td><td class="n">${formatCount(completed)}</td><td class="n">${formatCount(failed)}</td><td class="n">${formatCount(lost)}</td></tr>`,
    )
    .join("")}</tbody></table>`;
}

/** What the chips above the table select by. */
function marksOf(file: FileHistory): string[] {
  const types = new Set(file.attempts.map(({ type }) => type));
  return [
    ...(file.origin === "reused" ? ["reused"] : []),
    ...(types.has("retry") ? ["retried"] : []),
    ...(types.has("reclaim") ? ["taken-over"] : []),
    ...(file.state === "completed" ? [] : ["failed"]),
  ];
}

const CHIPS = [
  ["retried", "retried"],
  ["taken-over", "taken over"],
  ["failed", "failed"],
  ["reused", "reused"],
] as const;

function chips(files: readonly FileHistory[]): string {
  const all = `<button data-show="all" aria-pressed="true">all ${files.length}</button>`;
  const some = CHIPS.map(([mark, text]) => {
    const count = files.filter((file) => marksOf(file).includes(mark)).length;
    return count === 0
      ? ""
      : ` <button data-show="${mark}" aria-pressed="false">${text} ${count}</button>`;
  });
  return all + some.join("");
}

const TEXT = "text";
const NUMBER = "number";
const HEADINGS = [
  ["File", TEXT],
  ["State", TEXT],
  ["Language", TEXT],
  ["Words", NUMBER],
  ["Lines", NUMBER],
  ["Headings", NUMBER],
  ["Links", NUMBER],
  ["Longest", NUMBER],
  ["Attempts", NUMBER],
  ["By", TEXT],
  ["SHA-256", TEXT],
] as const;

function filesTable(facts: RunFacts): string {
  const head = HEADINGS.map(
    ([heading, kind]) =>
      `<th data-sort="${kind}"${kind === NUMBER ? ' class="n"' : ""}>${heading}</th>`,
  ).join("");
  const body = facts.files
    .map((file, at) => fileRow(file, at, facts))
    .join("\n");
  return `<div class="wide"><table><thead><tr>${head}</tr></thead><tbody>
${body}
</tbody></table></div>`;
}

function fileRow(file: FileHistory, at: number, facts: RunFacts): string {
  const { analysis } = file;
  const number = (value: number | undefined) =>
    `<td class="n" data-value="${value ?? ""}">${value === undefined ? "" : formatCount(value)}</td>`;
  const lastBy = file.attempts.at(-1)?.instanceId ?? "";
  return [
    `<tr data-f="${at}" data-marks="${marksOf(file).join(" ")}">`,
    `<td class="path">${escapeHtml(file.path)}${file.reason === undefined ? "" : `<div class="soft">${escapeHtml(file.reason)}</div>`}</td>`,
    `<td>${pills(file)}</td>`,
    `<td>${escapeHtml(analysis?.language ?? "")}</td>`,
    number(analysis?.words),
    number(analysis?.lines),
    number(analysis?.headings),
    number(analysis?.links),
    number(analysis?.longestLine.length),
    number(file.attempts.length),
    `<td>${escapeHtml(facts.workerNames.get(lastBy) ?? "earlier run")}</td>`,
    `<td class="mono" title="${escapeHtml(analysis?.sha256 ?? "")}">${escapeHtml(analysis?.sha256.slice(0, 10) ?? "")}</td>`,
    `</tr>`,
  ].join("");
}

function pills(file: FileHistory): string {
  const state = `<span class="pill${file.state === "completed" ? "" : " bad"}">${escapeHtml(file.state)}</span>`;
  const marks = marksOf(file)
    .filter((mark) => mark !== "failed")
    .map((mark) => {
      const style =
        mark === "retried" ? "retry" : mark === "reused" ? "plain" : "takeover";
      return ` <span class="pill ${style}">${mark.replace("-", " ")}</span>`;
    });
  return state + marks.join("");
}
