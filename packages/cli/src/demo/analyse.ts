/** What the demo finds out about a text file. Pure, so that a repeat of a lost attempt gives the same answer. */
import { createHash } from "node:crypto";

import { z } from "zod";

import { languageOf } from "./language.js";

/** Part of every idempotency key: a change of what is counted makes all files new. */
export const ANALYSIS_VERSION = 1;

export const Analysis = z.object({
  language: z.string(),
  bytes: z.number().int(),
  lines: z.number().int(),
  words: z.number().int(),
  /** Markdown and HTML headings; 0 in other languages. */
  headings: z.number().int(),
  /** Web addresses, and in Markdown also links to other files. */
  links: z.number().int(),
  /** The longest line, counted in characters, and where it is. */
  longestLine: z.object({ length: z.number().int(), number: z.number().int() }),
  sha256: z.string(),
});
export type Analysis = z.infer<typeof Analysis>;

/** @param path decides the language */
export function analyse(path: string, bytes: Uint8Array): Analysis {
  const text = new TextDecoder().decode(bytes);
  const language = languageOf(path);
  const lines = linesOf(text);
  return {
    language,
    bytes: bytes.length,
    lines: lines.length,
    words: count(text, /[\p{L}\p{N}]+(?:['’_-][\p{L}\p{N}]+)*/gu),
    headings: countHeadings(language, text, lines),
    links: countLinks(language, text),
    longestLine: longest(lines),
    sha256: sha256(bytes),
  };
}

export function sha256(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A final line break ends the last line, it does not begin another. */
function linesOf(text: string): string[] {
  const lines = text.split(/\r\n|\n|\r/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

function count(text: string, pattern: RegExp): number {
  let found = 0;
  for (const _ of text.matchAll(pattern)) found++;
  return found;
}

function countHeadings(
  language: string,
  text: string,
  lines: readonly string[],
): number {
  if (language === "HTML") return count(text, /<h[1-6][\s>]/gi);
  if (language !== "Markdown") return 0;
  let headings = 0;
  let fence: string | undefined;
  for (const [at, line] of lines.entries()) {
    const marker = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1];
    if (fence !== undefined) {
      if (marker?.startsWith(fence) === true && line.trim() === marker)
        fence = undefined;
    } else if (marker !== undefined) fence = marker;
    else if (/^ {0,3}#{1,6}(\s|$)/.test(line)) headings++;
    else if (/^ {0,3}=+\s*$/.test(line) && (lines[at - 1] ?? "").trim() !== "")
      headings++;
  }
  return headings;
}

function countLinks(language: string, text: string): number {
  const addresses = count(text, /https?:\/\/[^\s<>"'`)\]]+/g);
  if (language !== "Markdown") return addresses;
  return addresses + count(text, /\]\((?!https?:)[^)\s]+/g);
}

function longest(lines: readonly string[]): Analysis["longestLine"] {
  let best = { length: 0, number: lines.length > 0 ? 1 : 0 };
  for (const [at, line] of lines.entries()) {
    // Characters, not UTF-16 units; counting is only worth it where the line could win.
    if (line.length <= best.length) continue;
    const length = [...line].length;
    if (length > best.length) best = { length, number: at + 1 };
  }
  return best;
}
