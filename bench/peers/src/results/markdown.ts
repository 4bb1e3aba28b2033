/** Results as Markdown: a table per store to read, and one per figure with all that was measured. */
import { machineLines } from "@flowfabric/bench/machine";

import type { Figure, Spread } from "../rounds.js";
import type { FigureDescription } from "../scenarios/scenario.js";
import type { Results, SystemResult } from "./results.js";
import { targetsTable } from "./targets.js";

export function markdownOf(
  results: Results,
  charts: readonly (string | undefined)[],
): string {
  return [
    "# Side by side",
    "",
    ...headLines(results).map((line) => `- ${line}`),
    "",
    ...results.stores.flatMap(({ name }) => [
      `## ${name}`,
      "",
      ...overview(results, name),
      "",
    ]),
    "## Targets",
    "",
    ...targetsTable(results),
    "",
    "## All figures",
    "",
    ...results.descriptions.flatMap((description, nth) => [
      `### ${description.title}`,
      "",
      ...(charts[nth] === undefined
        ? []
        : [`![${description.title}](${charts[nth]})`, ""]),
      ...details(results, description),
      "",
    ]),
    "## What was run",
    "",
    ...systemsTable(results),
    ...failureLines(results),
    "",
  ].join("\n");
}

export function headLines(results: Results): string[] {
  const { date, command, commit, scale } = results;
  return [
    `${date}, \`${command}\`, commit ${commit}`,
    ...machineLines(results.machine),
    ...results.stores.map(({ description }) => description),
    `${scale.rounds} rounds in turn, at most ${scale.jobs} jobs of 4 KiB or ${scale.maxMs / 1_000} s a series, of which the first fifth does not count; medians of rounds, latencies over all rounds`,
  ];
}

/** Systems of one store in rows, figures in columns. */
export function overview(results: Results, store: string): string[] {
  const systems = results.systems.filter((system) => system.store === store);
  const descriptions = results.descriptions.filter(({ name }) =>
    systems.some((system) => figureOf(results, system, name) !== undefined),
  );
  return [
    `| | ${descriptions.map(({ title }) => title).join(" | ")} | does less |`,
    `|---|${"---|".repeat(descriptions.length + 1)}`,
    ...systems.map((system) => {
      const cells = descriptions.map((description) =>
        cellOf(figureOf(results, system, description.name), description),
      );
      return `| ${nameOf(system)} | ${cells.join(" | ")} | ${system.lacks} |`;
    }),
  ];
}

function details(results: Results, { name }: FigureDescription): string[] {
  return [
    "| | per second | min–max | p50 / p95 / p99 ms | client CPU ms | server CPU ms | requests | bytes |",
    "|---|---|---|---|---|---|---|---|",
    ...results.systems.flatMap((system) => {
      const figure = figureOf(results, system, name);
      if (figure === undefined) return [];
      const { perSecond, latency, clientCpuMs, serverCpuMs } = figure;
      return [
        `| ${[
          `${nameOf(system)} on ${system.store}`,
          perSecond === undefined ? "" : rate(perSecond.median),
          perSecond === undefined ? "" : spreadText(perSecond),
          latency === undefined
            ? ""
            : `${ms(latency.p50Ms)} / ${ms(latency.p95Ms)} / ${ms(latency.p99Ms)}`,
          clientCpuMs === undefined ? "" : clientCpuMs.toPrecision(3),
          serverCpuMs === undefined ? "" : serverCpuMs.toPrecision(3),
          figure.requests === undefined ? "" : figure.requests.toPrecision(3),
          figure.bytes === undefined ? "" : String(Math.round(figure.bytes)),
        ].join(" | ")} |`,
      ];
    }),
  ];
}

function systemsTable({ systems }: Results): string[] {
  return [
    "| | versions | set | does less |",
    "|---|---|---|---|",
    ...systems.map(
      (system) =>
        `| ${nameOf(system)} on ${system.store} | ${system.versions.join(", ")} | ${system.settings} | ${system.lacks} |`,
    ),
  ];
}

function failureLines({ failures }: Results): string[] {
  return failures.map(
    ({ scenario, system, reason }) =>
      `\n- **failed**: ${scenario}, ${system}: ${reason.split("\n")[0]}`,
  );
}

export function figureOf(
  { figures }: Results,
  { fullName }: SystemResult,
  name: string,
): Figure | undefined {
  return figures.find(
    (figure) => figure.name === name && figure.system === fullName,
  );
}

function nameOf({ name, role }: SystemResult): string {
  if (role === "ours") return `**${name}**`;
  return role === "floor" ? `_${name}_` : name;
}

function cellOf(figure: Figure | undefined, { by }: FigureDescription): string {
  if (by === "perSecond")
    return figure?.perSecond === undefined
      ? "–"
      : `${rate(figure.perSecond.median)}/s`;
  return figure?.latency === undefined
    ? "–"
    : `${ms(figure.latency.p50Ms)} (${ms(figure.latency.p99Ms)}) ms`;
}

function spreadText({ min, max }: Spread): string {
  return `${rate(min)}–${rate(max)}`;
}

/** Three figures; more would be noise. */
export function rate(perSecond: number): string {
  return Number(perSecond.toPrecision(3))
    .toLocaleString("en")
    .replaceAll(",", " ");
}

export function ms(value: number): string {
  return value >= 10 ? value.toFixed(0) : value.toPrecision(2);
}
