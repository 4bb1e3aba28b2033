// Puts what the committed run of `npm run bench:full` measured into the READMEs, between marks:
//
//   <!-- figures of <heading> --> ... <!-- end of figures -->
//
// where the heading is one of bench/results/full/README.md; without one (`<!-- figures -->`) it is what stands above the
// first: date, command, machine. So nobody copies figures by hand, and `npm run verify` tells where they are not those.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { format } from "prettier";
import { isProgram, root } from "./repository.mjs";

const RESULTS = "bench/results/full/README.md";
const QUOTING = [
  "README.md",
  "packages/sqlite/README.md",
  "packages/postgres/README.md",
  "packages/valkey/README.md",
];
const QUOTE =
  /(<!-- figures(?: of ([^>]+?))? -->\n)[^]*?(<!-- end of figures -->)/g;

if (isProgram(import.meta.url))
  for (const file of QUOTING)
    writeFileSync(join(root, file), await quoted(file));

/** @returns {Promise<string[]>} one line for each file whose figures are not those of the run */
export async function checkQuotes() {
  const findings = [];
  for (const file of QUOTING)
    if ((await quoted(file)) !== readFileSync(join(root, file), "utf8"))
      findings.push(
        `${file} has other figures than ${RESULTS}: run node scripts/quote-figures.mjs`,
      );
  return findings;
}

/**
 * @param {string} file below the root
 * @returns {Promise<string>} its text, with the figures of the run
 */
async function quoted(file) {
  const sections = new Map(
    readFileSync(join(root, RESULTS), "utf8")
      .split(/^##? /m)
      .map((section) => {
        const [heading = "", ...lines] = section.split("\n");
        return [heading, lines.join("\n").trim()];
      }),
  );
  const [, about = ""] = [...sections.keys()];
  let quotes = 0;
  const text = readFileSync(join(root, file), "utf8").replace(
    QUOTE,
    (_all, start, heading = about, end) => {
      const section = sections.get(heading);
      if (section === undefined)
        throw new Error(
          `${file} quotes '${heading}', which ${RESULTS} does not have`,
        );
      quotes += 1;
      return `${start}\n${section}\n\n${end}`;
    },
  );
  if (quotes === 0)
    throw new Error(`${file} has no place for figures: <!-- figures -->`);
  return format(text, { parser: "markdown" });
}
