// Every layer has the same group files with the same operation names, so that a reader can lay them side by side.
//
// The contract decides: each file of packages/core/src/operations that exports an `interface <Group>Operations` is a
// group, its methods are the operations. Read as text: this has to work while a layer is half written and does not
// compile, and it needs no compiler API.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { readMigrations } from "./build-migrations.mjs";
import { isProgram, root, subdirectories } from "./repository.mjs";

const contractDirectory = "packages/core/src/operations";
const backendPackages = ["sqlite", "postgres", "valkey"];

/** @typedef {{ file: string, operations: string[] }} Group */

/** @returns {{ groups: Group[], findings: string[] }} findings is empty where everything lines up */
export function checkLineup() {
  const groups = readContract();
  const findings = [
    ...backendPackages.flatMap((name) => backendFindings(name, groups)),
    ...sameFiles(groups, "test-suites/conformance/src", ".ts"),
    ...sameFiles(groups, "lua/functions", ".lua"),
    ...migrationFindings(),
  ];
  if (groups.length === 0)
    findings.push(`${contractDirectory}: no interface <Group>Operations found`);
  return { groups, findings };
}

/** @returns {Group[]} */
function readContract() {
  return filesOf(contractDirectory, ".ts").flatMap((file) => {
    const code = withoutCommentsAndTexts(read(`${contractDirectory}/${file}`));
    const header = /\binterface\s+\w+Operations\b[^{]*\{/.exec(code);
    if (header === null) return [];
    return [
      { file, operations: membersOf(code, header.index + header[0].length) },
    ];
  });
}

/**
 * The names of an interface's members: what precedes `(`, `<` or `:` on the outermost level of its body.
 *
 * @param {string} code
 * @param {number} start just behind the opening brace
 * @returns {string[]}
 */
function membersOf(code, start) {
  const names = [];
  let depth = 0;
  let memberStart = true;
  for (let at = start; at < code.length; at += 1) {
    const character = code.charAt(at);
    if (depth === 0 && character === "}") break;
    if (depth === 0 && memberStart) {
      const name = /^(?:readonly\s+)?(\w+)\??\s*[(<:]/.exec(code.slice(at));
      if (name?.[1] !== undefined) {
        names.push(name[1]);
        memberStart = false;
      }
    }
    if ("({[<".includes(character)) depth += 1;
    // The arrow of a function type closes nothing.
    else if (character === ">" && code.charAt(at - 1) === "=") continue;
    else if (")}]>".includes(character)) depth -= 1;
    else if (depth === 0 && character === ";") memberStart = true;
  }
  return names;
}

/**
 * @param {string} name
 * @param {Group[]} groups
 * @returns {string[]}
 */
function backendFindings(name, groups) {
  const directory = `packages/${name}/src/operations`;
  if (!existsSync(join(root, directory))) return [];

  const findings = sameFiles(groups, directory, ".ts");
  for (const { file, operations } of groups) {
    if (!existsSync(join(root, directory, file))) continue;
    const code = withoutCommentsAndTexts(read(`${directory}/${file}`));
    for (const operation of operations) {
      if (!declares(code, operation))
        findings.push(`${directory}/${file}: ${operation} is missing`);
    }
  }
  const known = new Set(filesOf(contractDirectory, ".ts"));
  for (const file of filesOf(directory, ".ts")) {
    if (!known.has(file))
      findings.push(`${directory}/${file}: the contract has no such file`);
  }
  return findings;
}

/**
 * Whether a name is declared as a method, function, constant or property; a call of it on another object does not count.
 *
 * @param {string} code
 * @param {string} name
 */
function declares(code, name) {
  return new RegExp(
    `(?<![.\\w$])${name}\\s*(?:[(<:,}]|=(?![=>]))|\\bfunction\\s+${name}\\b`,
  ).test(code);
}

/**
 * @param {Group[]} groups
 * @param {string} directory a layer that does not exist yet has nothing to line up
 * @param {string} extension
 * @returns {string[]}
 */
function sameFiles(groups, directory, extension) {
  if (!existsSync(join(root, directory))) return [];
  return groups
    .map(({ file }) => file.replace(/\.ts$/, extension))
    .filter((file) => !existsSync(join(root, directory, file)))
    .map((file) => `${directory}/${file} is missing`);
}

/** @returns {string[]} */
function migrationFindings() {
  const dialects = subdirectories("migrations").map((directory) => ({
    directory,
    files: readMigrations(directory).map(
      ({ version, name }) => `${String(version).padStart(4, "0")}_${name}.sql`,
    ),
  }));
  const all = new Set(dialects.flatMap(({ files }) => files));
  return dialects.flatMap(({ directory, files }) =>
    [...all]
      .filter((file) => !files.includes(file))
      .map(
        (file) =>
          `${directory}/${file} is missing: ${dialectsWith(dialects, file)} has it`,
      ),
  );
}

/**
 * @param {{ directory: string, files: string[] }[]} dialects
 * @param {string} file
 */
function dialectsWith(dialects, file) {
  return dialects
    .filter(({ files }) => files.includes(file))
    .map(({ directory }) => basename(directory))
    .join(" and ");
}

/**
 * @param {string} directory
 * @param {string} extension
 */
function filesOf(directory, extension) {
  if (!existsSync(join(root, directory))) return [];
  return readdirSync(join(root, directory))
    .filter((file) => file.endsWith(extension) && file !== "index.ts")
    .sort();
}

/** @param {string} path below the root */
function read(path) {
  return readFileSync(join(root, path), "utf8");
}

/**
 * Comments hold examples and texts hold SQL; neither declares anything. A regular expression literal that holds a quote
 * would confuse this, and would show up as an operation reported missing.
 *
 * @param {string} source
 */
function withoutCommentsAndTexts(source) {
  return source.replace(
    /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[\s\S])*`/g,
    (match) => (match.startsWith("/") ? " " : '""'),
  );
}

if (isProgram(import.meta.url)) {
  const { groups, findings } = checkLineup();
  for (const finding of findings) console.log(finding);
  const operations = groups.flatMap((group) => group.operations).length;
  console.log(
    `${groups.length} groups, ${operations} operations: ${findings.length === 0 ? "every layer lines up" : `${findings.length} findings`}`,
  );
  process.exitCode = findings.length === 0 ? 0 : 1;
}
