/** Figures as text: lines while it runs, Markdown tables at the end. */
import type { RoundTrips } from "@flowfabric/postgres-testing";

import type { Figure, FiguresOfBackend } from "./engine/figures.js";
import type { LargeTablesFigures } from "./large-tables/main.js";
import type { PlainLoopFigures, RunTimes } from "./plain-loop/main.js";
import type { ServerDescription } from "./postgres.js";

export function figureText(figure: Figure): string {
  const { perSecond, latency, bytes, cpuShare, stallMs } = figure;
  return [
    figure.name.padEnd(44),
    ...(perSecond === undefined ? [] : [`${rate(perSecond)}/s`.padStart(9)]),
    ...(latency === undefined
      ? []
      : [
          `p50 ${ms(latency.p50Ms)}  p95 ${ms(latency.p95Ms)}  p99 ${ms(latency.p99Ms)} ms`,
        ]),
    ...(bytes === undefined ? [] : [`${Math.round(bytes)} bytes`]),
    ...(cpuShare === undefined ? [] : [cpuText(cpuShare)]),
    ...(stallMs === undefined
      ? []
      : [`longest stall ${stallMs.toFixed(0)} ms`]),
  ].join("  ");
}

/** Backends stand side by side: a reader compares stores, not benchmarks. */
export function backendsTable(all: readonly FiguresOfBackend[]): string[] {
  const names = all[0]?.figures.map(({ name }) => name) ?? [];
  return [
    `| | ${all.map(({ backend }) => backend).join(" | ")} |`,
    `|---|${"---|".repeat(all.length)}`,
    ...names.map(
      (name, index) =>
        `| ${name} | ${all.map(({ figures }) => cell(figures[index]!)).join(" | ")} |`,
    ),
  ];
}

export function plainLoopTable(all: readonly PlainLoopFigures[]): string[] {
  return [
    "| durability | submit | claim + complete | total |",
    "|---|---|---|---|",
    ...all.map(
      (figures) =>
        `| ${figures.durability.toUpperCase()} | ${times(figures.submitRatio)} | ${times(figures.claimAndCompleteRatio)} | **${times(figures.totalRatio)}** |`,
    ),
  ];
}

export function serverLine({ version, settings }: ServerDescription): string {
  const told = Object.entries(settings).map(
    ([name, value]) => `${name}=${value}`,
  );
  return `Postgres ${version}: ${told.join(", ")}`;
}

export function roundTripsTable(all: readonly RoundTrips[]): string[] {
  return [
    "| | statements a call | most | portions beside, per second |",
    "|---|---|---|---|",
    ...all.map(
      ({ name, statements, calls, most, portions, tookMs }) =>
        `| ${name} | **${statements / calls}** | ${most} | ${((portions / tookMs) * 1_000).toPrecision(2)} |`,
    ),
  ];
}

export function largeTablesTable({ ratios }: LargeTablesFigures): string[] {
  return [
    "| | small tables | large tables | large by small |",
    "|---|---|---|---|",
    ...ratios.map(
      ({ name, small, large, ratio }) =>
        `| ${name} | ${rate(small)}/s | ${rate(large)}/s | **${times(ratio)}** |`,
    ),
  ];
}

export function runText({ submitMs, claimAndCompleteMs, totalMs }: RunTimes) {
  return `${seconds(totalMs)} (submit ${seconds(submitMs)}, claim + complete ${seconds(claimAndCompleteMs)})`;
}

function cell({ perSecond, latency, bytes, cpuShare }: Figure): string {
  if (bytes !== undefined) return `${Math.round(bytes)} B`;
  if (cpuShare !== undefined)
    return [
      ...(perSecond === undefined ? [] : [`${rate(perSecond)}/s`]),
      cpuText(cpuShare),
    ].join(", ");
  const latencies =
    latency === undefined
      ? ""
      : `${ms(latency.p50Ms)} / ${ms(latency.p95Ms)} / ${ms(latency.p99Ms)} ms`;
  if (perSecond === undefined) return latencies;
  const perSecondText = `**${rate(perSecond)}/s**`;
  return latencies === "" ? perSecondText : `${perSecondText} (${latencies})`;
}

function cpuText(share: number): string {
  return `CPU ${(share * 100).toFixed(1)} %`;
}

/** Three figures; more would be noise. */
function rate(perSecond: number): string {
  return perSecond >= 1_000
    ? `${(perSecond / 1_000).toPrecision(3)} k`
    : perSecond.toPrecision(3);
}

function ms(value: number): string {
  return value >= 10 ? value.toFixed(0) : value.toPrecision(2);
}

export function times(ratio: number): string {
  return `${ratio.toFixed(2)} ×`;
}

function seconds(value: number): string {
  return `${(value / 1_000).toFixed(2)} s`;
}
