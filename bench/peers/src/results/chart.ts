/** One figure as bars, an SVG that light and dark pages can show. */
import type { FigureDescription } from "../scenarios/scenario.js";
import { figureOf, ms, rate } from "./markdown.js";
import type { Results, SystemResult } from "./results.js";

const LABEL_WIDTH = 250;
const BAR_WIDTH = 400;
const VALUE_WIDTH = 110;
const ROW_HEIGHT = 22;
const HEAD_HEIGHT = 34;

const COLOURS: Readonly<Record<SystemResult["role"], string>> = {
  ours: "#2563eb",
  peer: "#94a3b8",
  floor: "#d6a65c",
};

/** Absent where nobody has this figure. */
export function chartOf(
  results: Results,
  description: FigureDescription,
): string | undefined {
  const isRate = description.by === "perSecond";
  const bars = results.systems.flatMap((system) => {
    const figure = figureOf(results, system, description.name);
    const spread = isRate ? figure?.perSecond : figure?.latency?.spread;
    const value = isRate ? spread?.median : figure?.latency?.p50Ms;
    return value === undefined ? [] : [{ system, value, spread: spread! }];
  });
  if (bars.length === 0) return undefined;
  const largest = Math.max(...bars.map(({ spread }) => spread.max));
  const lengthOf = (value: number) =>
    BAR_WIDTH * (isRate ? value / largest : logarithmic(value, largest));
  const width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH;
  const height = HEAD_HEIGHT + bars.length * ROW_HEIGHT + 8;
  const unit = isRate
    ? "per second: more is better"
    : "p50: less is better, on a logarithmic scale";
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="#ffffff"/>`,
    `<text x="8" y="20" font-size="14" font-weight="600" fill="#0f172a">${escape(description.title)}</text>`,
    `<text x="${width - 8}" y="20" text-anchor="end" fill="#475569">${unit}</text>`,
    ...bars.map(({ system, value, spread }, nth) => {
      const top = HEAD_HEIGHT + nth * ROW_HEIGHT;
      const told = isRate ? rate(value) : `${ms(value)} ms`;
      const weight = system.role === "ours" ? "600" : "400";
      const from = LABEL_WIDTH + lengthOf(spread.min);
      const to = LABEL_WIDTH + lengthOf(spread.max);
      return [
        `<text x="${LABEL_WIDTH - 8}" y="${top + 15}" text-anchor="end" font-weight="${weight}" fill="#0f172a">${escape(system.fullName)}</text>`,
        `<rect x="${LABEL_WIDTH}" y="${top + 3}" width="${Math.max(1, lengthOf(value)).toFixed(1)}" height="${ROW_HEIGHT - 6}" rx="2" fill="${COLOURS[system.role]}"/>`,
        // From the worst round to the best.
        `<path d="M${from.toFixed(1)} ${top + 11}H${to.toFixed(1)}" stroke="#0f172a" stroke-width="1.5"/>`,
        `<text x="${(to + 6).toFixed(1)}" y="${top + 15}" fill="#0f172a">${told}</text>`,
      ].join("");
    }),
    "</svg>",
    "",
  ].join("\n");
}

/** From a tenth of a millisecond on; polling is a thousand times slower than waking. */
function logarithmic(value: number, largest: number): number {
  const LEAST = 0.1;
  return (
    Math.log10(Math.max(value, LEAST) / LEAST) /
    Math.log10(Math.max(largest, 2 * LEAST) / LEAST)
  );
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
