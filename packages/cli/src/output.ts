/**
 * What is printed: data goes to stdout, remarks to stderr, so that a pipe gets data only. Colours where a
 * person looks, and never with NO_COLOR.
 */

const STYLES = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
} as const;
export type Style = keyof typeof STYLES;
export type Paint = (style: Style, text: string) => string;

// node:util has styleText only from 20.12 on, and Node 20.0 is supported.
function painter(stream: { readonly isTTY?: boolean }): Paint {
  if (!wantsColour(stream)) return (_style, text) => text;
  return (style, text) => {
    const [on, off] = STYLES[style];
    return `\u001b[${on}m${text}\u001b[${off}m`;
  };
}

function wantsColour(stream: { readonly isTTY?: boolean }): boolean {
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
  if (NO_COLOR !== undefined && NO_COLOR !== "") return false;
  if (FORCE_COLOR !== undefined && FORCE_COLOR !== "")
    return FORCE_COLOR !== "0";
  return stream.isTTY === true && TERM !== "dumb";
}

export const paint = painter(process.stdout);

/** A line of data. */
export function print(line = ""): void {
  process.stdout.write(`${line}\n`);
}

/** A line for the person at the terminal. */
export function remark(line: string): void {
  process.stderr.write(`${line}\n`);
}

export interface Column {
  readonly heading: string;
  readonly align?: "right";
}

/** Lines with aligned columns, the last one unpadded. */
export function tableLines(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  style: Paint = paint,
): string[] {
  const headings = columns.map(({ heading }) => heading);
  const widths = headings.map((heading, at) =>
    Math.max(
      ...[heading, ...rows.map((row) => row[at] ?? "")].map(visibleLength),
    ),
  );
  const line = (cells: readonly string[]) =>
    columns
      .map(({ align }, at) => {
        const cell = cells[at] ?? "";
        const padding = " ".repeat((widths[at] ?? 0) - visibleLength(cell));
        return align === "right" ? padding + cell : cell + padding;
      })
      .join("  ")
      .trimEnd();
  return [style("dim", line(headings)), ...rows.map(line)];
}

function visibleLength(text: string): number {
  return text.replaceAll(/\u001b\[\d+m/g, "").length;
}

/** `840 ms`, `2.4 s`, `3 min 20 s`. */
export function formatDuration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1_000).toFixed(ms < 9_995 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1_000);
  const units = [
    [86_400, "d"],
    [3_600, "h"],
    [60, "min"],
    [1, "s"],
  ] as const;
  const at = units.findIndex(([size]) => seconds >= size);
  const [size, name] = units[at] ?? [1, "s"];
  const next = units[at + 1];
  const rest = next === undefined ? 0 : Math.floor((seconds % size) / next[0]);
  return `${Math.floor(seconds / size)} ${name}${rest > 0 && next ? ` ${rest} ${next[1]}` : ""}`;
}

/** ISO with milliseconds: sorts, and says its zone. */
export function formatInstant(ms: number): string {
  return new Date(ms).toISOString();
}

/** Digits in groups of three, with a thin gap that survives copying as a space would. */
export function formatCount(count: number): string {
  return String(count).replaceAll(/\B(?=(\d{3})+$)/g, " ");
}

/** `1 file`, `2 files`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}

/** Text as it is, anything that is not UTF-8 by its size. */
export function showBytes(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return `${formatCount(bytes.length)} bytes that are not text`;
  }
}
