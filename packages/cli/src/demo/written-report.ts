/** The report in words, from figures alone: whoever writes it, in whichever attempt, writes the same. */
import { z } from "zod";

import { formatCount, plural } from "../output.js";
import type { FileHistory } from "./history.js";

/** Languages that get a line of their own. */
const LANGUAGES_MAX = 8;

export const ReportFigures = z.object({
  folder: z.string(),
  files: z.number().int(),
  words: z.number().int(),
  /** Those with the most words first. */
  languages: z.array(
    z.object({
      language: z.string(),
      files: z.number().int(),
      words: z.number().int(),
    }),
  ),
  longestLine: z
    .object({
      path: z.string(),
      number: z.number().int(),
      length: z.number().int(),
    })
    .optional(),
  /** Those that could not be analysed. */
  failed: z.array(z.string()),
});
export type ReportFigures = z.infer<typeof ReportFigures>;

export function figuresOf(
  folder: string,
  histories: readonly FileHistory[],
): ReportFigures {
  const byLanguage = new Map<string, { files: number; words: number }>();
  let longestLine: ReportFigures["longestLine"];
  for (const { path, analysis } of histories) {
    if (analysis === undefined) continue;
    const sum = byLanguage.get(analysis.language) ?? { files: 0, words: 0 };
    byLanguage.set(analysis.language, {
      files: sum.files + 1,
      words: sum.words + analysis.words,
    });
    if (analysis.longestLine.length > (longestLine?.length ?? 0))
      longestLine = { path, ...analysis.longestLine };
  }
  const languages = [...byLanguage]
    .map(([language, sum]) => ({ language, ...sum }))
    .sort((a, b) => b.words - a.words || (a.language < b.language ? -1 : 1));
  return {
    folder,
    files: languages.reduce((sum, { files }) => sum + files, 0),
    words: languages.reduce((sum, { words }) => sum + words, 0),
    languages,
    longestLine,
    failed: histories
      .filter(({ analysis }) => analysis === undefined)
      .map(({ path }) => path),
  };
}

/** Markdown. */
export function writtenReport(figures: ReportFigures): string {
  const { folder, files, words, languages, longestLine, failed } = figures;
  const shown = languages.slice(0, LANGUAGES_MAX);
  const others = languages.length - shown.length;
  return [
    `# What is written in ${folder}`,
    "",
    `${plural(files, "text file")} with ${plural(words, "word")}:`,
    "",
    ...shown.map(
      (sum) =>
        `- ${sum.language}: ${plural(sum.files, "file")}, ${plural(sum.words, "word")}`,
    ),
    ...(others > 0
      ? [`- and ${plural(others, "language")} with fewer words`]
      : []),
    ...(longestLine === undefined
      ? []
      : [
          "",
          `The longest line is line ${formatCount(longestLine.number)} of ${longestLine.path}, with ${plural(longestLine.length, "character")}.`,
        ]),
    ...(failed.length === 0
      ? []
      : ["", `Not to be read: ${failed.join(", ")}.`]),
    "",
  ].join("\n");
}

/** Word by word, as somebody would write it; joined they are the text again. */
export function wordsOf(text: string): string[] {
  return text.match(/\S*\s+|\S+/g) ?? [];
}
